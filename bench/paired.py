"""Do two runs answer alike, seat by seat? What one engine's answers score beside another's on the same problems.

    python bench/paired.py runs/sa-vllm/test/base runs/sa-transformers/test/base

Each line is an agent's answers of one kind (a debate's rounds are kinds): how many there are, what share of them the
grader takes for right in the first run and in the second, and the difference with its error, paired over problems. An
error of one standing alone says nothing; several seats that lean one way do.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import tyro

from teamtune.evaluate import estimate
from teamtune.store import read_table
from teamtune.types import TeamtuneError, place_of

Seat = tuple[str, str]
"""agent and kind of answer"""


def scores(folder: Path) -> dict[Seat, dict[str, list[float]]]:
    """Of every seat of a played stage, the scores of its answers by problem."""
    seats = {place_of(row): (row["agent"], row["tag"]) for row in read_table(folder / "turns").rows()}
    found: dict[Seat, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in read_table(folder / "grades").rows():
        found[seats[place_of(row)]][row["problem"]].append(float(row["score"]))
    return found


def paired(one: Mapping[str, list[float]], other: Mapping[str, list[float]]) -> dict[str, float]:
    """Both means in %, and their difference with its error, over the problems that both have."""
    same = sorted(one.keys() & other.keys())
    means = [[100 * sum(own[p]) / len(own[p]) for p in same] for own in (one, other)]
    diff = estimate([a - b for a, b in zip(*means, strict=True)])
    told = {"first": estimate(means[0]).mean, "second": estimate(means[1]).mean, "diff": diff.mean, "error": diff.se}
    answers = sum(map(len, one.values())), sum(map(len, other.values()))
    return {"problems": diff.n, "answers": min(answers), **{name: round(value, 2) for name, value in told.items()}}


def main(first: Path, second: Path, /) -> None:
    runs = [scores(folder) for folder in (first, second)]
    seats = [seat for seat in runs[0] if seat in runs[1]]
    if not seats:
        raise TeamtuneError(f"{first} and {second} have no seat in common; give two runs of one team")
    for seat in seats:
        print(json.dumps({"agent": seat[0], "answers of": seat[1], **paired(runs[0][seat], runs[1][seat])}))


if __name__ == "__main__":
    tyro.cli(main)
