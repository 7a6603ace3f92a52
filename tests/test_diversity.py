"""Measures of diversity: examples by hand, slow loops, and the invariants of the specification's 4.11."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teamtune import diversity
from teamtune.types import TeamtuneError

ANSWERS = st.lists(st.one_of(st.none(), st.sampled_from("abcd")), min_size=1, max_size=7)
VECTOR = st.lists(st.floats(-5, 5), min_size=3, max_size=3).filter(lambda vector: np.linalg.norm(vector) > 1e-3)
VECTORS = st.lists(VECTOR, min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("answers", "consensus", "entropy", "disagreement"),
    [
        (["5", "5", "7"], 2 / 3, math.log(3) - 2 / 3 * math.log(2), 2 / 3),
        (["5", "5", "5"], 1, 0, 0),
        (["5", "6", "7"], 1 / 3, math.log(3), 1),
        ([None, None], 0, math.log(2), 1),
        (["5", None, "5"], 2 / 3, math.log(3) - 2 / 3 * math.log(2), 2 / 3),
        (["5"], 1, 0, 0),
    ],
)
def test_by_hand(answers: list[str | None], consensus: float, entropy: float, disagreement: float) -> None:
    assert diversity.consensus(answers) == pytest.approx(consensus)
    assert diversity.entropy(answers) == pytest.approx(entropy)
    assert diversity.disagreement(answers) == pytest.approx(disagreement)


def slow_disagreement(answers: list[str | None]) -> float:
    pairs = [(i, j) for i in range(len(answers)) for j in range(i)]
    return sum(answers[i] is None or answers[i] != answers[j] for i, j in pairs) / len(pairs) if pairs else 0


def slow_dissimilarity(vectors: list[list[float]]) -> float:
    found = []
    for x, y in combinations(vectors, 2):
        dot = sum(a * b for a, b in zip(x, y, strict=True))
        found.append(1 - dot / math.sqrt(sum(a * a for a in x) * sum(b * b for b in y)))
    return sum(found) / len(found) if found else 0


@given(answers=ANSWERS, seed=st.integers(0, 99))
def test_answers_against_a_slow_loop_and_in_any_order(answers: list[str | None], seed: int) -> None:
    assert diversity.disagreement(answers) == pytest.approx(slow_disagreement(answers))
    other = random.Random(seed).sample(answers, len(answers))
    measures: list[Callable[[list[str | None]], float]] = [
        *(diversity.consensus, diversity.entropy, diversity.disagreement)
    ]
    for measure in measures:
        assert measure(other) == pytest.approx(measure(answers))
    assert 0 <= diversity.consensus(answers) <= 1
    assert 0 <= diversity.entropy(answers) <= math.log(len(answers)) + 1e-9


def slow_consensus(answers: list[str | None]) -> float:
    most = 0
    for answer in answers:
        if answer is not None:
            most = max(most, sum(other == answer for other in answers))
    return most / len(answers)


def slow_entropy(answers: list[str | None]) -> float:
    total = 0.0
    for answer in answers:  # of -log of the share that its own answer has; an unreadable one is alone
        same = 1 if answer is None else sum(other == answer for other in answers)
        total -= math.log(same / len(answers)) / len(answers)
    return total


@given(answers=ANSWERS)
def test_agreement_against_slow_loops(answers: list[str | None]) -> None:
    assert diversity.consensus(answers) == pytest.approx(slow_consensus(answers))
    assert diversity.entropy(answers) == pytest.approx(slow_entropy(answers), abs=1e-12)


PAIRS = st.lists(st.tuples(st.floats(-9, 0), st.floats(-9, 0)), min_size=1, max_size=9)


@given(pairs=PAIRS, seed=st.integers(0, 99))
def test_sampled_kl_against_a_slow_loop_and_in_any_order(pairs: list[tuple[float, float]], seed: int) -> None:
    other = random.Random(seed).sample(pairs, len(pairs))
    k1 = k3 = 0.0
    for p, q in pairs:
        k1 += (p - q) / len(pairs)
        k3 += (math.exp(q) / math.exp(p) - 1 - (q - p)) / len(pairs)
    for kind, slow in (("k1", k1), ("k3", k3)):
        for some in (pairs, other):
            found = diversity.kl_sampled([p for p, _ in some], [q for _, q in some], kind)  # type: ignore[arg-type]
            assert found == pytest.approx(slow, rel=1e-6, abs=1e-9)


@given(st.integers(1, 5), st.integers(2, 6), st.integers(0, 999))
def test_full_kl_against_a_slow_loop(positions: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, q = (rng.dirichlet(np.ones(size), positions) for _ in range(2))
    total = 0.0
    for at in range(positions):
        for token in range(size):
            total += p[at, token] * (math.log(p[at, token]) - math.log(q[at, token]))
    assert diversity.kl_full(np.log(p), np.log(q)) == pytest.approx(total / positions, abs=1e-9)


@given(st.integers(2, 5), st.integers(0, 999))
def test_held_out_likelihood_against_a_slow_loop_and_in_any_order(number: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    square = rng.exponential(size=(number, number))
    slow = sum(sum(square[k, n] for n in range(number) if n != k) / (number - 1) for k in range(number)) / number
    order = rng.permutation(number)
    for some in (square, square[np.ix_(order, order)]):
        assert diversity.held_out(some.tolist()) == pytest.approx(slow)


ROUNDS = st.lists(st.tuples(*[st.one_of(st.none(), st.sampled_from("abc"))] * 2), min_size=1, max_size=6)


@given(rounds=ROUNDS, seed=st.integers(0, 99))
def test_moves_and_copies_are_those_of_agents_in_any_order(
    rounds: list[tuple[str | None, str | None]], seed: int
) -> None:
    order = random.Random(seed).sample(range(len(rounds)), len(rounds))
    before, after = [was for was, _ in rounds], [now for _, now in rounds]
    old, new = [before[i] for i in order], [after[i] for i in order]
    assert diversity.flips(old, new, "a") == diversity.flips(before, after, "a")
    assert {(order[a], order[s]) for a, s in diversity.adopted(old, new)} == set(diversity.adopted(before, after))
    copied = 0
    for agent, (was, now) in enumerate(rounds):
        others = [before[i] for i in range(len(rounds)) if i != agent]
        copied += now is not None and now != was and now in others
    assert diversity.copy_rate(before, after) == diversity.copy_rate(old, new) == copied / len(rounds)


@given(vectors=VECTORS, seed=st.integers(0, 99))
def test_embeddings_against_a_slow_loop_and_in_any_order(vectors: list[list[float]], seed: int) -> None:
    found = diversity.dissimilarity(vectors)
    assert found == pytest.approx(slow_dissimilarity(vectors), abs=1e-9)
    assert diversity.dissimilarity(random.Random(seed).sample(vectors, len(vectors))) == pytest.approx(found, abs=1e-9)


def test_identical_answers_are_not_diverse() -> None:
    logprobs = np.log([0.5, 0.25, 0.9])
    assert diversity.dissimilarity([[1, 2, 3]] * 4) == pytest.approx(0, abs=1e-12)
    assert diversity.consensus(["x"] * 4) == 1
    assert diversity.kl_sampled(logprobs, logprobs) == diversity.kl_sampled(logprobs, logprobs, "k3") == 0
    table = np.log([[0.2, 0.8], [0.5, 0.5]])
    assert diversity.kl_full(table, table) == 0


def test_sampled_kl_tends_to_the_full_one() -> None:
    rng = np.random.default_rng(0)
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    full = diversity.kl_full(np.log([p]), np.log([q]))
    assert full == pytest.approx(float((p * np.log(p / q)).sum()))
    drawn = rng.choice(3, 200_000, p=p)
    for kind in ("k1", "k3"):
        assert diversity.kl_sampled(np.log(p)[drawn], np.log(q)[drawn], kind) == pytest.approx(full, rel=0.02)


@given(st.lists(st.tuples(st.floats(-9, 0), st.floats(-9, 0)), min_size=1, max_size=9))
def test_k3_is_never_negative(pairs: list[tuple[float, float]]) -> None:
    assert diversity.kl_sampled([p for p, _ in pairs], [q for _, q in pairs], "k3") >= -1e-12


def test_full_kl_where_one_side_has_no_chance() -> None:
    with np.errstate(divide="ignore"):
        assert diversity.kl_full(np.log([[1.0, 0.0]]), np.log([[0.5, 0.5]])) == pytest.approx(math.log(2))
        assert diversity.kl_full(np.log([[0.5, 0.5]]), np.log([[1.0, 0.0]])) == math.inf


def test_likelihoods() -> None:
    assert diversity.negative_log_likelihood([-0.1, -0.3]) == pytest.approx(0.2)
    assert diversity.negative_log_likelihood([-0.1, -0.3], normalise=False) == pytest.approx(0.4)
    assert diversity.held_out([[None, 1.0, 2.0], [3.0, None, 4.0], [5.0, 6.0, None]]) == pytest.approx(3.5)
    with pytest.raises(TeamtuneError, match="missing"):
        diversity.held_out([[0, None], [1, 0]])
    with pytest.raises(TeamtuneError, match="give a square"):
        diversity.held_out([[1.0]])


def test_who_moved_and_who_followed_whom() -> None:
    before, after = ["5", "7", "5", "8"], ["5", "5", "7", "9"]
    assert diversity.flips(before, after, "5") == {
        "kept right": 1,
        "corrected": 1,
        "lost": 1,
        "kept wrong": 0,
        "changed wrong": 1,
    }
    assert diversity.adopted(before, after) == [(1, 0), (1, 2), (2, 1)]
    assert diversity.copy_rate(before, after) == 0.5


@given(ANSWERS, ANSWERS, st.sampled_from("abcd"))
def test_flips_count_every_agent_once(before: list[str | None], after: list[str | None], label: str) -> None:
    count = min(len(before), len(after))
    assert sum(diversity.flips(before[:count], after[:count], label).values()) == count


@pytest.mark.parametrize(
    "call",
    [
        lambda: diversity.consensus([]),
        lambda: diversity.dissimilarity([]),
        lambda: diversity.dissimilarity([[0.0, 0.0], [1.0, 0.0]]),
        lambda: diversity.kl_sampled([1.0], [1.0, 2.0]),
        lambda: diversity.kl_full([1.0], [1.0]),
        lambda: diversity.flips(["a"], [], "a"),
        lambda: diversity.negative_log_likelihood([]),
    ],
)
def test_input_that_measures_nothing_is_refused(call: Callable[[], float]) -> None:
    with pytest.raises(TeamtuneError):
        call()
