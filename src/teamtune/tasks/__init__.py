"""Tasks: one module each, with `load(split, count, seed, level)` and `grade(problem, text)`.

A name is looked up by import: "arithmetic" is `teamtune.tasks.arithmetic`, "my_package.my_task" is your own module.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

from teamtune.types import Problem, Row, TeamtuneError, turn_of

BUILT_IN = ("arithmetic", "stories")


def find(name: str) -> ModuleType:
    """The task's module."""
    path = f"teamtune.tasks.{name}" if name in BUILT_IN else name
    unknown = TeamtuneError(
        f"unknown task {name!r}; built in are {', '.join(BUILT_IN)}, or give the path of your own module"
    )
    if name not in BUILT_IN and not all(part.isidentifier() for part in name.split(".")):
        raise unknown
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name and (path == error.name or path.startswith(f"{error.name}.")):
            raise unknown from error
        raise TeamtuneError(f"task {name!r} cannot be imported: {error}; install what it needs") from error
    for needed in ("load", "grade"):
        if not hasattr(module, needed):
            raise TeamtuneError(f"task {name!r} has no function {needed!r}; see docs/guides/add-a-task.md")
    return module


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """Which problems to take: enough to load the same ones again."""

    task: str = "arithmetic"
    """a built-in task, or the dotted path of your own module"""
    level: str = ""
    """level of the task; empty is its own default"""
    train: int = 1000
    """problems to train on"""
    test: int = 1000
    """problems to evaluate on"""
    held_out: Literal["test", "dev"] = "test"
    """which split those are from: dev to choose options by, test for the figures that count"""
    data_seed: int = 0
    """which problems: another seed gives others of the same split"""

    def load(self, split: str) -> list[Problem]:
        """The problems of "train" or "test" (which are those of `held_out`)."""
        count = {"train": self.train, "test": self.test}.get(split)
        if count is None:
            raise TeamtuneError(f"there is no split {split!r}; choose train or test")
        if count < 1:
            raise TeamtuneError(f"{count} {split} problems asked for; take at least 1")
        module = find(self.task)
        level = {"level": self.level} if self.level else {}
        return module.load(self.held_out if split == "test" else split, count, self.data_seed, **level)


def check_apart(train: Sequence[Problem], test: Sequence[Problem]) -> None:
    """No problem may be in both the training and the test set: neither its id nor its question."""
    ids = {p.id for p in train} & {p.id for p in test}
    if ids:
        raise TeamtuneError(
            f"{len(ids)} problem ids are in both train and test, {min(ids)!r} among them; split them apart"
        )
    same = {plain(p.question) for p in train} & {plain(p.question) for p in test}
    if same:
        raise TeamtuneError(
            f"{len(same)} questions are in both train and test, {min(same)!r} among them; split them apart"
        )


def plain(question: str) -> str:
    """A question without case, punctuation and spacing, to compare by."""
    return " ".join("".join(c if c.isalnum() or c in "+-*/" else " " for c in question.lower()).split())


def grade_turns(turns: Sequence[Row], task: TaskSpec, split: str) -> list[Row]:
    """A grade for every turn: what was read in it, by which rule, and whether and why that is right."""
    module = find(task.task)
    problems = {p.id: p for p in task.load(split)}
    rows = []
    for row in turns:
        grade = module.grade(problems[row["problem"]], turn_of(row).text)
        key = {name: row[name] for name in ("problem", "take", "turn")}
        told = {"rule": grade.rule, "reason": grade.reason}
        rows.append({**key, "parsed": grade.parsed, "score": grade.score, **told})
    return rows
