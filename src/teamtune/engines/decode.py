"""The decoding loop: one batch of prompts to its sampled ids.

It does what `generate` does in its plainest form, and three things more, which together make it faster on the many
short generations of a team (bench/rollout.py): prompts that occur several times (siblings of a tree) are read once;
rows that have ended leave the batch; and the cache grows in place, where `generate` copies all of it at every token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from teamtune.engines.render import Request
from teamtune.engines.sampling import RowSampling, choose, precision, uniforms
from teamtune.types import TeamtuneError

ROOM = 64  # positions that the cache grows by
COMPACT = 0.75  # rows leave the batch once no more than this share of it is still going


class RoomyLayer(DynamicLayer):
    """A cache layer with room to grow, so that a token is written in place and not with a copy of the whole."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._room: tuple[Tensor, Tensor] | None = None
        assert self.keys is not None and self.values is not None
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        if self._room is None or self._room[0].shape[0] != key_states.shape[0] or self._room[0].shape[2] < end:
            self._room = (
                self._roomy(self.keys, key_states, end),
                self._roomy(self.values, value_states, end),
            )
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, length:end] = states
        self.keys, self.values = (room[:, :, :end] for room in self._room)
        return self.keys, self.values

    @staticmethod
    def _roomy(old: Tensor, states: Tensor, end: int) -> Tensor:
        rows, heads, _, width = states.shape
        room = states.new_empty(rows, heads, end + ROOM, width)
        if old.numel():
            room[:, :, : old.shape[-2]] = old
        return room

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._room = None


def new_cache(config: Any) -> DynamicCache:
    """An empty cache of the model's own kind; layers of plain attention get room to grow.

    Raises TeamtuneError for a model that keeps another state than keys and values (state-space models).
    """
    cache = DynamicCache(config=config)
    other = sorted({type(layer).__name__ for layer in cache.layers if not hasattr(layer, "batch_select_indices")})
    if other:
        raise TeamtuneError(
            f"the transformers engine needs a model of attention layers alone; {config.model_type} "
            f"has {', '.join(other)}: take another model"
        )
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


Sampled = tuple[list[int], list[float]]
"""Ids, up to and with the stop token, and the log-probability of each."""


@dataclass
class _Batch:
    """The rows that are still going; every field has them in the same order."""

    rows: Int[Tensor, " going"]
    tokens: Int[Tensor, " going"]
    positions: Int[Tensor, " going"]
    mask: Int[Tensor, "going length"] | None
    """which cached positions hold tokens; None where no prompt was padded"""

    def keep(self, index: Int[Tensor, " kept"]) -> _Batch:
        mask = None if self.mask is None else self.mask[index]
        return _Batch(self.rows[index], self.tokens[index], self.positions[index], mask)


class Decoder:
    """Samples answers to prompts with one model. `mixed` says that rows may use different adapters."""

    def __init__(self, model: Any, stops: Sequence[int], pad: int, mixed: bool):
        self.model, self.pad, self.mixed = model, pad, mixed
        self.stops = torch.tensor(stops, device=model.device)

    @torch.inference_mode()
    def __call__(self, requests: Sequence[Request]) -> list[Sampled]:
        device = self.model.device
        cache = new_cache(self.model.config)
        limits = torch.tensor([request.limit for request in requests], device=device)
        steps = int(limits.max())
        random = uniforms([request.seed for request in requests], steps).to(precision(device)).to(device)
        options = RowSampling.of([request.sampling for request in requests], device)
        ids = torch.zeros(len(requests), steps, dtype=torch.long, device=device)
        logprobs = torch.zeros(len(requests), steps, device=device)
        lengths = limits.clone()
        batch, logits = self._read(requests, cache)
        for step in range(steps):
            chosen = choose(logits, random[batch.rows, step], options.at(batch.rows))
            ids[batch.rows, step] = chosen
            logprobs[batch.rows, step] = logits.float().log_softmax(-1).gather(-1, chosen[:, None]).squeeze(-1)
            ended = torch.isin(chosen, self.stops) | (limits[batch.rows] == step + 1)
            lengths[batch.rows] = torch.where(ended, lengths[batch.rows].clamp(max=step + 1), lengths[batch.rows])
            batch.tokens = chosen
            still = self._going(batch, lengths, step + 1)
            if not bool(still.any()):
                break
            if float(still.float().mean()) <= COMPACT:
                index = still.nonzero().squeeze(-1)
                cache.batch_select_indices(index)
                batch = batch.keep(index)
            logits = self._step(requests, batch, cache)
        kept = zip(ids.tolist(), logprobs.tolist(), lengths.tolist(), strict=True)
        return [(row[:length], values[:length]) for row, values, length in kept]

    @staticmethod
    def _going(batch: _Batch, lengths: Tensor, step: int) -> Bool[Tensor, " going"]:
        return lengths[batch.rows] > step

    def _read(self, requests: Sequence[Request], cache: DynamicCache) -> tuple[_Batch, Tensor]:
        """Run the prompts, each different one once, and spread the cache over all rows."""
        different = list(dict.fromkeys((request.adapter, request.prompt) for request in requests))
        source = {key: i for i, key in enumerate(different)}
        longest = max(len(prompt) for _, prompt in different)
        ids = torch.full((len(different), longest), self.pad)
        mask = torch.zeros_like(ids)
        for row, (_, prompt) in enumerate(different):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        ids, mask = ids.to(self.model.device), mask.to(self.model.device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        padded = None if bool(mask.all()) else mask
        logits = self._forward(ids, positions, padded, cache, [adapter for adapter, _ in different])
        spread = torch.tensor([source[r.adapter, r.prompt] for r in requests], device=self.model.device)
        if len(different) < len(requests):
            cache.batch_select_indices(spread)
        rows = torch.arange(len(requests), device=self.model.device)
        last = positions[spread, -1]
        batch = _Batch(rows, rows, last, None if padded is None else padded[spread])
        return batch, logits[spread]

    def _step(self, requests: Sequence[Request], batch: _Batch, cache: DynamicCache) -> Tensor:
        """Run the newest token of every row; logits of the next."""
        batch.positions = batch.positions + 1
        if batch.mask is not None:
            batch.mask = torch.nn.functional.pad(batch.mask, (0, 1), value=1)
        names = [requests[row].adapter for row in batch.rows.tolist()] if self.mixed else []
        return self._forward(batch.tokens[:, None], batch.positions[:, None], batch.mask, cache, names)

    def _forward(
        self, ids: Tensor, positions: Tensor, mask: Tensor | None, cache: DynamicCache, names: Sequence[str]
    ) -> Tensor:
        adapters = {"adapter_names": list(names)} if self.mixed else {}
        out = self.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            **adapters,
        )
        return out.logits[:, -1]
