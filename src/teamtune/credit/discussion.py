"""MAPoRL's rewards (Park et al., 2025): what an answer is worth to the discussion that it is part of.

In, the answers of two agents over two turns, with their scores and whether they are right (other columns left out):

    {"problem": "p", "take": 0, "turn": 0, "agent": "turn-1", "tag": "turn-1"}      score 0.2, wrong
    {"problem": "p", "take": 0, "turn": 1, "agent": "turn-1", "tag": "turn-1"}      score 0.9, right
    {"problem": "p", "take": 0, "turn": 2, "agent": "turn-2", "tag": "turn-2"}      score 0.6, right: it was persuaded
    {"problem": "p", "take": 0, "turn": 3, "agent": "turn-2", "tag": "turn-2"}      score 0.8, right

Out, one row an answer:

    {"problem": "p", "take": 0, "turn": 2, "agent": "turn-2", "tag": "turn-2", "place": 0, "number": 2, "score": 0.6,
     "right": True, "graded": True, "penalty": "", "base": 0.6, "incentive": 1.0, "reward": 1.6}

"right" is what incentives go by, the grader's word or the scorer's; "graded" is the grader's.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import tyro
from jaxtyping import Bool, Float

from teamtune.credit.consensus import in_rounds
from teamtune.credit.penalty import OFF, Gate, fault
from teamtune.given import given, refuse_unread
from teamtune.store import Counted
from teamtune.types import SCORER, Place, Row, TeamtuneError, by_episode, place_of

Rule = Literal["influence", "immediate", "cumulative", "last-own", "last-shared", "current-shared"]
DISCOUNTED: tuple[Rule, ...] = ("influence", "cumulative")
Cell = tuple[bool, bool, bool]
"""Right or wrong: of a revision (own before, own after, others before), of an influence (others before, others after,
own before)."""
Incentive = tuple[float, str]
"""A sign, and the coefficient that it goes with."""

INCENTIVES = ("alpha_0", "alpha_1", "beta_0", "beta_1")
R, W = True, False
PAPER: tuple[Mapping[Cell, Incentive], Mapping[Cell, Incentive]] = (
    {(R, W, R): (-1, "alpha_1"), (R, W, W): (-1, "alpha_0"), (W, R, W): (1, "alpha_0"), (W, R, R): (1, "alpha_1")},
    {(R, W, R): (-1, "beta_1"), (R, W, W): (-1, "beta_0"), (W, R, W): (1, "beta_0"), (W, R, R): (1, "beta_1")},
)
"""Tables 1 and 2 of the paper, revision and influence: a cell that is not here pays nothing."""
OFFICIAL_CODE: tuple[Mapping[Cell, Incentive], Mapping[Cell, Incentive]] = (
    {(R, W, R): (-1, "alpha_1"), (R, W, W): (-1, "alpha_0"), (W, R, W): (1, "alpha_1"), (W, R, R): (1, "alpha_0")},
    {(W, R, R): (-1, "beta_1"), (W, R, W): (-1, "beta_0"), (R, W, W): (1, "beta_1"), (R, W, R): (1, "beta_0")},
)
"""What the published code pays instead; no renaming of coefficients makes the two equal (specification 3.4)."""


CELL = re.compile(r"(revision|influence) ([RW]{3})=([+-])(alpha_[01]|beta_[01])")


@dataclass(frozen=True, slots=True)
class Incentives:
    """What correcting oneself and persuading others earn, and the opposite costs."""

    alpha_0: float = 0.0
    """critical reasoning: to come right where the others are wrong"""
    alpha_1: float = 0.0
    """to be persuaded by those who are right"""
    beta_0: float = 0.0
    """to have been wrong and yet of use to the others"""
    beta_1: float = 0.0
    """to persuade while right"""
    table: Literal["paper", "official-code"] = "paper"
    cells: tuple[str, ...] = ()
    """a table of one's own in its place: "revision WRR=+alpha_1", "influence RWR=-beta_1"; a cell that is not named
    pays nothing"""
    ties: Literal["none", "include-self"] = "none"
    """others of whom half are right have no opinion; or the agent's own answer settles it"""

    def __post_init__(self) -> None:
        for told in self.cells:
            if not CELL.fullmatch(told):
                raise TeamtuneError(
                    f'{told!r} is no cell of incentives; give for example "revision WRR=+alpha_1" or '
                    '"influence RWR=-beta_1"'
                )
            if sum(one.partition("=")[0] == told.partition("=")[0] for one in self.cells) > 1:
                raise TeamtuneError(f"cell {told.partition('=')[0]!r} of the incentives is given twice; give one")
        if self.cells and self.table != "paper":
            raise TeamtuneError(f"incentives have cells of their own, so that table {self.table} has no use")

    @property
    def paid(self) -> bool:
        """Whether anything is."""
        return any(getattr(self, name) for name in INCENTIVES)

    def learned(self, turns: int, frozen: bool) -> set[str]:
        """The coefficients that answers earn of which somebody learns. Those for influence are paid at the turn before,
        which is the first of two; the published code pays none there, and of a frozen turn nobody learns."""
        revision, influence = self.tables
        early = turns > 2 or (turns == 2 and not frozen and self.table == "paper")
        return {name for cells in (revision, influence if early else {}) for _, name in cells.values() if turns > 1}

    @property
    def tables(self) -> tuple[Mapping[Cell, Incentive], Mapping[Cell, Incentive]]:
        """What revision and influence pay, by cell."""
        if not self.cells:
            return PAPER if self.table == "paper" else OFFICIAL_CODE
        own: dict[str, dict[Cell, Incentive]] = {"revision": {}, "influence": {}}
        for kind, cell, sign, name in (found.groups() for told in self.cells if (found := CELL.fullmatch(told))):
            before, after, other = (letter == "R" for letter in cell)
            own[kind][before, after, other] = (1 if sign == "+" else -1, name)
        return own["revision"], own["influence"]


