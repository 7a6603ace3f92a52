"""The report's numbers, against slow loops and the formulas they come from."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teamtune.evaluate import (
    Budget,
    Estimate,
    Interval,
    Spread,
    accuracy_by_agent,
    budget,
    estimate,
    over_seeds,
    paired_bootstrap,
    transitions,
)
from teamtune.types import Row, TeamtuneError


def turn_row(problem: str, turn: int, agent: str, prompt: int = 3, tokens: int = 2, take: int = 0) -> Row:
    ids = {"prompt_ids": [1] * prompt, "token_ids": [2] * tokens}
    return {"problem": problem, "take": take, "turn": turn, "agent": agent, **ids}


def grade_row(problem: str, turn: int, score: float, take: int = 0) -> Row:
    return {"problem": problem, "take": take, "turn": turn, "parsed": "1", "score": score}


@given(right=st.integers(0, 50), wrong=st.integers(0, 50))
def test_the_error_of_an_accuracy_is_binomial(right: int, wrong: int) -> None:
    if n := right + wrong:
        share = right / n
        got = estimate([1.0] * right + [0.0] * wrong)
        assert got.n == n
        assert got.mean == pytest.approx(share)
        assert got.se == pytest.approx(math.sqrt(share * (1 - share) / n))


def test_bootstrap_agrees_with_a_slow_loop_and_with_the_normal_interval() -> None:
    rng = random.Random(0)
    a = [float(rng.random() < 0.6) for _ in range(400)]
    b = [one if rng.random() < 0.7 else float(rng.random() < 0.5) for one in a]
    got = paired_bootstrap(a, b)
    differences = [x - y for x, y in zip(a, b, strict=True)]
    assert got.diff == pytest.approx(sum(differences) / 400)

    means = sorted(sum(rng.choices(differences, k=400)) / 400 for _ in range(4000))
    assert (got.low, got.high) == pytest.approx((means[100], means[3900]), abs=0.007)

    error = estimate(differences).se
    assert (got.low, got.high) == pytest.approx((got.diff - 1.96 * error, got.diff + 1.96 * error), abs=0.007)


def test_bootstrap_of_all_distinct_scores_in_slices() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.2, 1, 3000), rng.normal(0, 1, 3000)
    got = paired_bootstrap(list(a), list(b), draws=2000)  # six slices
    error = float((a - b).std()) / math.sqrt(3000)
    normal = (got.diff - 1.96 * error, got.diff + 1.96 * error)
    assert (got.low, got.high) == pytest.approx(normal, abs=0.2 * error)


@given(st.data(), st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=20))
def test_bootstrap_properties(data: st.DataObject, pairs: list[tuple[bool, bool]]) -> None:
    a, b = zip(*pairs, strict=True)
    got = paired_bootstrap(a, b, draws=200)
    assert got.low <= got.high
    assert paired_bootstrap(a, a, draws=200) == Interval(0.0, 0.0, 0.0)
    mixed = data.draw(st.permutations(pairs))
    assert paired_bootstrap(*zip(*mixed, strict=True), draws=200) == got
    wide = paired_bootstrap(a, b, draws=200, level=0.99)
    assert wide.low <= got.low and got.high <= wide.high


def test_a_bootstrap_repeats_by_its_seed() -> None:
    a, b = [1, 1, 0, 1, 0.5], [1, 0, 0, 1, 0.1]
    assert paired_bootstrap(a, b, draws=50, seed=3) == paired_bootstrap(a, b, draws=50, seed=3)
    assert paired_bootstrap(a, b, draws=50, seed=3) != paired_bootstrap(a, b, draws=50, seed=4)


def test_transitions_count_every_problem_once() -> None:
    before, after = [True, True, False, False, False], [True, False, True, False, False]
    want = {"right->right": 1, "wrong->right": 1, "wrong->wrong": 2, "right->wrong": 1}
    assert transitions(before, after) == want


def test_budget_is_per_problem_over_all_takes() -> None:
    turns = [turn_row("p", 0, "a", 5, 2), turn_row("p", 0, "a", 5, 4, take=1), turn_row("q", 0, "a", 2, 6)]
    assert budget(turns) == Budget(calls=1.5, prompt_tokens=6.0, completion_tokens=6.0)
    turns[1]["token_ids"] = None
    assert budget(turns) == Budget(calls=1.5, prompt_tokens=6.0, completion_tokens=None)


def test_accuracy_by_agent_clusters_by_problem() -> None:
    turns = [turn_row(p, i, agent) for p in "pq" for i, agent in enumerate(["solver", "critic", "solver"])]
    scores = {("p", 0): 1, ("p", 2): 1, ("q", 0): 0, ("q", 2): 0}
    grades = [grade_row(p, turn, score) for (p, turn), score in scores.items()]
    # four turns, but only two independent problems; the critic has no grades
    assert accuracy_by_agent(grades, turns) == {"solver": Estimate(0.5, 0.5 / math.sqrt(2), 2)}


def test_every_problem_weighs_the_same() -> None:
    turns = [turn_row("p", i, "a") for i in range(3)] + [turn_row("q", 0, "a")]
    grades = [grade_row("p", i, 1) for i in range(3)] + [grade_row("q", 0, 0)]
    assert accuracy_by_agent(grades, turns)["a"].mean == 0.5


def test_over_seeds_states_its_deviation() -> None:
    means = [0.56, 0.58, 0.59, 0.56]
    got = over_seeds(means)
    assert got == Spread(got.mean, got.std, 4, 1)
    assert (got.mean, got.std) == pytest.approx((0.5725, 0.015))
    assert over_seeds(means, ddof=0).std == pytest.approx(0.015 * math.sqrt(3 / 4))


def test_errors_name_the_thing_and_the_fix() -> None:
    with pytest.raises(TeamtuneError, match="an estimate got no scores"):
        estimate([])
    with pytest.raises(TeamtuneError, match="got 2 and 1 scores"):
        paired_bootstrap([1, 0], [1])
    with pytest.raises(TeamtuneError, match="a paired bootstrap got no scores"):
        paired_bootstrap([], [])
    with pytest.raises(TeamtuneError, match="draws is 0"):
        paired_bootstrap([1], [1], draws=0)
    with pytest.raises(TeamtuneError, match="level is 95"):
        paired_bootstrap([1], [1], level=95)
    with pytest.raises(TeamtuneError, match="1 problems before and 0 after"):
        transitions([True], [])
    with pytest.raises(TeamtuneError, match="a budget got no turns"):
        budget([])
    with pytest.raises(TeamtuneError, match="problem 'p' take 0 turn 9 has a grade but no turn"):
        accuracy_by_agent([grade_row("p", 9, 1)], [turn_row("p", 0, "a")])
    with pytest.raises(TeamtuneError, match="a deviation with ddof 1 needs 2 or more"):
        over_seeds([0.5])
