"""What a micro-batch costs, for SFT and for preference pairs, with rows of different agents side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from teamtune.train import losses, processes
from teamtune.train.examples import Example, Judged, Pair, Sampled, Valued
from teamtune.train.forward import batch_of, forward, scored, spread, valued
from teamtune.train.losses import PairLoss
from teamtune.train.team import TeamModel
from teamtune.types import TeamtuneError


@dataclass(frozen=True, slots=True)
class Sft:
    """Plain finetuning on the answers: the mean negative log-likelihood a target token."""


@dataclass(frozen=True, slots=True)
class Preference:
    """DPO, with the adapter that goes in as the frozen reference. MALT: beta 0.2; IPO and NLL off by default."""

    beta: float = 0.2
    loss: PairLoss = "dpo"
    nll: float = 0.0
    """weight of the chosen answers' negative log-likelihood a token (Pang et al. 2024)"""

    def __post_init__(self) -> None:
        if not 0 < self.beta < math.inf:
            raise TeamtuneError(f"beta is {self.beta}; it must be above 0, and finite")
        if not 0 <= self.nll < math.inf:
            raise TeamtuneError(f"nll is {self.nll}; it must be 0 or above, and finite")


@dataclass(frozen=True, slots=True)
class Policy:
    """PPO's clipped surrogate on answers with advantages, a token weighing the same in all answers of a step."""

    clip: float = 0.2
    """how far a token's probability ratio may move before it no longer counts"""
    kl: float = 0.0
    """weight of the KL, a token: to the frozen base where answers bring its log-probabilities, else to the policy that
    sampled"""

    def __post_init__(self) -> None:
        if not 0 < self.clip < 1:
            raise TeamtuneError(f"clip is {self.clip}; it must lie in (0, 1)")
        if not 0 <= self.kl < math.inf:
            raise TeamtuneError(f"kl is {self.kl}; it must be 0 or above, and finite")


@dataclass(frozen=True, slots=True)
class Values:
    """PPO's values: the squared error to the returns, of values that may not move far in one update."""

    clip: float = 0.2
    """how far a value may move from what it was when the answers were sampled"""
    weight: float = 0.1
    """of this loss; every policy has values of its own parameters, so that it only scales their gradients"""

    def __post_init__(self) -> None:
        for name in ("clip", "weight"):
            if not 0 < getattr(self, name) < math.inf:
                raise TeamtuneError(f"{name} of the values is {getattr(self, name)}; it must be above 0, and finite")


@dataclass(frozen=True, slots=True)
class Scoring:
    """A scorer's cross-entropy between right or wrong and what its head says at an answer's tokens (MAPoRL, 3.3)."""

    part: Literal["half", "all", "last"] = "half"
    """which tokens of an answer bear loss: the last half, all, or the last one"""
    surprise: bool = False
    """tell the head how likely the frozen base finds the answer, too: a small base cannot see it from its states"""


Objective = Sft | Preference | Policy | Values | Scoring


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to learn from: an agent's example or pair, and its number among the agent's."""

    agent: str
    number: int
    data: Example | Pair | Sampled | Valued | Judged

    def __len__(self) -> int:
        return len(self.data)

    @property
    def rows(self) -> int:
        return 2 if isinstance(self.data, Pair) else 1


def padded(micro: Sequence[Item]) -> int:
    """Ids that a micro-batch computes, padding included."""
    return max(map(len, micro)) * sum(one.rows for one in micro)


@dataclass(frozen=True, slots=True)
class Weighted:
    """Each agent's normalisers in one optimiser step."""

    tokens: Mapping[str, int]
    """target tokens: all of an SFT batch, the chosen answers' of a preference batch"""
    items: Mapping[str, int]

    @staticmethod
    def of(batches: Mapping[str, Sequence[Item]]) -> Weighted:
        def targets(item: Item) -> int:
            data = item.data
            one = data.chosen if isinstance(data, Pair) else data if isinstance(data, Example) else data.example
            return len(one.answer)

        tokens = {agent: sum(map(targets, batch)) for agent, batch in batches.items()}
        return Weighted(tokens, {agent: len(batch) for agent, batch in batches.items()})


