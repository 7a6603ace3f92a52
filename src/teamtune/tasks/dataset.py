"""Data sets as tasks: rows of any source -> problems, in subsets that are the same on every machine.

A data set's own file says where it is and how a row of it reads; rows in the common schema need no such reading:

    {"id": "gsm8k/test/0", "question": "...", "answer": "18", "choices": null, "level": null, "subject": null}

A subset is drawn by lot: problems are ordered by a hash of (seed, id), and the first ones are taken, so 100 problems
are among the 200 of the same seed.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from teamtune.grading.choice import LETTERS
from teamtune.tasks.source import Raw, has_split, rows_of
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


@dataclass(frozen=True, slots=True)
class Item:
    """What is read of one row."""

    question: str
    answer: str
    choices: tuple[str, ...] = ()
    id: str = ""
    level: str = ""
    subject: str = ""


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


def common(row: Row, columns: Columns = Columns()) -> Item:
    """A row in the common schema, or with columns named otherwise. Raises ValueError that says what is wrong."""
    value = {name: _value(row, name, getattr(columns, name)) for name in NAMES}
    question, answer = (_text(value[name], name) for name in ("question", "answer"))
    choices = value["choices"]
    if isinstance(choices, str):
        choices = [part.strip() for part in choices.split("|")] if choices.strip() else []
    if choices is not None and not all(isinstance(choice, str) for choice in choices):
        raise ValueError("choices must be a list of texts")
    plain = lambda name: "" if value[name] is None else str(value[name])  # noqa: E731
    return Item(question, answer, tuple(choices or ()), plain("id"), plain("level"), plain("subject"))


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
    return str(value).strip() if name == "question" else " ".join(str(value).split())


def is_common(row: Row) -> bool:
    return {"id", "question", "answer", "choices", "source", "split"} <= row.keys()


def problem_of(item: Item, ending: str, identity: str) -> Problem:
    """The problem as protocols see it: options follow the question, lettered."""
    shown = "".join(f"\n({LETTERS[i]}) {text}" for i, text in enumerate(item.choices))
    meta = {"choices": list(item.choices), "level": item.level, "subject": item.subject}
    return Problem(
        item.id or identity, item.question + shown, item.answer, ending, {k: v for k, v in meta.items() if v}
    )


Read = Callable[[Row], Item]


def problems_of(raws: Iterable[Raw], read: Read, ending: str, prefix: str) -> Iterator[tuple[Raw, Problem | str]]:
    """Each row with its problem, or with what is wrong with it."""
    seen: dict[str, str] = {}
    for number, raw in enumerate(raws):
        if raw.row is None:
            yield raw, raw.error
            continue
        try:
            item = common(raw.row) if is_common(raw.row) else read(raw.row)
            problem = problem_of(item, ending, f"{prefix}/{number}")
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            told = str(error) if type(error) is ValueError else f"not of the expected form ({error!r})"
            yield raw, told
            continue
        if problem.id in seen:
            yield raw, f"the id {problem.id!r} is that of {seen[problem.id]} too"
            continue
        seen[problem.id] = raw.place
        yield raw, problem


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
    for name, wanted in (("level", levels), ("subject", subjects)):
        there = {str(problem.meta.get(name, "")) for problem in problems} - {""}
        unknown = [value for value in wanted if value not in there]
        if unknown:
            raise TeamtuneError(
                f"{what} has no {name} {', '.join(map(repr, unknown))}; "
                f"its {name}s are {', '.join(sorted(there)) or 'not given'}"
            )
        kept = [problem for problem in kept if not wanted or str(problem.meta.get(name, "")) in wanted]
    return kept


def by_lot(problems: Sequence[Problem], seed: int) -> list[Problem]:
    """The problems in the order of their lots, which is the same on every machine."""
    return sorted(problems, key=lambda problem: (lot(seed, problem.id), problem.id))


# ---- where the rows are ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """A source and the split of it that holds rows of a part."""

    part: str
    source: str
    split: str


def places(dataset: Dataset, split: str, data: str = "", levels: Sequence[str] = ()) -> list[Place]:
    """Where the rows of a split are: in `data`, in the folder TEAMTUNE_DATA, or on the hub.

    Only the parts that `levels` names, where it names parts. Raises TeamtuneError for a split that there is none of.
    """
    named = [part for part in dataset.parts if part.name in levels] if levels else []
    found = [_place(dataset, part, split, data) for part in named or dataset.parts]
    return list(dict.fromkeys(found))


def _place(dataset: Dataset, part: Part, split: str, data: str) -> Place:
    splits = {**dataset.splits, **part.splits}
    if split not in splits:
        raise TeamtuneError(f"{dataset.name} has no split {split!r}; it has {', '.join(splits)}")
    base = data or os.environ.get("TEAMTUNE_DATA", "")
    folder = local_folder(Path(base).expanduser(), dataset.name, part.name) if base else None
    if folder is None and data and Path(data).expanduser().is_dir():
        folder = Path(data).expanduser()
    # Files are called by our names or by the hub's, or have the part's name before them: "test", "val", "r1-dev".
    ours = [split, splits[split], *(("dev", "val", "validation") if split == "dev" else ())]
    stems = [*(f"{part.name}-{stem}" for stem in ours if part.name), *ours]
    stem = next((stem for stem in stems if folder and has_split(folder, stem)), "")
    if folder is None or not (stem or data):
        hub = part.hub or (f"{dataset.hub}:{part.config}" if part.config else dataset.hub)
        return Place("" if data else part.name, data or hub, splits[split])
    own = folder.name != dataset.name or stem.startswith(f"{part.name}-")
    return Place(part.name if part.name and own else "", str(folder), stem or splits[split])


def local_folder(base: Path, name: str, part: str) -> Path | None:
    """The folder of a data set, or of its part, below a folder of data sets; None where there is none."""
    names = [f"{name}_{part}", f"{name}{part}", name] if part else [name]
    return next((base / folder for folder in names if (base / folder).is_dir()), None)


def read_pool(dataset: Dataset, split: str, data: str = "", levels: Sequence[str] = ()) -> list[Problem]:
    """All problems of a split. Raises TeamtuneError for rows that cannot be read, and where there are none."""
    problems: list[Problem] = []
    for place in places(dataset, split, data, levels):
        # Ids follow from the rows' own place: where two splits share a pool, a problem has one id.
        prefix = "/".join(filter(None, (dataset.name, place.part, place.split)))
        for problem in strict(problems_of(rows_of(place.source, place.split), dataset.read, dataset.ending, prefix)):
            level = {"level": place.part} if place.part and not problem.meta.get("level") else {}
            problems.append(replace(problem, meta={**problem.meta, **level}))
    if not problems:
        raise TeamtuneError(f"{dataset.name} has no rows in split {split!r}; check the source")
    twice = [identity for identity, count in Counter(problem.id for problem in problems).items() if count > 1]
    if twice:
        raise TeamtuneError(f"{len(twice)} ids stand in several parts of {dataset.name}, {twice[0]!r} among them")
    return problems
