"""From rewarded answers to what PPO's losses are made of: one look at every answer under all that judge it, then
advantages. Everything here is of one base model's policies.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from teamtune.credit.advantage import gae, whitened
from teamtune.models import told_when_full
from teamtune.train.examples import Example, Sampled, Valued
from teamtune.train.forward import at_targets, batch_of, logprobs, valued
from teamtune.train.objective import Item
from teamtune.train.team import TeamModel

Estimator = Literal["ppo", "group", "rloo"]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that a policy gave, and what it earned."""

    policy: str
    number: int
    """among the policy's answers of this update"""
    example: Example
    question: Example
    """what its value is judged on"""
    sampled: list[float]
    """log-probabilities at temperature 1, as the engine reports them"""
    temperature: float
    reward: float
    where: str
    """agent and turn, "agent-1-turn-2" """
    better: float = 0.0
    """than those it is compared with, where advantages are relative"""


@dataclass(frozen=True, slots=True)
class Look:
    """An answer's tokens under those who judge it, before anything is learned from them."""

    logprobs: list[float]
    """under its policy, at its temperature"""
    reference: list[float]
    """under the frozen base, at its temperature"""
    entropy: float
    """of the policy's distribution, a token"""
    gap: float
    """mean distance between the engine's log-probabilities and these, at temperature 1"""
    values: list[float]
    """what its policy's values say; empty where there are none"""


@torch.no_grad()
def looked(
    model: TeamModel, answers: Sequence[Answer], micros: Iterable[Sequence[Item]], autocast: torch.autocast
) -> dict[tuple[str, int], Look]:
    """Every answer under its policy and under the base. micros: the micro-batches of the first epoch of the fit that
    follows, so that its first step meets the very same numbers and every ratio is 1."""
    by_name = {(one.policy, one.number): one for one in answers}
    found: dict[tuple[str, int], Look] = {}
    for micro in micros:
        group = [by_name[item.agent, item.number] for item in micro]
        ids, mask = batch_of(model, [one.example for one in group])
        heat = [one.temperature for one in group]
        with told_when_full(f"{len(group)} answers to look at", "lower ppo.fit.micro_tokens"), autocast:
            seen = at_targets(model, ids, [one.policy for one in group], mask, partial(_seen, torch.tensor(heat)))
            base = logprobs(model, ids, None, mask, heat)[mask]
        lengths = mask.sum(-1).tolist()
        for one, own, under in zip(group, seen.split(lengths), base.split(lengths), strict=True):
            told = torch.tensor(one.sampled, device=ids.device)
            gap = float((own[:, 0] - told).abs().mean())
            look = Look(own[:, 1].tolist(), under.tolist(), float(own[:, 2].mean()), gap, [])
            found[one.policy, one.number] = look
    return found


def _seen(heat: Tensor, logits: Tensor, targets: Tensor, rows: Tensor) -> Float[Tensor, "targets 3"]:
    """Of every token: its log-probability at temperature 1 and at its row's, and the entropy there."""
    logits = logits.float()
    plain = -F.cross_entropy(logits, targets, reduction="none")
    logits = logits / heat.to(logits.device)[rows, None]
    spread = logits.log_softmax(-1)
    # Just as `forward.logprobs` does, so that the first step's ratios are exactly 1.
    own = -F.cross_entropy(logits, targets, reduction="none")
    return torch.stack([plain, own, -(spread.exp() * spread).sum(-1)], dim=-1)


@torch.no_grad()
def worth(
    model: TeamModel,
    answers: Sequence[Answer],
    looks: Mapping[tuple[str, int], Look],
    micros: Iterable[Sequence[Item]],
    autocast: torch.autocast,
) -> dict[tuple[str, int], Look]:
    """The looks with the values of every token, by each policy's value agent."""
    found = dict(looks)
    by_name = {(value_of(one.policy), one.number): one for one in answers}
    for micro in micros:
        group = [by_name[item.agent, item.number] for item in micro]
        with told_when_full(f"{len(group)} answers to judge", "lower ppo.fit.micro_tokens"), autocast:
            values, mask = valued(model, [(value_of(one.policy), one.question) for one in group])
        for row, one in enumerate(group):
            here = one.policy, one.number
            found[here] = replace(found[here], values=values[row, mask[row]].tolist())
    return found


