"""Advantages: how much better an answer, or one of its tokens, is than expected. Pure; numpy only.

gae([[0, 0, 1]], [[0.5, 0.5, 0.5]], mask, discount=1, trace=0.95)      a token at a time, with a learned value
group_relative([1, 0, 0, 1], ["p", "p", "p", "p"])                     [0.87, -0.87, -0.87, 0.87], its mean and spread
leave_one_out([1, 0, 0, 1], ["p", "p", "p", "p"])                      [2/3, -2/3, -2/3, 2/3], the others' mean
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from teamtune.types import TeamtuneError

SPREAD = 1e-4
"""as in common implementations of GRPO"""


def gae(
    rewards: Float[np.ndarray, "rows length"],
    values: Float[np.ndarray, "rows length"],
    mask: Bool[np.ndarray, "rows length"],
    discount: float = 1.0,
    trace: float = 0.95,
) -> Float[np.ndarray, "rows length"]:
    """Generalised advantage estimates of a row's tokens (Schulman et al. 2016); 0 outside the mask.

    delta_t = r_t + discount V_t+1 - V_t, A_t = delta_t + discount trace A_t+1. A row's tokens follow each other where
    the mask holds, and after its last one nothing comes: V is 0. Returns (what the value should be) are A + V.
    """
    found = np.zeros(rewards.shape)
    ahead = np.zeros(len(rewards))
    value_ahead = np.zeros(len(rewards))
    for t in range(rewards.shape[1] - 1, -1, -1):
        here = mask[:, t]
        delta = rewards[:, t] + discount * value_ahead - values[:, t]
        ahead = np.where(here, delta + discount * trace * ahead, ahead)
        found[:, t] = np.where(here, ahead, 0.0)
        value_ahead = np.where(here, values[:, t], value_ahead)
    return found


def whitened(
    values: Float[np.ndarray, "rows length"], mask: Bool[np.ndarray, "rows length"], centred: bool = True
) -> Float[np.ndarray, "rows length"]:
    """Values of spread 1 over all that the mask holds, and of mean 0 if `centred` (else the mean stays); 0 elsewhere.

    The spread is the unbiased one, with 1e-8 added to the variance. A single value has no spread and stays as it is.
    """
    held = values[mask]
    if held.size < 2:
        return np.where(mask, values, 0.0)
    mean = held.mean()
    found = (values - mean) / np.sqrt(held.var(ddof=1) + 1e-8)
    return np.where(mask, found if centred else found + mean, 0.0)


def group_relative(rewards: Sequence[float], groups: Sequence[Hashable], spread: bool = True) -> list[float]:
    """Each reward less its group's mean, over the group's standard deviation if `spread` (GRPO, Shao et al. 2024).

    A group of one reward, or of equal ones, is degenerate: nothing can be told from it and its advantages are 0. So
    that one of nearly equal rewards, as learned scores may be, does not shout, `SPREAD` is added to the deviation.
    """
    found = [0.0] * len(rewards)
    for members in _members(rewards, groups):
        own = np.array([rewards[i] for i in members], dtype=float)
        if degenerate(own):
            continue
        less = own - own.mean()
        for i, one in zip(members, less / (own.std(ddof=1) + SPREAD) if spread else less, strict=True):
            found[i] = float(one)
    return found


def leave_one_out(rewards: Sequence[float], groups: Sequence[Hashable]) -> list[float]:
    """Each reward less the mean of the others of its group (RLOO, Ahmadian et al. 2024); 0 for a group of one."""
    found = [0.0] * len(rewards)
    for members in _members(rewards, groups):
        total = sum(rewards[i] for i in members)
        for i in members if len(members) > 1 else ():
            found[i] = rewards[i] - (total - rewards[i]) / (len(members) - 1)
    return found


def degenerate(rewards: Float[np.ndarray, " members"]) -> bool:
    """Whether a group teaches nothing."""
    return len(rewards) < 2 or bool(np.ptp(rewards) < 1e-8)


def degenerate_groups(rewards: Sequence[float], groups: Sequence[Hashable]) -> tuple[int, int]:
    """(how many groups teach nothing, how many there are)."""
    found = [degenerate(np.array([rewards[i] for i in members])) for members in _members(rewards, groups)]
    return sum(found), len(found)


def _members(rewards: Sequence[float], groups: Sequence[Hashable]) -> list[list[int]]:
    if len(rewards) != len(groups):
        raise TeamtuneError(f"{len(rewards)} rewards and {len(groups)} groups; give every reward its group")
    found: dict[Hashable, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        found[group].append(index)
    return list(found.values())
