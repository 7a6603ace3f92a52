"""The majority vote: its three ways to break a tie, unreadable answers, and the score of a vote."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teamtune.types import TeamtuneError
from teamtune.vote import Vote, lot, majority, vote_score

ballots = st.lists(st.sampled_from(["7", "12", "-3", "1/2", None]), min_size=1, max_size=9)


def graded(answers: list[str | None], truth: str = "7") -> list[float]:
    return [float(answer == truth) for answer in answers]


def test_the_most_frequent_answer_wins() -> None:
    assert majority(["42", "7", "42", None]) == Vote("42", 0.5, ("42",))


def test_nobody_readable() -> None:
    assert majority([None, None]) == Vote(None, 0.0, ())
    assert majority([None, None], unparsed="class") == Vote(None, 1.0, ())


def test_unparsed_as_a_class_can_win_but_yields_in_a_tie() -> None:
    answers = ["7", None, None]
    assert majority(answers) == Vote("7", 1 / 3, ("7",))
    assert majority(answers, unparsed="class") == Vote(None, 2 / 3, ())
    assert majority([None, "7", "7", None], unparsed="class") == Vote("7", 0.5, ("7",))


def test_ties_first_and_last() -> None:
    assert majority(["9", "10", "7"], ties="first").answer == "9"
    assert majority(["7", "10", "9", "10", "9"], ties="first").answer == "10"
    assert majority(["10", "9"], ties="last").answer == "9"  # as text, the way the published code compares
    assert majority(["10", "9"]).tied == ("10", "9")


def test_random_ties_are_uniform_over_seeds() -> None:
    wins = Counter(majority(["a", "b", "c"], seed=seed).answer for seed in range(3000))
    assert set(wins) == {"a", "b", "c"}
    assert all(abs(count - 1000) < 130 for count in wins.values())  # five standard deviations


def test_a_lot_is_the_same_on_every_machine() -> None:
    assert lot(0, "sums/3", 1) == 15324508365521112543
    assert lot(0, "sums/3", 1) != lot(1, "sums/3", 1) != lot(1, "sums/31")


@pytest.mark.parametrize("ties", ["random", "last"])
@given(data=st.data(), answers=ballots, seed=st.integers(0, 9))
def test_the_order_of_arrival_does_not_matter(
    ties: Any, data: st.DataObject, answers: list[str | None], seed: int
) -> None:
    mixed = data.draw(st.permutations(answers))
    assert majority(answers, ties, seed) == majority(mixed, ties, seed)
    assert vote_score(answers, graded(answers)) == vote_score(mixed, graded(mixed))


@given(answers=ballots, ties=st.sampled_from(["random", "first", "last"]), seed=st.integers(0, 9))
def test_the_winner_has_the_most_votes(answers: list[str | None], ties: Any, seed: int) -> None:
    vote = majority(answers, ties, seed)
    votes: Counter[str | None] = Counter(answer for answer in answers if answer is not None)
    assert vote.tied == tuple(sorted(a for a in votes if a is not None and votes[a] == max(votes.values())))
    assert (vote.answer in vote.tied) if votes else (vote.answer is None)
    assert vote.share == votes[vote.answer] / len(answers)


@given(answer=st.text(), voters=st.integers(1, 9), ties=st.sampled_from(["random", "first", "last"]))
def test_unanimous(answer: str, voters: int, ties: Any) -> None:
    assert majority([answer] * voters, ties) == Vote(answer, 1.0, (answer,))


def test_a_tie_scores_the_chance_of_the_truth() -> None:
    answers = ["7", "8", "9", None]
    assert vote_score(answers, graded(answers)) == pytest.approx(1 / 3)
    assert vote_score(answers, graded(answers), ties="first") == 1
    assert vote_score(answers, graded(answers), ties="last") == 0
    mean = sum(vote_score(answers, graded(answers), "random", seed) for seed in range(3000)) / 3000
    assert mean == pytest.approx(1 / 3, abs=0.05)


def test_a_vote_without_a_readable_answer_scores_zero() -> None:
    assert vote_score([None, None], [0, 0]) == 0
    assert vote_score(["7", None, None], [1, 0, 0], unparsed="class") == 0
    assert vote_score(["7", None, None], [1, 0, 0], ties="random", unparsed="class") == 0


@given(answers=ballots)
def test_a_clear_vote_scores_its_winner_under_every_rule(answers: list[str | None]) -> None:
    vote = majority(answers)
    if len(vote.tied) <= 1:
        rules: list[Any] = ["fractional", "random", "first", "last"]
        assert {vote_score(answers, graded(answers), rule) for rule in rules} == {float(vote.answer == "7")}


def test_errors_name_the_thing_and_the_fix() -> None:
    wrong: Any = "coin"
    with pytest.raises(TeamtuneError, match="at least one voter"):
        majority([])
    with pytest.raises(TeamtuneError, match="ties is 'coin'; it must be"):
        majority(["1", "2"], ties=wrong)
    with pytest.raises(TeamtuneError, match="unparsed is 'coin'; it must be"):
        majority(["1"], unparsed=wrong)
    with pytest.raises(TeamtuneError, match="2 answers and 1 scores"):
        vote_score(["1", "2"], [1])
    with pytest.raises(TeamtuneError, match="answer '1' scored both 1 and 0"):
        vote_score(["1", "1"], [1, 0])
