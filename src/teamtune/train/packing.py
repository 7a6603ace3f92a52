"""Rows of a step -> micro-batches: of about one length, so that little is padded, and of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

from teamtune.train import processes
from teamtune.train.examples import Example, Judged, Pair
from teamtune.train.nested import chains
from teamtune.train.objective import Item
from teamtune.train.team import TeamModel


def micro_tokens(on_cpu: bool, checkpoint: bool) -> int:
    """Ids in one forward pass where nothing is asked for: what a CPU's caches hold, what a card holds of a large
    model's activations, and more where these are computed again."""
    return 16_384 if checkpoint and not on_cpu else 4_096


def micro_batches(items: Sequence[Item], model: TeamModel, micro: int, checkpoint: bool) -> Iterator[list[Item]]:
    """The micro-batches of one step. Where activations are computed again, agents do not mix: by then the adapters of
    a mixed batch are no longer set."""
    tokens = micro or micro_tokens(model.device.type == "cpu", checkpoint)
    return packed(items, for_all(items, tokens, processes.count()), model.mixes and not checkpoint)


def for_all(items: Sequence[Item], tokens: int, count: int) -> int:
    """Ids in one forward pass, fewer where a step would not give every one of `count` processes something to do."""
    return min(tokens, ceil(sum(len(one) * one.rows for one in items) / count)) if count > 1 else tokens


def packed(items: Sequence[Item], tokens: int, mix: bool = True) -> Iterator[list[Item]]:
    """Micro-batches of about one length and at most `tokens` padded ids (a single longer item stands alone).

    mix: agents with little to do share micro-batches. One that fills half of one by itself has its own, since routing
    rows costs more than it saves by then (bench/fit.py); so has every agent of a model that cannot route its rows.
    """
    own: dict[str, list[Item]] = {}
    for item in items:
        own.setdefault(item.agent, []).append(item)
    alone = [a for a, has in own.items() if not mix or 2 * sum(len(one) * one.rows for one in has) >= tokens]
    for agent in sorted(alone):
        yield from _packed(own.pop(agent), tokens)
    yield from _packed([item for has in own.values() for item in has], tokens)


def _packed(items: Sequence[Item], tokens: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    rows = 0
    groups = [[items[n] for n in chain] for chain in chains(list(map(row_of, items)))]
    for group in sorted(groups, key=lambda group: (len(group[-1]), group[-1].agent, group[-1].number)):
        own = 1 if len(group) > 1 else group[0].rows  # those that begin the last one are read within it
        if batch and (rows + own) * len(group[-1]) > tokens:
            yield batch
            batch, rows = [], 0
        batch, rows = batch + group, rows + own
    if batch:
        yield batch


def row_of(item: Item) -> tuple[str | int, ...]:
    """The row that an item is read as, with its agent. A pair is two, and a scorer's are read by themselves."""
    if isinstance(item.data, Pair | Judged):
        return item.agent, -1, item.number
    one = item.data if isinstance(item.data, Example) else item.data.example
    return item.agent, *one.prompt, *one.answer
