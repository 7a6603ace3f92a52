"""Forward passes of a micro-batch: what each answer's agent makes of its tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from teamtune.train import losses
from teamtune.train.examples import Example, padded
from teamtune.train.team import TeamModel


def forward(
    model: TeamModel, rows: Sequence[tuple[str, Example]], heat: Sequence[float] | None = None
) -> tuple[Float[Tensor, "rows length"], Bool[Tensor, "rows length"]]:
    """Log-probability of every token under its row's agent (0 at the first), and the mask of the answers' tokens.

    heat: the temperature of each row, which its logits are divided by.
    """
    ids, mask = batch_of(model, [one for _, one in rows])
    logits = model(ids, [agent for agent, _ in rows])
    if heat is not None and any(one != 1 for one in heat):
        logits = logits / torch.tensor(heat, device=logits.device)[:, None, None]
    return losses.token_logprobs(logits, ids), mask


def valued(
    model: TeamModel, rows: Sequence[tuple[str, Example]]
) -> tuple[Float[Tensor, "rows length"], Bool[Tensor, "rows length"]]:
    """The value before every token of an answer: that of the state in which the token was chosen; and the mask."""
    ids, mask = batch_of(model, [one for _, one in rows])
    values = model.values(ids, [agent for agent, _ in rows])
    return torch.nn.functional.pad(values[:, :-1], (1, 0)), mask


def surprises(
    model: TeamModel, ids: Int[Tensor, "rows length"], mask: Bool[Tensor, "rows length"]
) -> Float[Tensor, "rows length 4"]:
    """How much each answer surprises the frozen base, up to each of its tokens: log(1 + x) with x the negative
    log-probability of the token, of all tokens so far, of those after the answer's first quarter (an answer in a
    discussion may open with words on the others'), and of the least likely one."""
    found = torch.where(mask, -losses.token_logprobs(model.base(ids), ids), 0.0)
    late = torch.where(mask.cumsum(-1) > mask.sum(-1, keepdim=True) // 4, found, 0.0)
    return torch.stack([found, found.cumsum(-1), late.cumsum(-1), found.cummax(-1).values], dim=-1).log1p()


def scored(
    model: TeamModel, agents: Sequence[str], ids: Int[Tensor, "rows length"], mask: Bool[Tensor, "rows length"]
) -> Float[Tensor, "rows length"]:
    """What each row's scorer says at every token; sigmoid makes it a score."""
    hints = surprises(model, ids, mask) if model.heads[agents[0]].hints else None
    return model.values(ids, agents, hints)


def batch_of(
    model: TeamModel, examples: Sequence[Example]
) -> tuple[Int[Tensor, "rows length"], Bool[Tensor, "rows length"]]:
    pad = model.tokenizer.pad_token_id
    return padded(examples, pad if pad is not None else 0, model.device)


def spread(numbers: Sequence[Sequence[float]], mask: Bool[Tensor, "rows length"]) -> Float[Tensor, "rows length"]:
    """Numbers of answers' tokens at their places, 0 elsewhere."""
    found = torch.zeros(mask.shape, device=mask.device)
    for row, own in enumerate(numbers):
        found[row, mask[row]] = torch.tensor(list(own), device=mask.device, dtype=found.dtype)
    return found
