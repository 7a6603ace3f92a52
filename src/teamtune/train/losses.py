"""The losses, as pure functions of log-probabilities. Shapes: `pairs`, `rows` and `length` as in the batch.

SFT and DPO are MALT's two objectives (its section 3.3); IPO and the added NLL term are options that it only cites.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

PairLoss = Literal["dpo", "ipo"]


def token_logprobs(
    logits: Float[Tensor, "rows length vocabulary"], ids: Int[Tensor, "rows length"]
) -> Float[Tensor, "rows length"]:
    """log p(ids[t] | ids[<t]) at every position; 0 at position 0, which nothing predicts."""
    shifted = logits[:, :-1].float()
    found = -F.cross_entropy(shifted.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return F.pad(found.view(ids.shape[0], -1), (1, 0))


def sft(
    logprobs: Float[Tensor, "rows length"], mask: Bool[Tensor, "rows length"], tokens: Float[Tensor, " rows"]
) -> Float[Tensor, " rows"]:
    """Each row's share of the mean negative log-likelihood a target token: -sum log p / tokens.

    `tokens` is the number of target tokens in the whole optimiser step of the row's agent, so that micro-batches add up
    to the mean over the step: L_SFT = -E sum_t log pi(y_t | y_<t, x).
    """
    return -(logprobs * mask).sum(-1) / tokens


def pair(
    chosen: Float[Tensor, " pairs"],
    rejected: Float[Tensor, " pairs"],
    chosen_reference: Float[Tensor, " pairs"],
    rejected_reference: Float[Tensor, " pairs"],
    beta: float,
    kind: PairLoss = "dpo",
) -> Float[Tensor, " pairs"]:
    """The preference loss of each pair, from log-probabilities of whole answers.

    dpo: -log sigmoid(beta * margin), margin = log pi/ref (chosen) - log pi/ref (rejected)  (Rafailov et al. 2023)
    ipo: (margin - 1 / (2 beta))^2, on log-probabilities averaged over tokens               (Azar et al. 2023)
    """
    margin = (chosen - chosen_reference) - (rejected - rejected_reference)
    if kind == "ipo":
        return (margin - 1 / (2 * beta)) ** 2
    return -F.logsigmoid(beta * margin)


def policy(
    logprobs: Float[Tensor, "rows length"],
    sampled: Float[Tensor, "rows length"],
    mask: Bool[Tensor, "rows length"],
    advantages: Float[Tensor, "rows length"],
    clip: float,
    kl: float = 0.0,
    anchor: Float[Tensor, "rows length"] | None = None,
) -> Float[Tensor, "rows length"]:
    """The cost of every token under PPO's clipped surrogate (Schulman et al. 2017), 0 outside the mask.

    -min(r A, clip(r, 1 - clip, 1 + clip) A), r = exp(logprobs - sampled), plus kl times the k3 estimate of the KL to
    the anchor, exp(-d) - 1 + d with d = logprobs - anchor; without an anchor of the KL from the policy that sampled.
    """
    cost = -torch.minimum(*_surrogates(logprobs, sampled, mask, advantages, clip))
    if kl:
        cost = cost + kl * (k3(sampled, logprobs, mask) if anchor is None else k3(logprobs, anchor, mask))
    return cost * mask


def clipped(
    logprobs: Float[Tensor, "rows length"],
    sampled: Float[Tensor, "rows length"],
    mask: Bool[Tensor, "rows length"],
    advantages: Float[Tensor, "rows length"],
    clip: float,
) -> Bool[Tensor, "rows length"]:
    """The tokens on which the clip of `policy` acts, so that they push no further: the ratio has left the range on the
    side that the advantage asks for."""
    free, held = _surrogates(logprobs, sampled, mask, advantages, clip)
    return held < free


def _surrogates(
    logprobs: Tensor, sampled: Tensor, mask: Tensor, advantages: Tensor, clip: float
) -> tuple[Tensor, Tensor]:
    """Of every token, the ratio times the advantage, and the same with the ratio held in its range."""
    ratio = torch.where(mask, logprobs - sampled, 0.0).exp()
    return ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages


def k3(
    own: Float[Tensor, "rows length"], other: Float[Tensor, "rows length"], mask: Bool[Tensor, "rows length"]
) -> Float[Tensor, "rows length"]:
    """The k3 estimate of KL(own || other) of every token that `own` sampled, 0 outside the mask: q/p - 1 - log(q/p),
    unbiased and never negative (Schulman, "Approximating KL divergence", 2020)."""
    less = torch.where(mask, other - own, 0.0)
    return torch.expm1(less) - less


def value(
    values: Float[Tensor, "rows length"],
    before: Float[Tensor, "rows length"],
    returns: Float[Tensor, "rows length"],
    mask: Bool[Tensor, "rows length"],
    clip: float,
) -> Float[Tensor, "rows length"]:
    """Half of the squared error of every token's value, 0 outside the mask.

    The larger one of two: of the value, and of the value held within `clip` of what it was before.
    """
    held = before + (values - before).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (held - returns) ** 2) * mask


def last_part(mask: Bool[Tensor, "rows length"], part: Literal["half", "all", "last"]) -> Bool[Tensor, "rows length"]:
    """The tokens of each answer that are in its last half (of five the last three), all of them, or the last one."""
    if part == "all":
        return mask
    number, count = mask.long().cumsum(-1), mask.sum(-1, keepdim=True)
    return mask & (number > (count // 2 if part == "half" else count - 1))


def scoring(
    logits: Float[Tensor, "rows length"], right: Float[Tensor, " rows"], mask: Bool[Tensor, "rows length"]
) -> Float[Tensor, " rows"]:
    """Each row's mean cross-entropy over the mask's tokens, between its label and sigmoid(logits).

    The outcome is repeated at every token, so that the optimum at token x is P(right | question, first x tokens)
    (MAPoRL, Theorem 1). Every answer weighs the same, however long.
    """
    each = F.binary_cross_entropy_with_logits(logits, right[:, None].expand_as(logits), reduction="none")
    return (each * mask).sum(-1) / mask.sum(-1).clamp(min=1)


def answer_logprob(
    logprobs: Float[Tensor, "rows length"], mask: Bool[Tensor, "rows length"], average: bool = False
) -> Float[Tensor, " rows"]:
    """log pi(y | x): the sum over the answer's tokens, or its mean."""
    total = (logprobs * mask).sum(-1)
    return total / mask.sum(-1).clamp(min=1) if average else total


def global_norm(parameters: list[Tensor]) -> Tensor:
    """The norm of all gradients together."""
    norms = [p.grad.norm() for p in parameters if p.grad is not None]
    return torch.stack(norms).norm() if norms else torch.zeros(())
