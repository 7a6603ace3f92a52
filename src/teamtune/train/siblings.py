"""Answers of one agent to one prompt, read as one row: the prompt once, then the answers, each of which sees the prompt
and itself. Both sides of a preference pair are such siblings, and so are a tree's answers.

    two rows        p p p a a .       one row     p p p a a b b b
                    p p p b b b       places      0 1 2 3 4 3 4 5
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

SAVES = 0.8
"""rows are joined where that leaves at most this share of the padded ids: a mask has its price (bench/siblings.py)"""
WIDEST = 4096
"""ids of a joined row: attention goes over all of it, also where it sees nothing"""


@dataclass(frozen=True, slots=True)
class Joined:
    """Rows of siblings as one row each."""

    ids: Int[Tensor, "groups width"]
    places: Int[Tensor, "groups width"]
    """positions, which begin again after the prompt with every answer"""
    sees: Bool[Tensor, "groups 1 width width"]
    """which tokens (last axis) a token sees"""
    first: list[int]
    """a row of each group"""
    at: Int[Tensor, "rows length 2"]
    """where each token of the rows is: (group, column); padding is anywhere"""


def joined(
    ids: Int[Tensor, "rows length"], agents: Sequence[str] | None, mask: Bool[Tensor, "rows length"]
) -> Joined | None:
    """The rows of a micro-batch with siblings joined; None where too little would be saved. agents None: one for all.

    mask: the answers' tokens, so that a row's prompt is all before them.
    """
    rows, masked = ids.tolist(), mask.tolist()
    if not all(map(any, masked)):
        return None  # an empty answer, of which nothing is asked
    starts = [own.index(True) for own in masked]
    ends = [len(own) - own[::-1].index(True) for own in masked]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row, start in enumerate(starts):
        groups.setdefault((agents[row] if agents else None, *rows[row][:start]), []).append(row)
    widths = [starts[own[0]] + sum(ends[row] - starts[row] for row in own) for own in groups.values()]
    if max(widths) > WIDEST or len(groups) * max(widths) > SAVES * ids.numel():
        return None
    shape = len(groups), max(widths)
    flat, places = torch.zeros(shape, dtype=ids.dtype), torch.zeros(shape, dtype=torch.long)
    part = torch.full(shape, -1)  # 0 of a prompt, then a number for each answer; padding sees padding
    at = torch.zeros(*ids.shape, 2, dtype=torch.long)
    here = ids.cpu()
    for group, own in enumerate(groups.values()):
        start = column = starts[own[0]]
        flat[group, :start], part[group, :start] = here[own[0], :start], 0
        places[group, :start] = torch.arange(start)
        for number, row in enumerate(own, start=1):
            end = column + ends[row] - start
            flat[group, column:end], part[group, column:end] = here[row, start : ends[row]], number
            places[group, column:end] = torch.arange(start, ends[row])
            at[row, :, 0] = group
            at[row, :start, 1] = torch.arange(start)
            at[row, start : ends[row], 1] = torch.arange(column, end)
            column = end
    part = part.to(ids.device)
    same = (part[:, :, None] == part[:, None, :]) | (part[:, None, :] == 0)
    sees = same.tril()[:, None]
    return Joined(
        flat.to(ids.device), places.to(ids.device), sees, [own[0] for own in groups.values()], at.to(ids.device)
    )


@torch.no_grad()
def takes_siblings(model: Any) -> bool:
    """Whether a model can read siblings as one row: its attention takes a mask and positions as they are, and sees all
    of what is before. Tried on two answers of four tokens."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None) or 0
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"]) - {"full_attention"}
    narrow = 0 < window < config.max_position_embeddings or kinds - {"sliding_attention"}
    if narrow or getattr(config, "_attn_implementation", "") != "sdpa":
        return False
    ids = torch.tensor([[3, 1, 2, 4] * 2 + [n] * 4 for n in (0, 2)], device=model.device)
    one = joined(ids, None, (torch.arange(12, device=model.device) >= 8).expand(2, -1))
    assert one is not None
    told = {"use_cache": False, "output_hidden_states": True}
    shown = {"attention_mask": added(one.sees, model.dtype), "position_ids": one.places}
    try:
        found = model(input_ids=one.ids, **shown, **told).hidden_states[-1]
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False
    want, blind = (model(input_ids=some, **told).hidden_states[-1].float() for some in (ids, one.ids))
    apart = [float((states[one.at[..., 0], one.at[..., 1]] - want).norm()) for states in (found.float(), blind)]
    # bfloat16 rounds, and a model that minds neither mask nor places is much further off.
    return apart[0] < 0.2 * apart[1]


def added(sees: Bool[Tensor, "*shape"], dtype: torch.dtype) -> Float[Tensor, "*shape"]:
    """The mask as attention adds it. One of booleans would become this in every layer, and be kept in each."""
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)