@dataclass(frozen=True, slots=True)
class Found:
    """A micro-batch's loss, and numbers to report: (agent, name, this micro-batch's share)."""

    total: Float[Tensor, ""]
    reports: list[tuple[str, str, float]]


CLIPS, TOKENS = "clips of ", "tokens of "
"""counts that are reported of a `Sampled.where`"""
Reference = Mapping[str, Float[Tensor, "items 2"]]
"""Per agent: log-probability of (chosen, rejected) of each pair under the adapter that went in."""


def micro_losses(
    model: TeamModel,
    micro: Sequence[Item],
    objective: Objective,
    weights: Weighted,
    reference: Reference | None,
) -> Found:
    """The micro-batch's part of the step's loss, summed over its agents."""
    if isinstance(objective, Sft):
        return _sft(model, micro, weights)
    if isinstance(objective, Policy):
        return _policy(model, micro, objective, weights)
    if isinstance(objective, Values):
        return _values(model, micro, objective, weights)
    if isinstance(objective, Scoring):
        return _scoring(model, micro, objective, weights)
    assert reference is not None
    return _pairs(model, micro, objective, weights, reference)


def _sft(model: TeamModel, micro: Sequence[Item], weights: Weighted) -> Found:
    logprobs, mask = forward(model, [(item.agent, item.data) for item in micro])  # type: ignore[misc]
    tokens = torch.tensor([float(weights.tokens[item.agent]) for item in micro], device=model.device)
    each = losses.sft(logprobs, mask, tokens)
    return Found(each.sum(), [(item.agent, "loss", x) for item, x in zip(micro, each.tolist(), strict=True)])


def _policy(model: TeamModel, micro: Sequence[Item], objective: Policy, weights: Weighted) -> Found:
    data: list[Sampled] = [item.data for item in micro]  # type: ignore[misc]
    heat = [one.temperature for one in data]
    logprobs, mask = forward(model, [(item.agent, one.example) for item, one in zip(micro, data, strict=True)], heat)
    sampled = spread([one.logprobs for one in data], mask)
    advantages = spread([one.advantages for one in data], mask)
    anchored = [one.reference for one in data if one.reference is not None]
    anchor = spread(anchored, mask) if len(anchored) == len(data) else None
    cost = losses.policy(logprobs, sampled, mask, advantages, objective.clip, objective.kl, anchor)
    with torch.no_grad():
        clipped = losses.clipped(logprobs, sampled, mask, advantages, objective.clip).float()
        gap = losses.k3(sampled, logprobs, mask)
    found = _a_token(micro, weights, {"loss": cost, "clipped": clipped, "kl": gap})
    for item, one, count in zip(micro, data, (clipped * mask).sum(-1).tolist(), strict=True):
        if one.where:
            tokens = float(len(one.example.answer))
            found.reports.extend(((item.agent, CLIPS + one.where, count), (item.agent, TOKENS + one.where, tokens)))
    return found


def _values(model: TeamModel, micro: Sequence[Item], objective: Values, weights: Weighted) -> Found:
    data: list[Valued] = [item.data for item in micro]  # type: ignore[misc]
    values, mask = valued(model, [(item.agent, one.example) for item, one in zip(micro, data, strict=True)])
    before, returns = spread([one.values for one in data], mask), spread([one.returns for one in data], mask)
    cost = objective.weight * losses.value(values, before, returns, mask, objective.clip)
    error = ((values - returns) ** 2 * mask).detach()
    return _a_token(micro, weights, {"loss": cost, "error": error})


def _a_token(micro: Sequence[Item], weights: Weighted, named: Mapping[str, Tensor]) -> Found:
    """The loss and what is reported with it, as shares of the mean over all target tokens of each agent's step."""
    some = named["loss"]
    tokens = torch.tensor([float(weights.tokens[item.agent]) for item in micro], device=some.device)
    rows = {name: each.sum(-1) / tokens for name, each in named.items()}
    reports = [(i.agent, n, x) for n, values in rows.items() for i, x in zip(micro, values.tolist(), strict=True)]
    return Found(rows["loss"].sum(), reports)


