"""MALT's credit: the outcomes at the leaves of a tree of turns, averaged up to every turn above them.

In, the turns of one small tree (a generator, two verifiers, a refiner under each; other columns left out) and
the grades of its leaves:

    {"problem": "sums/3", "take": 0, "turn": 0, "agent": "generator", "tag": "generate", "parents": []}
    {"problem": "sums/3", "take": 0, "turn": 1, "agent": "verifier", "tag": "verify", "parents": [0]}
    {"problem": "sums/3", "take": 0, "turn": 2, "agent": "verifier", "tag": "verify", "parents": [0]}
    {"problem": "sums/3", "take": 0, "turn": 3, "agent": "refiner", "tag": "refine", "parents": [0, 1]}
    {"problem": "sums/3", "take": 0, "turn": 4, "agent": "refiner", "tag": "refine", "parents": [0, 2]}

    {"problem": "sums/3", "take": 0, "turn": 3, "parsed": "42", "score": 1.0}
    {"problem": "sums/3", "take": 0, "turn": 4, "parsed": "41", "score": 0.0}

Out, one row a turn; turn 0 is worth (1 + 0) / 2, which is not above one half:

    {"problem": "sums/3", "take": 0, "turn": 0, "agent": "generator", "tag": "generate", "parents": [],
     "value": 0.5, "positive": False}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum, log, sqrt
from typing import Literal

from teamtune.types import Key, Place, Row, TeamtuneError, by_episode, place_of

Pooling = Literal["global", "local"]


def backup(
    turns: Sequence[Row],
    grades: Sequence[Row],
    pooling: Pooling = "global",
    threshold: float = 0.5,
) -> list[Row]:
    """The value and the label of every turn, in the order of `turns` (MALT, Motwani et al. 2024).

    A turn's parent is the last of its `parents` (a refiner shows generator g and verifier v, and hangs under
    v); a turn without parents is a root. Trees may be uneven, of any depth, and many to an episode.

    A leaf's value is its grade's score. With "global" pooling, what the paper uses, the value of any other
    turn is the mean score of all leaves below it, which equals the mean of its children's values where all
    branch alike. With "local" pooling, which the paper names, it is the share of its children that are
    positive. A turn is positive if and only if its value is strictly above `threshold`. Only what came of a
    turn counts: its own grade, if it has one, is not read unless it is a leaf.

    Raises TeamtuneError for a leaf without a grade, a parent that is missing or not earlier, a turn given
    twice, or an option out of range.
    """
    if pooling not in ("global", "local"):
        raise TeamtuneError(f'pooling is {pooling!r}; it must be "global" or "local"')
    if not 0 <= threshold < 1:
        raise TeamtuneError(f"threshold is {threshold}; it must lie in [0, 1), for values reach from 0 to 1")
    scores = {place_of(row): row["score"] for row in grades}
    values = {key: _values(key, rows, scores, pooling, threshold) for key, rows in by_episode(turns).items()}
    return [_value_row(row, values[row["problem"], row["take"]][row["turn"]], threshold) for row in turns]


def hoeffding(m: int, delta: float = 0.05, nodes: int = 1) -> float:
    """The half-width eps = sqrt(ln(2 nodes / delta) / (2 m)) of a value from m leaves (MALT, appendix A.6).

    With probability 1 - delta, all of `nodes` values lie within eps of the truth, if each is the mean of m
    independent leaves. It is no certificate at the published setting: with n = 3 (m = 9 leaves to a generator
    turn) it is 0.87 over 7,500 questions and 0.52 for one question, about a value that lies in [0, 1] to
    begin with; even n = 8 gives 0.34.

    Raises TeamtuneError where m or nodes is below 1 or delta is not in (0, 1).
    """
    if m < 1 or nodes < 1:
        raise TeamtuneError(f"hoeffding got m = {m} leaves and nodes = {nodes}; both must be 1 or above")
    if not 0 < delta < 1:
        raise TeamtuneError(f"delta is {delta}; it must lie in (0, 1)")
    return sqrt(log(2 * nodes / delta) / (2 * m))


def parent(row: Row) -> int | None:
    """The turn under which a turn hangs in its tree: the last that it shows, None for a root."""
    return row["parents"][-1] if row["parents"] else None


def _values(
    episode: Key,
    rows: Sequence[Row],
    scores: Mapping[Place, float],
    pooling: Pooling,
    threshold: float,
) -> dict[int, float]:
    """The value of every turn of one episode, whose rows come in the order of their turns."""
    problem, take = episode
    below: dict[int, list[float]] = {row["turn"]: [] for row in rows}
    if len(below) < len(rows):
        raise TeamtuneError(f"problem {problem!r} take {take} has a turn twice; give every turn one row")
    values: dict[int, float] = {}
    for row in reversed(rows):  # children come after their parents, so from the last turn on all is ready
        turn, above = row["turn"], parent(row)
        if not below[turn]:
            if (problem, take, turn) not in scores:
                raise TeamtuneError(f"problem {problem!r} take {take} turn {turn} is a leaf without a grade; grade it")
            below[turn] = [scores[problem, take, turn]]
        # fsum rounds once, so the order of siblings cannot show in the value
        values[turn] = fsum(below[turn]) / len(below[turn])
        if above is None:
            continue
        if above >= turn or above not in below:
            raise TeamtuneError(
                f"problem {problem!r} take {take} turn {turn} names parent {above}, which is no earlier turn "
                "of its episode; give all turns of the episode"
            )
        below[above] += below[turn] if pooling == "global" else [float(values[turn] > threshold)]
    return values


def _value_row(row: Row, value: float, threshold: float) -> Row:
    kept = {name: row[name] for name in ("problem", "take", "turn", "agent", "tag")}
    return {**kept, "parents": list(row["parents"]), "value": value, "positive": value > threshold}
