"""What a discussion does to answers, turn by turn (MAPoRL, 3.4 and 3.8 of the specification). Pure.

The majority after every turn, and how agents' answers moved since the turn before. A tie counts in parts; what could
not be read is one more answer, which can win outright but yields in a tie (MAPoRL's metric). One row:

    {"problem": "p", "take": 0, "turn": 2, "vote": 0.5, "right": 0.667, "kept right": 1, "corrected": 1, "lost": 0,
     "kept wrong": 1, "RWR": 0, "RWW": 0, "WRW": 0, "WRR": 1, "influence RWR": 0, ...,
     "majority kept right": 0.5, "majority corrected": 0, "majority lost": 0.5, "majority kept wrong": 0}

A cell such as WRR counts agents: own answer wrong before, right after, most of the others right before. "influence WRR"
counts them too: others wrong before, right after, own answer right before. The majority moves as an agent does; of a
vote that is right in part, the part that it has before and after was kept, and the rest was won or lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from teamtune.credit.consensus import in_rounds
from teamtune.credit.discussion import opinion
from teamtune.evaluate import estimate, paired_bootstrap
from teamtune.store import Counted
from teamtune.types import Row, TeamtuneError, by_episode, place_of
from teamtune.vote import vote_score

MOVES = ("kept right", "corrected", "lost", "kept wrong")
MAJORITY = tuple(f"majority {move}" for move in MOVES)
CELLS = ("RWR", "RWW", "WRW", "WRR")
"""(own before, own after, others before), or of influence (others before, others after, own before)"""
KINDS = (("revision", "", "delta"), ("influence", "influence ", "influence_delta"))
"""what a cell can be of, and how the names of its shares and of their differences begin"""


def turn_rows(turns: Sequence[Row], grades: Sequence[Row], most: int) -> Counted:
    """One row an episode and turn, of at `most` so many. A discussion that ended early keeps its last answers for the
    turns that are left, and is counted."""
    graded = {place_of(row): row for row in grades}
    rows: list[Row] = []
    counts: Counter[str] = Counter()
    for (problem, take), group in by_episode(turns).items():
        rounds = [[graded[place_of(turn)] for turn in one] for one in in_rounds(group, "turn")]
        counts.update(["discussions that ended early"] if len(rounds) < most else [])
        whole = rounds + [rounds[-1]] * (most - len(rounds))
        last: float | None = None
        for number, here in enumerate(whole, start=1):
            scores = [one["score"] for one in here]
            row: Row = {"problem": problem, "take": take, "turn": number}
            vote = vote_score([one["parsed"] for one in here], scores, unparsed="class")
            row |= {"vote": vote, "right": sum(scores) / len(scores)}
            before = np.array([one["score"] == 1 for one in whole[number - 2]]) if number > 1 else None
            row |= moved(before, np.array([score == 1 for score in scores]))
            rows.append(row | majority_moved(last, vote))
            last = vote
    return Counted(rows, counts)


def majority_moved(before: float | None, after: float) -> dict[str, float]:
    """How a majority's score in [0, 1] moved, in parts that add up to 1; none moved before the first turn."""
    if before is None:
        return dict.fromkeys(MAJORITY, 0.0)
    kept = min(before, after)
    return dict(zip(MAJORITY, (kept, after - kept, before - kept, 1 - max(before, after)), strict=True))


def moved(before: np.ndarray | None, after: np.ndarray) -> dict[str, int]:
    """The counts of one turn; none moved before the first."""
    counts = dict.fromkeys((*MOVES, *CELLS, *(f"influence {cell}" for cell in CELLS)), 0)
    if before is None:
        return counts
    letter = lambda right: "R" if right else "W"  # noqa: E731
    for agent, (was, now) in enumerate(zip(before, after, strict=True)):
        counts[MOVES[(0 if now else 2) if was else (1 if now else 3)]] += 1
        others, later = opinion(before, agent, "none"), opinion(after, agent, "none")
        if others is None:
            continue
        if was != now:
            counts[letter(was) + letter(now) + letter(others)] += 1
        if later is not None and later != others:
            counts[f"influence {letter(others)}{letter(later)}{letter(was)}"] += 1
    return counts


