"""What a discussion does to answers: fractional ties, moves, cells, early ends."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teamtune.transitions import CELLS, MAJORITY, MOVES, by_turn, majority_moved, moved, turn_rows
from teamtune.types import Row, TeamtuneError


def discussion(*rounds: str, problem: str = "p", take: int = 0) -> tuple[list[Row], list[Row]]:
    """Turns and grades from letters: R is right, others are wrong answers, "-" could not be read."""
    turns: list[Row] = []
    grades: list[Row] = []
    for number, letters in enumerate(rounds, start=1):
        for letter in letters:
            place = {"problem": problem, "take": take, "turn": len(turns)}
            turns.append({**place, "agent": "a", "tag": f"turn-{number}"})
            grades.append({**place, "parsed": None if letter == "-" else letter, "score": float(letter == "R")})
    return turns, grades


def test_the_majority_after_every_turn_with_ties_in_parts() -> None:
    rows = list(turn_rows(*discussion("RAB", "RRA", "R-A"), 3).rows)
    assert [row["vote"] for row in rows] == [pytest.approx(1 / 3), 1.0, 0.5]
    assert [row["right"] for row in rows] == [pytest.approx(1 / 3), pytest.approx(2 / 3), pytest.approx(1 / 3)]
    assert [rows[1][name] for name in MOVES] == [1, 1, 0, 1] and sum(rows[0][name] for name in MOVES) == 0
    assert [rows[2][name] for name in MOVES] == [1, 0, 1, 1]


def test_what_cannot_be_read_may_win_the_vote_but_yields_in_a_tie() -> None:
    assert [row["vote"] for row in turn_rows(*discussion("--R", "-RA", "-RR"), 3).rows] == [0.0, 0.5, 1.0]


def test_a_discussion_that_ended_early_keeps_its_answers() -> None:
    long, short = discussion("RA", "RR", "RR"), discussion("RR", problem="q")
    found = turn_rows(long[0] + short[0], long[1] + short[1], 3)
    rows = list(found.rows)
    assert found.counts == {"discussions that ended early": 1}
    assert [(row["problem"], row["turn"], row["vote"]) for row in rows[3:]] == [("q", 1, 1), ("q", 2, 1), ("q", 3, 1)]
    assert rows[4]["kept right"] == 2
    assert [row["turn"] for row in turn_rows(*short, 3).rows] == [1, 2, 3], "where all of them did, too"


@pytest.mark.parametrize("cell", list(product("RW", repeat=4)))
def test_cells_of_two_agents(cell: Any) -> None:
    own, own_after, other, other_after = cell
    right = lambda *letters: np.array([letter == "R" for letter in letters])  # noqa: E731
    counts = moved(right(own, other), right(own_after, other_after))
    first = own + own_after + other if own != own_after else ""
    second = other + other_after + own if other != other_after else ""
    expected = {name: (name == first) + (name == second) for name in CELLS}
    assert {name: counts[name] for name in CELLS} == expected
    # With two agents, what is a revision of one is an influence of the other.
    assert {name: counts[f"influence {name}"] for name in CELLS} == expected


def test_shares_deltas_and_differences() -> None:
    mine = discussion("RA", "RR"), discussion("AA", "AA", problem="q")
    base = discussion("RA", "AA"), discussion("AA", "AA", problem="q")
    rows, others = (list(turn_rows(one[0][0] + one[1][0], one[0][1] + one[1][1], 2).rows) for one in (mine, base))
    first, last = by_turn("mine", rows, others)
    assert first["diff"] == 0 and first["moves"] == 0 and first["delta_0"] is None
    assert last["accuracy"] == 0.5 and last["n"] == 2 and last["diff"] == 0.5 and last["low"] <= 0.5 <= last["high"]
    assert last["WRR"] == 0.25 and last["delta_1"] == 0.25 and last["delta_0"] == 0 and last["corrected"] == 0.25
    assert by_turn("base", others)[1]["RWW"] == 0.25 and by_turn("base", others)[1]["delta_0"] == -0.25
    assert first["gain"] is None and first["majority lost"] is None
    assert last["gain"] == 0.25 and last["gain_low"] <= 0.25 <= last["gain_high"]
    assert [last[name] for name in MAJORITY] == [0.25, 0.25, 0.0, 0.5], "of RA, half a point was there before"
    with pytest.raises(TeamtuneError, match="did not answer the same problems"):
        by_turn("mine", rows, others[:2])


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_parts_of_a_majority_add_up(before: float, after: float) -> None:
    kept, won, lost, wrong = majority_moved(before, after).values()
    assert kept + won == pytest.approx(after) and kept + lost == pytest.approx(before)
    assert kept + won + lost + wrong == pytest.approx(1) and min(won, lost) == 0 <= min(kept, wrong)
    assert set(majority_moved(None, after).values()) == {0.0}
