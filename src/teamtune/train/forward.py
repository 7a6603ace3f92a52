"""Forward passes of a micro-batch: what each answer's agent makes of its tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from teamtune.train.examples import Example, padded
from teamtune.train.nested import outer
from teamtune.train.siblings import joined
from teamtune.train.team import TeamModel


def forward(
    model: TeamModel, rows: Sequence[tuple[str, Example]], heat: Sequence[float] | None = None
) -> tuple[Float[Tensor, "rows length"], Bool[Tensor, "rows length"]]:
    """Log-probability of every token under its row's agent (0 at the first), and the mask of the answers' tokens.

    heat: the temperature of each row, which its logits are divided by.
    """
    ids, mask = batch_of(model, [one for _, one in rows])
    return logprobs(model, ids, [agent for agent, _ in rows], mask, heat), mask


def logprobs(
    model: TeamModel,
    ids: Int[Tensor, "rows length"],
    agents: Sequence[str] | None,
    mask: Bool[Tensor, "rows length"],
    heat: Sequence[float] | None = None,
) -> Float[Tensor, "rows length"]:
    """Log-probability of the tokens in the mask, 0 elsewhere. agents None: under the frozen base.

    heat: the temperature of each row, which its logits are divided by.
    """
    heats = None if heat is None or all(one == 1 for one in heat) else torch.tensor(heat, device=ids.device)

    def chosen(logits: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        logits = logits.float() if heats is None else logits.float() / heats[rows, None]
        return -F.cross_entropy(logits, targets, reduction="none")

    found = torch.zeros(mask.shape, device=ids.device)
    found[mask] = at_targets(model, ids, agents, mask, chosen)
    return found


def at_targets(
    model: TeamModel,
    ids: Int[Tensor, "rows length"],
    agents: Sequence[str] | None,
    mask: Bool[Tensor, "rows length"],
    told: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Float[Tensor, "targets ..."]:
    """What `told(logits, targets, rows)` says of the tokens in the mask, row by row.

    Logits are made for these tokens alone, and so many at a time that they stay below `MOST_LOGITS`; with gradients
    they are made again on the way back, so that a large vocabulary never lies whole in memory.
    """
    rows, places = mask[:, 1:].nonzero(as_tuple=True)  # the logits at a token predict the next one
    states, targets = states_at(model, ids, agents, mask, rows, places), ids[rows, places + 1]

    def part(*given: Tensor) -> Tensor:
        return told(model.logits(given[0]), *given[1:])

    parts = list(zip(*(t.split(model.chunk) for t in (states, targets, rows)), strict=True))
    if len(parts) > 1 and torch.is_grad_enabled():
        return torch.cat([checkpoint(part, *one, use_reentrant=False) for one in parts])
    return torch.cat([part(*one) for one in parts])


def states_at(
    model: TeamModel,
    ids: Int[Tensor, "rows length"],
    agents: Sequence[str] | None,
    mask: Bool[Tensor, "rows length"],
    rows: Int[Tensor, " targets"],
    places: Int[Tensor, " targets"],
) -> Float[Tensor, "targets width"]:
    """The states at some tokens of the rows; what many of them begin with is read once: the prompt of several answers,
    or a conversation that goes on in another row."""
    one = joined(ids, agents, mask) if model.takes_siblings else None
    if one is None:
        ids, agents, at = outer(ids, agents, mask)
        return model.states(ids, agents)[at[rows], places]
    at = one.at[rows, places]
    own = None if agents is None else [agents[row] for row in one.first]
    return model.states(one.ids, own, one.sees, one.places)[at[:, 0], at[:, 1]]


def valued(
    model: TeamModel, rows: Sequence[tuple[str, Example]]
) -> tuple[Float[Tensor, "rows length"], Bool[Tensor, "rows length"]]:
    """The value before every token of an answer: that of the state in which the token was chosen; and the mask."""
    ids, mask = batch_of(model, [one for _, one in rows])
    whole, agents, at = outer(ids, [agent for agent, _ in rows], mask)
    assert agents is not None
    return F.pad(model.values(whole, agents)[at, :-1], (1, 0)), mask


def surprises(
    model: TeamModel, ids: Int[Tensor, "rows length"], mask: Bool[Tensor, "rows length"]
) -> Float[Tensor, "rows length 4"]:
    """How much each answer surprises the frozen base, up to each of its tokens: log(1 + x) with x the negative
    log-probability of the token, of all tokens so far, of those after the answer's first quarter (an answer in a
    discussion may open with words on the others'), and of the least likely one."""
    with torch.no_grad():
        found = -logprobs(model, ids, None, mask)
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