def where(place: int, number: int) -> str:
    """An agent at a turn, as metrics name it."""
    return f"agent-{place + 1}-turn-{number}"


def value_of(policy: str) -> str:
    """The agent that holds a policy's values."""
    return f"{policy}-value"


@dataclass(frozen=True, slots=True)
class Estimate:
    """How advantages are made of rewards."""

    estimator: Estimator
    discount: float
    trace: float
    whiten_rewards: bool
    whiten: bool
    kl: float
    """weight of the KL to the base in a token's reward; 0 where it is in the loss, or nowhere"""

    @property
    def relative(self) -> bool:
        return self.estimator != "ppo"


@dataclass(frozen=True, slots=True)
class Learned:
    """What one policy's answers are to teach: advantages, and the returns of its values (none without values)."""

    policy: list[Item]
    values: list[Item]


def learned(answers: Sequence[Answer], looks: Mapping[tuple[str, int], Look], how: Estimate, anchored: bool) -> Learned:
    """The training items of one policy. anchored: the loss holds the policy to the base."""
    here = [looks[one.policy, one.number] for one in answers]
    mask = _mask([len(one.logprobs) for one in here])
    if how.relative:
        # The KL is no part of what answers are compared by: in a group of equal rewards it would be all that counts.
        ahead = kl_costs(here, mask, how.kl)[:, ::-1].cumsum(1)[:, ::-1]
        advantages, returns = np.where(mask, np.array([one.better for one in answers])[:, None] + ahead, 0.0), None
    else:
        rewards = token_rewards(answers, here, mask, how.kl)
        rewards = whitened(rewards, mask, centred=False) if how.whiten_rewards else rewards
        values = _table([one.values for one in here], mask)
        advantages = gae(rewards, values, mask, how.discount, how.trace)
        returns = advantages + values
        advantages = whitened(advantages, mask) if how.whiten else advantages
    policy, values_ = [], []
    for row, (one, look) in enumerate(zip(answers, here, strict=True)):
        own = mask[row]
        base = look.reference if anchored else None
        sampled = Sampled(one.example, look.logprobs, advantages[row, own].tolist(), one.temperature, base, one.where)
        policy.append(Item(one.policy, one.number, sampled))
        if returns is not None:
            valued = Valued(one.question, look.values, returns[row, own].tolist())
            values_.append(Item(value_of(one.policy), one.number, valued))
    return Learned(policy, values_)


def token_rewards(
    answers: Sequence[Answer], looks: Sequence[Look], mask: Bool[np.ndarray, "rows length"], kl: float
) -> Float[np.ndarray, "rows length"]:
    """Of every token -kl (log pi - log base), and the answer's reward on its last one (specification 3.5)."""
    rewards = kl_costs(looks, mask, kl)
    for row, one in enumerate(answers):
        rewards[row, int(mask[row].sum()) - 1] += one.reward
    return rewards


def kl_costs(
    looks: Sequence[Look], mask: Bool[np.ndarray, "rows length"], kl: float
) -> Float[np.ndarray, "rows length"]:
    """Of every token -kl (log pi - log base)."""
    return -kl * _table([[p - q for p, q in zip(one.logprobs, one.reference, strict=True)] for one in looks], mask)


def _mask(lengths: Sequence[int]) -> Bool[np.ndarray, "rows length"]:
    return np.arange(max(lengths))[None, :] < np.array(lengths)[:, None]


def _table(rows: Sequence[Sequence[float]], mask: Bool[np.ndarray, "rows length"]) -> Float[np.ndarray, "rows length"]:
    found = np.zeros(mask.shape)
    found[mask] = [number for row in rows for number in row]
    return found


def finite_mean(values: Sequence[float]) -> float:
    """The mean, or 0 of nothing."""
    return math.fsum(values) / len(values) if values else 0.0
