"""Data sets as tasks: rows of any source -> problems, in subsets that are the same on every machine.

A data set's own file says where it is and how a row of it reads; rows in the common schema need no such reading:

    {"id": "gsm8k/test/0", "question": "...", "answer": "18", "choices": null, "level": null, "subject": null}

A subset is drawn by lot: problems are ordered by a hash of (seed, id), and the first ones are taken, so 100 problems
are among the 200 of the same seed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from teamtune.grading.choice import LETTERS
from teamtune.tasks.source import Raw
from teamtune.types import Problem, Row, TeamtuneError
from teamtune.vote import lot

NUMBER_ENDING = "End with a line: Answer: <number>"
CHOICE_ENDING = "End with a line: Answer: <letter>"
MATH_ENDING = "End with the final answer in \\boxed{}."

# What a column may be called, the usual name first.
NAMES: Mapping[str, tuple[str, ...]] = {
    "question": ("question", "problem", "prompt", "input", "query"),
    "answer": ("answer", "gold", "target", "label", "final_answer"),
    "choices": ("choices", "options"),
    "id": ("id", "unique_id", "uid", "qid"),
    "level": ("level",),
    "subject": ("subject", "type"),
}


NO_ANSWER = ("nan", "inf", "-inf", "null", "n/a", "<na>")
"""what tables write where there is no value"""


@dataclass(frozen=True, slots=True)
class Item:
    """What is read of one row."""

    question: str
    answer: str
    choices: tuple[str, ...] = ()
    id: str = ""
    level: str = ""
    subject: str = ""
    group: str = ""
    """what problems share that are one in other words: none of them is tested on where another is trained on"""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold what; an empty name takes the usual ones."""

    question: str = ""
    answer: str = ""
    choices: str = ""
    id: str = ""
    level: str = ""
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a data set that is stored by itself: a level (ARC easy), a round (ANLI r1), a subject."""

    name: str = ""
    config: str = ""
    hub: str = ""
    """where the part has a place of its own on the hub"""
    splits: Mapping[str, str] = field(default_factory=dict)
    """our split -> the hub's, where it differs from the data set's"""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set that ships as a task: where it is, and how a row of the hub's form reads."""

    name: str
    hub: str
    read: Callable[[Row], Item]
    ending: str
    splits: Mapping[str, str]
    """our split -> the hub's; two of ours may share one of the hub's, and are drawn apart"""
    sizes: Mapping[str, int]
    """problems of the hub's splits, as published"""
    parts: tuple[Part, ...] = (Part(),)
    columns: bool = False
    """keep a row's other columns in `meta["columns"]`, for graders that ask for them"""


def common(row: Row, columns: Columns = Columns(), bare: bool = False) -> Item:
    """A row in the common schema, or with columns named otherwise; `bare` reads no answer. Raises ValueError that says
    what is wrong."""
    value = {name: _value(row, name, getattr(columns, name)) for name in NAMES if not (bare and name == "answer")}
    question, answer = _text(value["question"], "question"), "" if bare else _text(value["answer"], "answer")
    plain = lambda name: "" if value[name] is None else str(value[name])  # noqa: E731
    return Item(question, answer, choices_in(value["choices"]), plain("id"), plain("level"), plain("subject"))


def choices_in(value: Any) -> tuple[str, ...]:
    """The options of a row: a list of texts, the hub's {"label": [...], "text": [...]}, a JSON list as a text, or a
    text with | between. Raises ValueError for anything else, one option alone among it."""
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"the choices are no JSON list: {value[:40]!r}") from error
    elif isinstance(value, str):
        value = [part.strip() for part in value.split("|")] if value.strip() else None
    if isinstance(value, Mapping):
        value = value.get("text")
    if value is None or value == []:
        return ()
    if not isinstance(value, Sequence) or not all(isinstance(one, (str, int, float)) for one in value):
        raise ValueError("the choices are no list of texts")
    if not 2 <= len(value) <= len(LETTERS):
        raise ValueError(f"{len(value)} choices; there must be 2 to {len(LETTERS)} (in a text put | between them)")
    return tuple(str(one).strip() for one in value)


def _value(row: Row, name: str, column: str) -> Any:
    if column:
        if column not in row:
            raise ValueError(f"no column {column!r}; there are {', '.join(map(str, row))}")
        return row[column]
    found = next((usual for usual in NAMES[name] if usual in row), None)
    if found is None and name in ("question", "answer"):
        raise ValueError(
            f"no {name} column (looked for {', '.join(NAMES[name])}; there are {', '.join(map(str, row))}): "
            f"name it with --{name}-column"
        )
    return None if found is None else row[found]