@dataclass(frozen=True, slots=True)
class Rewards:
    """How scores become rewards."""

    rule: Rule = "influence"
    gamma: float = 0.3
    """discount of later turns; the paper names 1, its code has 0.3"""
    incentives: Incentives = Incentives()
    right_by: Literal["grader", "scorer"] = "grader"
    """who says what is right for incentives; a scorer does above one half"""
    gate: Gate = Gate()
    penalty: float = -10.0
    """stands in for the score of an answer that does not pass the gate"""
    scope: Annotated[Literal["propagate", "self"], tyro.conf.arg(aliases=["--penalty-scope"])] = "propagate"
    """propagate: a penalty counts wherever its answer's score does (as published); self: it is the answer's own reward,
    and nobody else's changes"""

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise TeamtuneError(f"gamma of the rewards is {self.gamma}; it must lie in [0, 1]")
        if self.rule not in DISCOUNTED and "gamma" in given(self):
            raise TeamtuneError(f"gamma of the rewards has no use with rule {self.rule}; leave it out")
        if self.gate == OFF:
            refuse_unread(self, dict.fromkeys(("penalty", "scope"), "a gate that is off"), "{} of the rewards")
        if not -math.inf < self.penalty <= 0:
            raise TeamtuneError(f"penalty of the rewards is {self.penalty}; it must be 0 or below, and finite")


def scores_in(turns: Sequence[Row]) -> dict[Place, float]:
    """What the scorer's turns of a Turn table say of the answers that they show."""
    judged = (turn for turn in turns if turn["agent"] == SCORER)
    return {(turn["problem"], turn["take"], turn["parents"][0]): float(turn["text"]) for turn in judged}


def base_rewards(
    scores: Float[np.ndarray, "turns agents"], rule: Rule = "influence", gamma: float = 0.3
) -> Float[np.ndarray, "turns agents"]:
    """The rewards of appendix F, without incentives; D_t = sum over t' >= t of gamma^(t' - t).

    immediate       s_ta
    cumulative      (1/D_t) sum over t' >= t of gamma^(t' - t) s_t'a
    influence       (1/D_t) [s_ta + sum over t' > t of gamma^(t' - t) mean over all agents of s_t'j]
    last-own, last-shared, current-shared      s_Ta, its mean over all agents, the mean of s_t over all agents
    """
    turns = len(scores)
    shared = np.repeat(scores.mean(1, keepdims=True), scores.shape[1], axis=1)
    if rule == "immediate":
        return scores.copy()
    if rule == "current-shared":
        return shared
    if rule in ("last-own", "last-shared"):
        return np.repeat((scores if rule == "last-own" else shared)[-1:], turns, axis=0)
    later = scores if rule == "cumulative" else shared
    weights = gamma ** np.arange(turns)
    found = [(scores[t] + weights[1 : turns - t] @ later[t + 1 :]) / weights[: turns - t].sum() for t in range(turns)]
    return np.stack(found)