def _scoring(model: TeamModel, micro: Sequence[Item], objective: Scoring, weights: Weighted) -> Found:
    data: list[Judged] = [item.data for item in micro]  # type: ignore[misc]
    ids, mask = batch_of(model, [one.example for one in data])
    logits = scored(model, [item.agent for item in micro], ids, mask)
    right = torch.tensor([float(one.right) for one in data], device=logits.device)
    each = losses.scoring(logits, right, losses.last_part(mask, objective.part))
    count = torch.tensor([float(weights.items[item.agent]) for item in micro], device=logits.device)
    last = logits.gather(-1, mask.long().cumsum(-1).argmax(-1, keepdim=True)).squeeze(-1)
    named = {"loss": each / count, "accuracy": ((last > 0) == (right > 0.5)).float() / count}
    return Found(
        named["loss"].sum(),
        [(i.agent, n, x) for n, values in named.items() for i, x in zip(micro, values.tolist(), strict=True)],
    )


def _pairs(
    model: TeamModel, micro: Sequence[Item], objective: Preference, weights: Weighted, reference: Reference
) -> Found:
    both, (logprobs, mask) = _pair_logprobs(model, micro, objective)
    known = torch.stack([reference[item.agent][item.number] for item in micro]).to(both)
    each = losses.pair(both[:, 0], both[:, 1], known[:, 0], known[:, 1], objective.beta, objective.loss)
    pairs = torch.tensor([float(weights.items[item.agent]) for item in micro], device=model.device)
    cost = each / pairs
    if objective.nll:
        tokens = torch.tensor([float(weights.tokens[item.agent]) for item in micro], device=model.device)
        chosen = slice(0, len(micro))
        cost = cost + objective.nll * losses.sft(logprobs[chosen], mask[chosen], tokens)
    margins = ((both[:, 0] - known[:, 0]) - (both[:, 1] - known[:, 1])).detach()
    reports: list[tuple[str, str, float]] = []
    for item, loss, margin in zip(micro, cost.tolist(), margins.tolist(), strict=True):
        count = weights.items[item.agent]
        reports += [
            (item.agent, "loss", loss),
            (item.agent, "margin", objective.beta * margin / count),
            (item.agent, "accuracy", float(margin > 0) / count),
        ]
    return Found(cost.sum(), reports)


def _pair_logprobs(
    model: TeamModel, micro: Sequence[Item], objective: Preference
) -> tuple[Float[Tensor, "pairs 2"], tuple[Float[Tensor, "rows length"], Bool[Tensor, "rows length"]]]:
    """Log-probabilities of chosen and rejected answers; in the batch all chosen come first."""
    pairs = [(item.agent, item.data) for item in micro]
    sides = [(a, p.chosen) for a, p in pairs] + [(a, p.rejected) for a, p in pairs]  # type: ignore[union-attr]
    logprobs, mask = forward(model, sides)
    answers = losses.answer_logprob(logprobs, mask, average=objective.loss == "ipo")
    return torch.stack([answers[: len(micro)], answers[len(micro) :]], dim=-1), (logprobs, mask)


@torch.no_grad()
def reference_of(
    folder: Path,
    model: TeamModel,
    micros: Iterable[Sequence[Item]],
    objective: Preference,
    autocast: torch.autocast,
) -> Reference:
    """The reference log-probabilities, read from the fit's folder where a killed fit has left them."""
    file = folder / "reference.safetensors"
    if file.exists():
        return load_file(file)
    own: list[tuple[str, int, list[float]]] = []
    for micro, counts in processes.share(micros, padded, even=model.sharded):
        with autocast:
            both, _ = _pair_logprobs(model, micro, objective)
        found_ = zip(micro, both.tolist(), strict=True) if counts else ()
        own += [(item.agent, item.number, row) for item, row in found_]
    found: dict[str, dict[int, list[float]]] = {agent: {} for agent in model.agents}
    for agent, number, row in processes.gathered(own):
        found[agent][number] = row
    table = {agent: torch.tensor([rows[i] for i in range(len(rows))]) for agent, rows in found.items()}
    if processes.is_main():
        folder.mkdir(parents=True, exist_ok=True)
        draft = file.with_name("reference.tmp")
        save_file(table, draft)
        draft.rename(file)
    return table