def _text(value: Any, name: str) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"the {name} is empty")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"the {name} is {value}")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if not isinstance(value, (str, int, float)):
        raise ValueError(f"the {name} is a {type(value).__name__}, not a text")
    if name == "answer" and str(value).strip().casefold() in NO_ANSWER:
        raise ValueError(f"the {name} is {str(value).strip()!r}, which is none; drop the row or mend it")
    if any("\ud800" <= character <= "\udfff" for character in str(value)):
        raise ValueError(f"the {name} holds half of a character (a lone surrogate); mend its encoding")
    return str(value).strip() if name == "question" else " ".join(str(value).split())


def is_common(row: Row) -> bool:
    return {"id", "question", "answer", "choices", "source", "split"} <= row.keys()


def problem_of(item: Item, ending: str, identity: str) -> Problem:
    """The problem as protocols see it: options follow the question, lettered."""
    shown = "".join(f"\n({LETTERS[i]}) {text}" for i, text in enumerate(item.choices))
    meta = {"choices": list(item.choices), "level": item.level, "subject": item.subject, "group": item.group}
    return Problem(
        item.id or identity, item.question + shown, item.answer, ending, {k: v for k, v in meta.items() if v}
    )


Read = Callable[[Row], Item]


def problems_of(
    raws: Iterable[Raw], read: Read, ending: str, prefix: str, columns: bool = False
) -> Iterator[tuple[Raw, Problem | str]]:
    """Each row with its problem, or with what is wrong with it; with `columns`, the row's columns are kept."""
    seen: dict[str, str] = {}
    for number, raw in enumerate(raws):
        if raw.row is None:
            yield raw, raw.error
            continue
        try:
            item = common(raw.row) if is_common(raw.row) and not columns else read(raw.row)
            problem = problem_of(item, ending, f"{prefix}/{number}")
            if columns:
                problem = replace(problem, meta={**problem.meta, "columns": plain_values(raw.row)})
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            told = str(error) if type(error) is ValueError else f"not of {prefix}'s form ({error!r}); check the file"
            yield raw, told
            continue
        if problem.id in seen:
            yield raw, f"the id {problem.id!r} is that of {seen[problem.id]} too; give every row its own"
            continue
        seen[problem.id] = raw.place
        yield raw, problem


def plain_values(row: Row) -> Row:
    """A row as JSON has it; what JSON has no form for (a date) as text."""
    return json.loads(json.dumps(row, default=str))


def strict(pairs: Iterable[tuple[Raw, Problem | str]]) -> list[Problem]:
    """All problems. Raises TeamtuneError for the first row with something wrong."""
    problems = []
    for raw, found in pairs:
        if isinstance(found, str):
            raise TeamtuneError(f"{raw.place}: {found}; `teamtune validate-data` lists all such rows")
        problems.append(found)
    return problems


def chosen(problems: Sequence[Problem], levels: Sequence[str], subjects: Sequence[str], what: str) -> list[Problem]:
    """The problems of the given levels and subjects (none: of all)."""
    kept = list(problems)
    for name, wanted, kinds in (("level", levels, ("level", "subject")), ("subject", subjects, ("subject",))):
        if not wanted:
            continue
        # Parts of a data set may be its levels on the hub and its subjects in a file: a level may name either.
        values = lambda problem, kinds=kinds: {str(problem.meta.get(kind, "")) for kind in kinds} - {""}  # noqa: E731
        there = set().union(*map(values, problems))
        folded = {value.casefold() for value in there}
        unknown = [value for value in wanted if value.casefold() not in folded]
        if unknown:
            raise TeamtuneError(
                f"{what} has no {name} {', '.join(map(repr, unknown))}; "
                f"its {name}s are {', '.join(sorted(there)) or 'not given'}"
            )
        asked = {value.casefold() for value in wanted}
        kept = [problem for problem in kept if asked & {value.casefold() for value in values(problem)}]
    return kept


def one_side(problems: Sequence[Problem], share: float, front: bool, seed: int) -> list[Problem]:
    """The problems of the first `share` of the groups, in the order of their lots, or of the others; one group each at
    least. What has no group is one of its own; all of them where none has one."""
    of = lambda problem: problem.meta.get("group") or problem.id  # noqa: E731
    groups = {of(problem) for problem in problems}
    if len(groups) < 2 or not any(problem.meta.get("group") for problem in problems):
        return list(problems)
    lots = sorted(groups, key=lambda group: (lot(seed, "group", group), group))
    cut = min(len(lots) - 1, max(1, round(share * len(lots))))
    mine = {*(lots[:cut] if front else lots[cut:])}
    return [problem for problem in problems if of(problem) in mine]


def by_lot(problems: Sequence[Problem], seed: int) -> list[Problem]:
    """The problems in the order of their lots, which is the same on every machine."""
    return sorted(problems, key=lambda problem: (lot(seed, problem.id), problem.id))