def incentives(right: Bool[np.ndarray, "turns agents"], options: Incentives) -> Float[np.ndarray, "turns agents"]:
    """What each answer earns for the agent's own revision since the turn before, and for the others' until the next.

    Others without an opinion (half of them right, or nobody there) pay nothing. In the published code an answer of the
    first turn earns nothing.
    """
    revision, influence = options.tables
    turns, agents = right.shape
    worth = lambda found: 0.0 if found is None else found[0] * getattr(options, found[1])  # noqa: E731
    earned = np.zeros(right.shape)
    for agent in range(agents):
        own = [bool(one) for one in right[:, agent]]
        others = [opinion(right[t], agent, options.ties) for t in range(turns)]
        for t in range(1, turns):
            before, after = others[t - 1], others[t]
            if before is None:
                continue
            earned[t, agent] += worth(revision.get((own[t - 1], own[t], before)))
            if after is not None and (t > 1 or options.table == "paper"):
                earned[t - 1, agent] += worth(influence.get((before, after, own[t - 1])))
    return earned


def opinion(right: Bool[np.ndarray, " agents"], agent: int, ties: Literal["none", "include-self"]) -> bool | None:
    """Whether most of the other agents are right; None where there is no majority among them."""
    others = np.delete(right, agent)
    if not others.size:
        return None
    share = others.mean()
    if share == 0.5 and ties == "include-self":
        share = right.mean()
    return None if share == 0.5 else bool(share > 0.5)


def discussion_rewards(
    turns: Sequence[Row], grades: Sequence[Row], scores: Mapping[Place, float], options: Rewards
) -> Counted:
    """One row an answer, in the order of `turns`; counts every penalty by its cause and every incentive that is paid.

    turns: a Turn table of `protocols.discussion`; answers have the tags "turn-1" to "turn-T".
    grades: of every answer; `parsed` None is an answer that could not be read, `rule` how another one was.
    scores: of every answer, in [0, 1]: a learned scorer's, or the grader's own.

    Raises TeamtuneError for an answer without a score or a grade.
    """
    graded = {place_of(row): row for row in grades}
    counts: Counter[str] = Counter()
    rows: dict[Place, Row] = {}
    for (problem, take), group in by_episode(turns).items():
        rounds = in_rounds(group, "turn")
        for turn in (turn for one in rounds for turn in one):
            if place_of(turn) not in graded or place_of(turn) not in scores:
                lacks = "grade" if place_of(turn) not in graded else "score"
                raise TeamtuneError(f"problem {problem!r} take {take} turn {turn['turn']} has no {lacks}; give one")
        table = np.array([[scores[place_of(turn)] for turn in one] for one in rounds], dtype=float)
        read = lambda turn: graded[place_of(turn)]  # noqa: E731
        faults = [
            [fault(turn, read(turn)["parsed"], options.gate, read(turn).get("rule", "")) for turn in one]
            for one in rounds
        ]
        bad = np.array([[bool(cause) for cause in one] for one in faults])
        correct = np.array([[graded[place_of(turn)]["score"] == 1 for turn in one] for one in rounds])
        right = correct if options.right_by == "grader" else (table > 0.5) & ~bad
        whole = options.scope == "propagate"
        base = base_rewards(np.where(bad & whole, options.penalty, table), options.rule, options.gamma)
        base = base if whole else np.where(bad, options.penalty, base)
        paid = incentives(right, options.incentives)
        for t, one in enumerate(rounds):
            for place, turn in enumerate(one):
                cause = faults[t][place]
                counts.update([f"{turn['agent']}: penalty, {cause}"] if cause else [])
                counts.update([f"{turn['agent']}: incentive {paid[t, place]:+g}"] if paid[t, place] else [])
                named = {name: turn[name] for name in ("problem", "take", "turn", "agent", "tag")}
                named |= {"place": place, "number": t + 1, "score": float(table[t, place])}
                told = {"right": bool(right[t, place]), "graded": bool(correct[t, place])}
                incentive, worth = float(paid[t, place]), float(base[t, place])
                told |= {"penalty": cause, "base": worth}
                rows[place_of(turn)] = {
                    **named, **told, "incentive": incentive, "reward": worth + incentive
                }  # fmt: skip
    return Counted([rows[place_of(turn)] for turn in turns if place_of(turn) in rows], counts)


def ends(rewards: Iterable[Row]) -> list[list[Row]]:
    """The rewards of every discussion's last turn, whichever that was."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in rewards:
        here = row["problem"], row["take"]
        number = found[here][0]["number"] if here in found else 0
        if row["number"] >= number:
            found[here] = [*(found[here] if row["number"] == number else ()), row]
    return list(found.values())
