"""A task by its name, and whether two sets of problems are apart."""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Sequence
from types import ModuleType

from teamtune.types import Problem, TeamtuneError

MADE = ("arithmetic", "stories")
"""made on the fly, without end"""
DATASETS = (
    "gsm8k",
    "math",
    "math500",
    "commonsense_qa",
    "arc",
    "mmlu",
    "anli",
    "bbh",
    "svamp",
    "aqua",
    "strategy_qa",
    "aime",
    "amc23",
    "gsm_symbolic",
    "gsm_plus",
)
BUILT_IN = (*MADE, *DATASETS)


def find(name: str) -> ModuleType:
    """The task's module."""
    path = f"teamtune.tasks.{name}" if name in BUILT_IN else name
    unknown = TeamtuneError(
        f"unknown task {name!r}; built in are {', '.join(BUILT_IN)}; or give the path of your own module, "
        "or --task data with --data"
    )
    if name not in BUILT_IN and not all(part.isidentifier() for part in name.split(".")):
        raise unknown
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name and (path == error.name or path.startswith(f"{error.name}.")):
            raise unknown from error
        raise TeamtuneError(f"task {name!r} cannot be imported: {error}; install what it needs") from error
    except Exception as error:  # a user's module may raise anything
        raise TeamtuneError(f"task {name!r} cannot be imported: {type(error).__name__}: {error}; mend it") from error
    for needed in ("grade",) if hasattr(module, "DATASET") else ("load", "grade"):
        if not hasattr(module, needed):
            raise TeamtuneError(f"task {name!r} has no function {needed!r}; see docs/guides/add-a-task.md")
    return module


def check_apart(train: Sequence[Problem], test: Sequence[Problem], allow: bool = False) -> int:
    """How many test problems are in the training set too, by their id or their question.

    Raises TeamtuneError if there are any, unless `allow`.
    """
    both = seen_in(train, test)
    if both and not allow:
        same = f"problem {both[0].id!r}, {both[0].question[:80]!r}"
        raise TeamtuneError(
            f"{len(both)} of {len(test)} test problems are in the training set too, {same} among them; "
            "split them apart, or allow it with --allow-leaks"
        )
    return len(both)


def seen_in(before: Sequence[Problem], problems: Sequence[Problem]) -> list[Problem]:
    """Which of the problems have the id or the question of one before."""
    ids, questions = {p.id for p in before}, {plain(p.question) for p in before}
    return [p for p in problems if p.id in ids or plain(p.question) in questions]


def plain(question: str) -> str:
    """A question without case, punctuation, spacing and the order of its options, to compare by."""
    text = unicodedata.normalize("NFKC", question).replace("\N{MINUS SIGN}", "-").lower()
    stem, *options = re.split(r"\n\([a-z]\) ", text)
    kept = ("".join(c if c.isalnum() or c in "+-*/<>=^_%" else " " for c in part) for part in (stem, *sorted(options)))
    return " ".join(" ".join(kept).split())
