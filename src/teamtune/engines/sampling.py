"""Seeded sampling that does not depend on what else is in the batch.

Every row brings its own stream of uniform numbers, drawn from its own seed; the token at position t is the one whose
interval of the cumulative distribution holds uniform number t. Token order is fixed, so the same seed and the same
distribution give the same token in any batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from teamtune.types import Sampling


def uniforms(seeds: Sequence[int], length: int) -> Float[Tensor, "rows length"]:
    """`length` numbers in [0, 1) a row; a row's numbers depend on its seed alone."""
    rows = torch.empty(len(seeds), length, dtype=torch.float64)  # made on the CPU, whatever the device
    generator = torch.Generator()
    for row, seed in enumerate(seeds):
        generator.manual_seed(seed)
        torch.rand(length, generator=generator, out=rows[row])
    return rows


def precision(device: torch.device) -> torch.dtype:
    """What probabilities are summed in: float64 where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


@dataclass(frozen=True, slots=True)
class RowSampling:
    """The sampling options of a batch, one entry a row."""

    temperature: Float[Tensor, " rows"]
    top_p: Float[Tensor, " rows"]
    top_k: Int[Tensor, " rows"]

    @staticmethod
    def of(options: Sequence[Sampling], device: torch.device) -> RowSampling:
        column = lambda values, kind: torch.tensor(values, dtype=kind, device=device)  # noqa: E731
        return RowSampling(
            column([o.temperature for o in options], precision(device)),
            column([o.top_p for o in options], precision(device)),
            column([o.top_k for o in options], torch.long),
        )

    def at(self, rows: Int[Tensor, " some"]) -> RowSampling:
        """The options of some of the rows."""
        return RowSampling(self.temperature[rows], self.top_p[rows], self.top_k[rows])


def choose(
    logits: Float[Tensor, "rows vocabulary"], uniform: Float[Tensor, " rows"], options: RowSampling
) -> Int[Tensor, " rows"]:
    """The sampled token of every row; rows at temperature 0 take the most likely one."""
    greedy = logits.argmax(-1)
    if not bool((options.temperature > 0).any()):
        return greedy
    heat = torch.where(options.temperature > 0, options.temperature, 1.0)
    probabilities = (logits.to(heat.dtype) / heat[:, None]).softmax(-1)
    if bool((options.top_k > 0).any()) or bool((options.top_p < 1).any()):
        probabilities = filtered(probabilities, options)
    cumulative = probabilities.cumsum(-1)
    # Scaling by the total keeps the last interval closed whatever rounding did to the sum.
    targets = uniform[:, None] * cumulative[:, -1:]
    sampled = torch.searchsorted(cumulative, targets, right=True).squeeze(-1)
    last = (probabilities > 0).long().cumsum(-1).argmax(-1)
    return torch.where(options.temperature > 0, torch.minimum(sampled, last), greedy)


def filtered(probabilities: Float[Tensor, "rows vocabulary"], options: RowSampling) -> Float[Tensor, "rows vocabulary"]:
    """Zero what top-k and then top-p leave out. Top-p keeps the smallest set of likely tokens whose sum reaches p."""
    ordered, index = torch.sort(probabilities, dim=-1, descending=True, stable=True)
    rank = torch.arange(ordered.shape[-1], device=ordered.device)
    keep = (options.top_k[:, None] == 0) | (rank < options.top_k[:, None])
    ordered = ordered * keep
    share = ordered / ordered.sum(-1, keepdim=True)
    before = share.cumsum(-1) - share
    ordered = ordered * ((before < options.top_p[:, None]) | (rank == 0))
    return torch.zeros_like(probabilities).scatter(-1, index, ordered)
