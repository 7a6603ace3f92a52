"""The numbers of a report that no table holds yet, from Turn, Grade and Value tables. Pure.

What self-correction looks like, in shares of n:

    {"n": 120, "right->right": 0.08, "wrong->right": 0.02, "wrong->wrong": 0.89, "right->wrong": 0.01}
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from teamtune.credit.consensus import in_rounds
from teamtune.evaluate import accuracy_by_agent, paired_bootstrap
from teamtune.types import Row, by_episode, place_of

MOVES = ("right->right", "wrong->right", "wrong->wrong", "right->wrong")
BINS = ("0", "(0, ¼]", "(¼, ½]", "(½, ¾]", "(¾, 1)", "1")


def moves(pairs: Sequence[tuple[float, float]]) -> Row | None:
    """Shares of right and wrong, before and after; None where there is nothing to count.

    A vote with a tie is right to the part of the tied answers that are, so that right->right and wrong->right add
    up to the accuracy after.
    """
    if not pairs:
        return None
    total = dict.fromkeys(MOVES, 0.0)
    for was, now in pairs:
        total["right->right"] += was * now
        total["wrong->right"] += (1 - was) * now
        total["wrong->wrong"] += (1 - was) * (1 - now)
        total["right->wrong"] += was * (1 - now)
    return {"n": len(pairs), **{name: count / len(pairs) for name, count in total.items()}}


def first_to_last(turns: Sequence[Row], grades: Sequence[Row]) -> list[tuple[float, float]]:
    """The scores of the turn that began and the turn that ended each chain of an episode."""
    score = {place_of(row): row["score"] for row in grades}
    ends = ((key, pair) for key, rows in by_episode(turns).items() for pair in ends_of(rows))
    return [(score[*key, first["turn"]], score[*key, last["turn"]]) for key, (first, last) in ends]


def ends_of(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """The turn that began and the turn that ended each chain of one episode.

    Of a debate or a discussion, the first and the last answer of each place: who speaks there may be another agent in
    each round, or the same one in all places. Of a pass, the generator's turn and the one that nobody goes on from.
    """
    for kind in ("round", "turn"):
        if any(row["tag"].startswith(f"{kind}-") for row in rows):
            rounds = in_rounds(rows, kind)
            return list(zip(rounds[0], rounds[-1], strict=True)) if len(rounds) > 1 else []
    by_index = {row["turn"]: row for row in rows}
    found = []
    for last in (leaf for leaf in leaves(rows) if leaf["parents"]):
        roots = [by_index[i] for i in ancestors(last, by_index) if not by_index[i]["parents"]]
        found.append((roots[0], last))
    return found


def ancestors(turn: Row, by_index: Mapping[int, Row]) -> list[int]:
    """The turns that a turn goes back to, in order."""
    seen: set[int] = set()
    ahead = list(turn["parents"])
    while ahead:
        index = ahead.pop()
        if index not in seen:
            seen.add(index)
            ahead += by_index[index]["parents"]
    return sorted(seen)


def leaves(turns: Sequence[Row]) -> list[Row]:
    """The turns of one episode that no other turn shows."""
    shown = {index for row in turns for index in row["parents"]}
    return [row for row in turns if row["turn"] not in shown]


def by_role(played: Mapping[str, tuple[Sequence[Row], Sequence[Row]]], before: str, after: str) -> list[Row]:
    """Accuracy of each agent's turns in several systems, {name: (turns, grades)}, and the gain from before to after."""
    accuracy = {name: accuracy_by_agent(grades, turns) for name, (turns, grades) in played.items()}
    scores = {name: _scores(*tables) for name, tables in played.items()}
    rows = []
    for agent in dict.fromkeys(agent for found in accuracy.values() for agent in found):
        row: Row = {
            "agent": agent,
            "systems": {n: found[agent] for n, found in accuracy.items() if agent in found},
        }
        old, new = (scores.get(name, {}).get(agent, {}) for name in (before, after))
        if before != after and old and old.keys() == new.keys():
            row["gain"] = paired_bootstrap([new[p] for p in old], list(old.values()))
        rows.append(row)
    return rows


def _scores(turns: Sequence[Row], grades: Sequence[Row]) -> dict[str, dict[str, float]]:
    """{agent: {problem: mean score of its turns}}."""
    author = {place_of(row): row["agent"] for row in turns}
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for grade in grades:
        agent = author[place_of(grade)]
        found[agent][grade["problem"]].append(grade["score"])
    return {agent: {p: sum(s) / len(s) for p, s in group.items()} for agent, group in found.items()}


def spread_of_values(values: Sequence[Row]) -> list[Row]:
    """Each agent's values: number, mean, share that is positive, and the share in each of `BINS`."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in values:
        groups[row["agent"]].append(row)
    found = []
    for agent, rows in groups.items():
        n = len(rows)
        counts = Counter(_bin(row["value"]) for row in rows)
        found.append(
            {
                "agent": agent,
                "n": n,
                "mean": sum(row["value"] for row in rows) / n,
                "positive": sum(bool(row["positive"]) for row in rows) / n,
                "bins": [counts[index] / n for index in range(len(BINS))],
            }
        )
    return found


def _bin(value: float) -> int:
    if value <= 0 or value >= 1:
        return 0 if value <= 0 else 5
    return next(index for index, top in enumerate((0.25, 0.5, 0.75, 1.0), start=1) if value <= top)


def outcomes(counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """{"generator: kept": 8, ...} -> {"generator": {"kept": 8}, ...}; a count of nobody's stands under ""."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for told, count in counts.items():
        agent, colon, outcome = told.partition(": ")
        found[agent if colon else ""][outcome if colon else told] = count
    return dict(found)


def curves(metrics: Sequence[Row]) -> list[Row]:
    """One line a stage and agent: the steps at which it was trained, and each metric at those steps."""
    found: dict[tuple[str, str], dict[str, list[Any]]] = {}
    for line in metrics:
        for agent in dict.fromkeys(key.rpartition("/")[0] for key in line if "/" in key):
            one = found.setdefault((line["stage"], agent), {"steps": []})
            one["steps"].append(line["step"])
            for key, value in line.items():
                if key.startswith(f"{agent}/"):
                    one.setdefault(key.rpartition("/")[2], []).append(value)
    return [{"stage": stage, "agent": agent, **one} for (stage, agent), one in found.items() if "loss" in one]
