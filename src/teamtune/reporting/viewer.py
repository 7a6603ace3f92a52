"""The trees that a report's page shows: training rounds, and every system on the same test problems."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from teamtune.reporting import read
from teamtune.reporting.names import training_rounds
from teamtune.reporting.trees import FULL, LIGHT, kind_of, mix, problem_trees, right_shares
from teamtune.types import Row, answering

Tables = tuple[list[Row], list[Row]]
"""Turns (light columns) and grades of one system."""
LIMITS = ((40, 20), (40, 12), (30, 8), (20, 5), (20, 2))
"""Problems shown of training and of each test system: the first that keeps the page small enough."""
MOST_BYTES = 2_600_000


def viewer(
    folder: Path, stages: Sequence[Row], tests: Mapping[str, Mapping[str, Tables]], called: Mapping[str, str]
) -> Row:
    """The trees to show, as many problems as keep the page small. tests: of every place of test problems ("test",
    "transfer/stories") the turns and grades of its systems; called: what each is called."""
    sets: list[Row] = []
    for number, (train, test) in enumerate(LIMITS):
        sets = [found for prefix in training_rounds(stages) if (found := _training_set(folder, prefix, train))]
        sets += [one for root, played in tests.items() for one in _test_sets(folder, root, played, test, called)]
        size = len(json.dumps(sets, ensure_ascii=False).encode())
        if size <= MOST_BYTES or number == len(LIMITS) - 1:
            break
    return {"sets": sets, "most": LIMITS[0], "shortened": number > 0}


def _training_set(folder: Path, prefix: str, limit: int) -> Row | None:
    light = answering(read.table(folder, f"{prefix}turns", LIGHT) or [])
    if not light:
        return None
    grades, values = (read.table(folder, f"{prefix}{name}") or [] for name in ("grades", "values"))
    pairs = read.table(folder, f"{prefix}pairs", PAIR) or []
    sft = read.table(folder, f"{prefix}sft-rows", ("problem", "take", "turn")) or []
    shares, paired = right_shares(light, grades), {row["problem"] for row in pairs}
    chosen = mix(list(shares), lambda p: kind_of(shares[p], p in paired), limit)
    turns = read.table(folder, f"{prefix}turns", FULL, chosen) or []
    title = f"Training trees, {prefix[:-1]}" if prefix else "Training trees"
    shown = problem_trees(turns, grades, values, sft, pairs)
    return {"key": f"{prefix}turns", "title": title, "total": len(shares), "problems": shown}


PAIR = ("problem", "take", "chosen_turn", "rejected_take", "rejected_turn")


def _test_sets(
    folder: Path, root: str, played: Mapping[str, Tables], limit: int, called: Mapping[str, str]
) -> list[Row]:
    """The same problems of every system, a mix of those that the first and the last of them get right or wrong."""
    shares = {name: right_shares(*tables) for name, tables in played.items()}
    if not shares:
        return []
    first = shares.get("base") or next(iter(shares.values()))
    last = list(shares.values())[-1]
    chosen = mix(list(last), lambda p: (first.get(p, 0.0) > 0.5, last[p] > 0.5), limit)
    sets = []
    where = "Test" if root == "test" else f"Test on {root.rpartition('/')[2]}"
    for name in reversed(list(played)):  # the trained team first
        turns = read.table(folder, f"{root}/{name}/turns", FULL, chosen) or []
        shown = problem_trees(turns, played[name][1])
        sets.append(
            {
                "key": f"{root}/{name}",
                "title": f"{where}: {called[name]}",
                "total": len(last),
                "problems": shown,
            }
        )
    return sets