def by_turn(name: str, rows: Sequence[Row], against: Sequence[Row] | None = None) -> list[Row]:
    """One row a turn of one system: the majority's accuracy, how answers moved, shares of agents' answers.

    {"system": "MAPoRL", "turn": 2, "accuracy": 0.797, "se": 0.011, "n": 1319, "right": 0.75, "diff": 0.11, "low": 0.09,
     "high": 0.13, "gain": 0.05, "gain_low": 0.03, "gain_high": 0.07, "moves": 3957, "kept right": 0.65, ...,
     "WRR": 0.12, "delta_0": 0.02, "delta_1": 0.1, ..., "majority kept right": 0.654, ...}

    against: the rows of another system on the same problems; "diff" is this one's accuracy less that one's, with a 95 %
    interval. "gain" is its accuracy less its own after the first turn. delta_0 = WRW - RWW (right alone), delta_1 =
    WRR - RWR (with right others); of the printed table of the paper the headings are the other way round (specification
    3.8).

    Raises TeamtuneError where the other system had other problems.
    """
    found = []
    first = _votes(rows, 1)
    for turn in sorted({row["turn"] for row in rows}):
        votes = _votes(rows, turn)
        here = [row for row in rows if row["turn"] == turn]
        total = estimate(list(votes.values()))
        told: Row = {"system": name, "turn": turn, "accuracy": total.mean, "se": total.se, "n": total.n}
        told["right"] = sum(row["right"] for row in here) / len(here)
        told |= {"diff": None, "low": None, "high": None}
        others = _votes(against, turn) if against else {}
        if others:
            if others.keys() != votes.keys():
                raise TeamtuneError(f"{name} and the system it is compared with did not answer the same problems")
            gap = paired_bootstrap(list(votes.values()), [others[problem] for problem in votes])
            told |= {"diff": gap.diff, "low": gap.low, "high": gap.high}
        told |= {"gain": None, "gain_low": None, "gain_high": None}
        if turn > 1:
            gap = paired_bootstrap(list(votes.values()), [first[problem] for problem in votes])
            told |= {"gain": gap.diff, "gain_low": gap.low, "gain_high": gap.high}
        moved_ = {name: sum(row[name] for row in here) / len(here) if turn > 1 else None for name in MAJORITY}
        found.append(told | shares(here) | moved_)
    return found


def shifts(name: str, rows: Sequence[Row], without: Sequence[Row]) -> list[Row]:
    """What incentives shifted: of every turn and cell the share of agents' answers, against a team that was paid none.

    {"system": "MAPoRL with alpha_1 2", "turn": 2, "of": "revision", "cell": "WRR", "share": 0.12, "without": 0.1,
     "diff": 0.02, "low": -0.01, "high": 0.05, "n": 400}

    "cell" may be a delta, too: delta_0 = WRW - RWW, delta_1 = WRR - RWR. Intervals of 95 % are paired over problems.
    """
    found = []
    for turn in sorted({row["turn"] for row in rows} - {1}):
        own, other = _by_problem(rows, turn), _by_problem(without, turn)
        for of, prefix, kind in KINDS:
            names = {cell: f"{prefix}{cell}" for cell in CELLS} | {f"delta_{n}": f"{kind}_{n}" for n in (0, 1)}
            for cell, name_ in names.items():
                pairs = [(own[problem][name_], other[problem][name_]) for problem in own]
                gap = paired_bootstrap([one for one, _ in pairs], [one for _, one in pairs])
                share, before = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
                told = {"share": share, "without": before, "diff": gap.diff, "low": gap.low, "high": gap.high}
                found.append({"system": name, "turn": turn, "of": of, "cell": cell, **told, "n": len(pairs)})
    return found


def _by_problem(rows: Sequence[Row], turn: int) -> dict[str, Row]:
    """{problem: shares of its answers' moves at a turn}."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row["turn"] == turn:
            groups.setdefault(row["problem"], []).append(row)
    return {problem: shares(own) for problem, own in groups.items()}


def shares(rows: Sequence[Row]) -> dict[str, float | int | None]:
    """The counts of some rows as shares of all agents' answers, and the two deltas of either table."""
    names = (*MOVES, *CELLS, *(f"influence {cell}" for cell in CELLS))
    total = sum(row[name] for row in rows for name in MOVES)
    found: dict[str, float | int | None] = {"moves": total}
    part = {name: sum(row[name] for row in rows) / total if total else None for name in names}
    found |= part
    for _, prefix, kind in KINDS:
        rwr, rww, wrw, wrr = (part[f"{prefix}{cell}"] for cell in CELLS)
        found[f"{kind}_0"] = None if wrw is None or rww is None else wrw - rww
        found[f"{kind}_1"] = None if wrr is None or rwr is None else wrr - rwr
    return found


def _votes(rows: Sequence[Row], turn: int) -> Mapping[str, float]:
    """{problem: score of the majority at a turn, mean over takes}."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["turn"] == turn:
            found.setdefault(row["problem"], []).append(row["vote"])
    return {problem: sum(votes) / len(votes) for problem, votes in found.items()}
