"""Where a data set's rows are, and all problems of a split: in a folder of copies, on the hub, or where one says."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from teamtune.tasks.dataset import Dataset, Part, problems_of, strict
from teamtune.tasks.source import has_split, rows_of
from teamtune.types import Problem, TeamtuneError


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
    asked = {level.casefold() for level in levels}
    named = [part for part in dataset.parts if part.name.casefold() in asked]
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
        raws = rows_of(place.source, place.split)
        for problem in strict(problems_of(raws, dataset.read, dataset.ending, prefix, dataset.columns)):
            level = {"level": place.part} if place.part and not problem.meta.get("level") else {}
            problems.append(replace(problem, meta={**problem.meta, **level}))
    if not problems:
        raise TeamtuneError(f"{dataset.name} has no rows in split {split!r}; check the source")
    twice = [identity for identity, count in Counter(problem.id for problem in problems).items() if count > 1]
    if twice:
        raise TeamtuneError(f"{len(twice)} ids stand in several parts of {dataset.name}, {twice[0]!r} among them")
    return problems
