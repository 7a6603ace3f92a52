"""The numbers of a report: accuracies with their errors, differences, transitions, budgets. Pure; numpy only.

estimate([1, 0, 1, 1])                        ->  Estimate(mean=0.75, se=0.2165..., n=4)
paired_bootstrap([1, 1, 0, 1], [1, 0, 0, 1])  ->  Interval(diff=0.25, low=0.0, high=0.75)
transitions([True, False], [True, True])      ->  {"right->right": 1, "wrong->right": 1, ...}
over_seeds([0.56, 0.58, 0.59, 0.56])          ->  Spread(mean=0.5725, std=0.015, n=4, ddof=1)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from teamtune.types import Row, TeamtuneError, place_of, tokens_of


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error, from n independent items."""

    mean: float
    se: float
    n: int


@dataclass(frozen=True)
class Interval:
    """A difference of means and the interval that holds it at the level asked for."""

    diff: float
    low: float
    high: float


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over repeated runs. `ddof` 1 is the sample, 0 the population deviation."""

    mean: float
    std: float
    n: int
    ddof: int


@dataclass(frozen=True)
class Budget:
    """What one problem cost on average, all its takes together."""

    calls: float
    prompt_tokens: float | None
    """None where the engine hid the ids of at least one turn."""
    completion_tokens: float | None


def estimate(scores: Sequence[float]) -> Estimate:
    """Mean and standard error of per-problem scores.

    The error is the population standard deviation over sqrt(n), for 0/1 scores sqrt(p (1 - p) / n), as
    Multiagent Finetuning reports it.

    Raises TeamtuneError where there is no score.
    """
    values = np.asarray(scores, dtype=float)
    if not values.size:
        raise TeamtuneError("an estimate got no scores; give it at least one graded problem")
    return Estimate(float(values.mean()), float(values.std() / np.sqrt(values.size)), int(values.size))


def paired_bootstrap(
    a: Sequence[float],
    b: Sequence[float],
    draws: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """mean(a) - mean(b) and its percentile interval, problems resampled with replacement.

    a, b: scores of two systems on the same problems in the same order. Keeping the pairs together takes
        the difficulty of the problems out of the comparison.

    The interval does not depend on the order of the pairs.

    Raises TeamtuneError where the lengths differ, there is no problem, or an option is out of range.
    """
    if len(a) != len(b):
        raise TeamtuneError(f"a paired bootstrap got {len(a)} and {len(b)} scores; score both on the same problems")
    if not len(a):
        raise TeamtuneError("a paired bootstrap got no scores; give it at least one problem")
    if draws < 1:
        raise TeamtuneError(f"draws is {draws}; it must be 1 or above")
    if not 0 < level < 1:
        raise TeamtuneError(f"level is {level}; it must lie in (0, 1)")
    differences = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    tail = (1 - level) / 2
    means = _resampled_means(differences, draws, np.random.default_rng(seed))
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(differences.mean()), float(low), float(high))


def transitions(before: Sequence[bool], after: Sequence[bool]) -> dict[str, int]:
    """How many problems went from right or wrong to right or wrong (the self-correction table of MALT).

    Raises TeamtuneError where the lengths differ.
    """
    if len(before) != len(after):
        raise TeamtuneError(f"transitions got {len(before)} problems before and {len(after)} after; give the same ones")
    word = {True: "right", False: "wrong"}
    counts = {"right->right": 0, "wrong->right": 0, "wrong->wrong": 0, "right->wrong": 0}
    for was, now in zip(before, after, strict=True):
        counts[f"{word[bool(was)]}->{word[bool(now)]}"] += 1
    return counts


def budget(turns: Sequence[Row]) -> Budget:
    """Calls and tokens per problem; a prompt counts anew for every turn that reads it, cached or not.

    Raises TeamtuneError where there is no turn.
    """
    problems = len({turn["problem"] for turn in turns})
    if not problems:
        raise TeamtuneError("a budget got no turns; give it a Turn table with at least one")

    def tokens(column: Literal["prompt_ids", "token_ids"]) -> float | None:
        counts = [tokens_of(turn, column) for turn in turns]
        known = [count for count in counts if count is not None]
        return sum(known) / problems if len(known) == len(counts) else None

    return Budget(len(turns) / problems, tokens("prompt_ids"), tokens("token_ids"))


def accuracy_by_agent(grades: Sequence[Row], turns: Sequence[Row]) -> dict[str, Estimate]:
    """How often each agent's graded turns are right, agents in order of first appearance in `turns`.

    Turns of one problem are not independent, so an agent's scores are averaged within each problem first;
    mean, error and n are those of the problems, each of which weighs the same. Turns without a grade are left
    out, and so is an agent that has none.

    Raises TeamtuneError for a grade whose turn is missing.
    """
    author = {place_of(turn): turn["agent"] for turn in turns}
    scores: dict[str, dict[str, list[float]]] = {agent: defaultdict(list) for agent in author.values()}
    for grade in grades:
        problem, take, turn = place = place_of(grade)
        if place not in author:
            raise TeamtuneError(
                f"problem {problem!r} take {take} turn {turn} has a grade but no turn; give the turns that were graded"
            )
        scores[author[place]][problem].append(grade["score"])
    return {
        agent: estimate([sum(group) / len(group) for group in problems.values()])
        for agent, problems in scores.items()
        if problems
    }


def over_seeds(means: Sequence[float], ddof: int = 1) -> Spread:
    """Mean and standard deviation of the results of runs that differ in their seed.

    ddof: 1 divides by n - 1, 0 by n; MALT's tables seem to use both, so say which.

    Raises TeamtuneError where there are not more runs than ddof.
    """
    values = np.asarray(means, dtype=float)
    if values.size <= ddof:
        raise TeamtuneError(f"over_seeds got {values.size} runs; a deviation with ddof {ddof} needs {ddof + 1} or more")
    return Spread(float(values.mean()), float(values.std(ddof=ddof)), int(values.size), ddof)


def _resampled_means(values: np.ndarray[Any, Any], draws: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Means of `draws` resamples with replacement.

    How often each distinct value turns up in a resample is multinomial, so drawing those counts is the same
    as drawing items: three numbers a draw for 0/1 scores, however many the problems. Where all values are
    distinct, the slices bound the memory (8 MiB of counts, or one draw of more).
    """
    distinct, counts = np.unique(values, return_counts=True)
    step = max(1, 2**20 // distinct.size)
    sizes = [min(step, draws - start) for start in range(0, draws, step)]
    shares = counts / values.size
    drawn = [rng.multinomial(values.size, shares, size) @ distinct for size in sizes]
    return np.concatenate(drawn) / values.size
