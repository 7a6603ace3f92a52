"""Several processes on one fit, as `accelerate launch` starts them: each takes some of a step's micro-batches, and the
gradients are added up. A row's loss is divided by its agent's whole step, so that the sum is that of one process. A
base that is spread over them (sharding.py) takes all processes at every pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from accelerate.utils import gather_object

from teamtune.models import state

T = TypeVar("T")
Sums = dict[str, dict[str, float]]
"""per agent, what its steps report by name"""


def count() -> int:
    """Processes of this fit."""
    return state().num_processes


def is_main() -> bool:
    """Whether this is the process that writes."""
    return state().is_main_process


def share(items: Iterable[T], cost: Callable[[T], int], even: bool = False) -> list[tuple[T, bool]]:
    """What this process takes of them, and whether it counts: the costliest first, each to whoever has least to do.

    even: all processes take as many, for what they must do together; who is short takes an item that does not count.
    """
    return shares(list(items), cost, count(), even)[state().process_index]


def shares(some: list[T], cost: Callable[[T], int], parts: int, even: bool = False) -> list[list[tuple[T, bool]]]:
    """What every process takes."""
    if parts == 1:
        return [[(item, True) for item in some]]
    ordered = sorted(some, key=cost, reverse=True)
    if even:
        own = [[(item, True) for item in ordered[part::parts]] for part in range(parts)]
        return [[*mine, (ordered[-1], False)] if len(mine) < len(own[0]) else mine for mine in own]
    taken: list[list[tuple[T, bool]]] = [[] for _ in range(parts)]
    loads = [0] * parts
    for item in ordered:
        least = loads.index(min(loads))
        taken[least].append((item, True))
        loads[least] += cost(item)
    return taken


def gathered(own: Sequence[T]) -> list[T]:
    """The shares of all processes, in the order of processes."""
    return list(own) if count() == 1 else gather_object(list(own))


def add_up(parameters: Iterable[torch.nn.Parameter], sums: Sums) -> Sums:
    """Add up the gradients of all processes in place, and what they report."""
    if count() == 1:
        return sums
    own = list(parameters)
    for parameter in own:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([p.grad.flatten().float() for p in own if p.grad is not None])
    torch.distributed.all_reduce(flat)
    for parameter, part in zip(own, flat.split([p.numel() for p in own]), strict=True):
        assert parameter.grad is not None
        parameter.grad.copy_(part.view_as(parameter))
    total: Sums = {agent: {} for agent in sums}
    for reported in gathered([sums]):
        for agent, names in reported.items():
            for name, value in names.items():
                total[agent][name] = total[agent].get(name, 0.0) + value
    return total
