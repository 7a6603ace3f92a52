"""Rows that begin other rows of the same agent are read within them: under causal attention a token minds nothing that
comes after it. An agent's answers in one conversation are such rows, and so PPO reads the conversation once.

    turn 2    q a m b .  .             turn 3    q a m b n c
    both are read as the second one; the answer b has the same states in either
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def chains(rows: Sequence[tuple[Any, ...]]) -> list[list[int]]:
    """The rows in lists in which each begins the next one. A row that begins several is put before one of them."""
    found: list[list[int]] = []
    before: tuple[Any, ...] | None = None
    for n in sorted(range(len(rows)), key=lambda n: rows[n]):  # what goes on from a row comes right behind it
        if before is not None and rows[n][: len(before)] == before:
            found[-1].append(n)
        else:
            found.append([n])
        before = rows[n]
    return found


def outer(
    ids: Int[Tensor, "rows length"], agents: Sequence[str] | None, mask: Bool[Tensor, "rows length"]
) -> tuple[Int[Tensor, "kept length"], Sequence[str] | None, Int[Tensor, " rows"]]:
    """The rows that are to be read, their agents, and in which of them each row is. agents None: one for all.

    mask: the answers' tokens, behind which nothing is asked for.
    """
    ends = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(-1).tolist()
    rows = ids.tolist()
    found = chains([(agents[n] if agents else "", *rows[n][:end]) for n, end in enumerate(ends)])
    if len(found) == len(rows):
        return ids, agents, torch.arange(len(rows), device=ids.device)
    at = torch.zeros(len(rows), dtype=torch.long)
    for place, chain in enumerate(found):
        at[chain] = place
    kept = [chain[-1] for chain in found]
    return ids[kept], None if agents is None else [agents[n] for n in kept], at.to(ids.device)
