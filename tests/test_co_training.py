"""The game behind co-training: both observations, and what the toy experiment shows."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from tests.helpers import REPOSITORY


@pytest.fixture(scope="module")
def game() -> Any:
    import sys

    spec = importlib.util.spec_from_file_location("why_co_training", REPOSITORY / "docs" / "why_co_training.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass asks for it
    spec.loader.exec_module(module)
    return module


def test_who_learns_beside_a_fixed_partner(game: Any) -> None:
    """Observation 1 against the values of both actions."""
    some = game.drawn(500)
    for chance in (0.0, 0.5, 0.9, 1.0):
        collaborate = some.together + chance * 1 + (1 - chance) * some.alone
        np.testing.assert_array_equal(game.learns_beside(some, chance), collaborate >= 2 * some.alone)


def test_both_learners_end_where_the_proof_says(game: Any) -> None:
    some = game.drawn(300, seed=1)
    found, expected = game.followed(some, steps=300, end=0.005), game.learn_together(some)
    clear = np.abs(np.maximum(3 * some.alone - 2 * some.together, 2 * some.alone - some.together) - 1) > 0.02
    np.testing.assert_array_equal(found[clear] > 0.5, expected[clear])
    # With the symbols exchanged, as the main text prints it, many games would go the other way.
    printed = np.maximum(3 * some.together - 2 * some.alone, 2 * some.alone - some.together) < 1
    assert (printed[clear] != expected[clear]).mean() > 0.1


def test_dearest_collaboration_that_is_learned(game: Any) -> None:
    """The picture's lines: chance times gain beside a fixed partner, and half of it where both learn."""
    lines = game.observations(points=5)
    for chance in (0.5, 0.6, 0.7):
        np.testing.assert_allclose(lines[game.named(chance)], chance * lines["gain"], atol=1e-6)
    np.testing.assert_allclose(lines["both learn"], 0.5 * lines["gain"], atol=1e-3)
    formula = game.dearest(lines["gain"], game.learn_together)
    np.testing.assert_allclose(formula, 0.5 * lines["gain"], atol=1e-6)


def test_synergy_against_a_loop_over_all_histories(game: Any) -> None:
    """Two turns, one joint turn needed: only the first turn matters, and its chance is a fixed point."""
    some = game.Game(np.array([0.5]), np.array([0.4]))
    after = 1 + 0.1 * np.log(2)
    alone_after = 0.1 * np.logaddexp(0.5 / 0.1, (0.4 + 0.5) / 0.1)  # a partner at 1/2 in the last turn, by hand
    chance = 0.5
    last = game.synergy(some, 1, 1, chance)
    q_own, q_alone = 0.4 + 0.0, 0.5  # in the last turn a joint turn pays nothing any more
    own = 1 / (1 + np.exp(-(q_own - q_alone) / 0.1))
    assert last[0] == pytest.approx(own * chance)
    here = 0.1 * np.logaddexp(q_own / 0.1, q_alone / 0.1)
    q_first = 0.4 + chance * after + (1 - chance) * here
    first = 1 / (1 + np.exp(-(q_first - (0.5 + here)) / 0.1))
    expected = first * chance + (1 - first * chance) * own * chance
    assert game.synergy(some, 2, 1, chance)[0] == pytest.approx(expected)
    assert alone_after > here, "sanity: a possible synergy would be worth something"


def test_co_learners_collaborate_more_than_a_learner_beside_a_fixed_partner(game: Any) -> None:
    for row in game.experiment(10, draws=300):
        assert row["both learn"] >= max(row[game.named(chance)] for chance in (0.5, 0.6, 0.7))
