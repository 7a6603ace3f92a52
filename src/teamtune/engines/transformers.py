"""The embedded engine: a transformers model in this process, on a CPU or a GPU.

Asks are batched across problems, agents and siblings, with prompts of about one length in a batch, so that no short
ask is padded to a long one's length. A batch may hold different adapters (PEFT's `adapter_names`). Sampling is seeded
row by row (`sampling.py`) and does not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from peft import PeftModel

from teamtune.adapters import BASE, attach, mixes
from teamtune.engines.decode import Decoder, new_cache
from teamtune.engines.render import Renderer, Request, completion_of, request_of, stop_ids
from teamtune.models import context_of, told_when_full
from teamtune.types import Ask, Completion, Team, TeamtuneError

TOKENS = 131_072
SLACK = 1.25  # in one batch the longest prompt is at most this much (and 16 ids) longer than the shortest


class TransformersEngine:
    """Generates with a model that is in memory.

    `rows` and `tokens` (ids of prompts and answers together, padding included) bound a batch; larger ones are faster
    and take more memory. Raises TeamtuneError for a model without a chat template, or of another kind than attention.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str = "model", rows: int = 256, tokens: int = TOKENS):
        new_cache(model.config)
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.renderer = Renderer(tokenizer, name)
        self.rows, self.tokens, self.context = rows, tokens, context_of(model.config)
        self.stops = stop_ids(model.generation_config.eos_token_id, self.renderer)
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.stops[0]
        self.team: Team | None = None
        self._pending: list[tuple[int, Ask, int]] = []
        self._adapters: dict[str, str] = {}
        self._mixes = True

    def adopt(self, team: Team) -> None:
        """Load the adapters of the team that are new; a path that was loaded before is not read again."""
        for agent in team.agents:
            if agent.adapter is None or agent.adapter in self._adapters:
                continue
            name = f"a{len(self._adapters)}"
            self.model = attach(self.model, agent.adapter, name)
            self.model.eval()
            self._mixes = self._mixes if self._adapters else mixes(self.model, name)
            self._adapters[agent.adapter] = name
        self.team = team

    def hold(self, adapters: Mapping[str, str]) -> None:
        """Use adapters that the model has already, {path: name}; one that is being trained has a name for a path."""
        self._adapters |= adapters
        if adapters:
            self._mixes = mixes(self.model, next(iter(adapters.values())))

    def generate(self, asks: Sequence[Ask], seeds: Sequence[int]) -> list[Completion]:
        requests = [self._request(i, ask, seed) for i, (ask, seed) in enumerate(zip(asks, seeds, strict=True))]
        done: list[Completion] = [Completion("", "overflow", r.prompt, (), ()) for r in requests]
        fitting = [request for request in requests if request.limit > 0]
        for batch in batched(fitting, self.rows, self.tokens, self._mixes):
            with told_when_full(f"a batch of {len(batch)} answers", "lower --engine.tokens or --engine.rows"):
                completions = self._run(batch)
            for request, completion in zip(batch, completions, strict=True):
                done[request.place] = completion
        return done

    def submit(self, ticket: int, ask: Ask, seed: int) -> None:
        self._pending.append((ticket, ask, seed))

    def poll(self) -> list[tuple[int, Completion]]:
        """Answer one batch of what is waiting, oldest first."""
        batch, self._pending = self._pending[: self.rows], self._pending[self.rows :]
        completions = self.generate([ask for _, ask, _ in batch], [seed for _, _, seed in batch])
        return [(ticket, done) for (ticket, _, _), done in zip(batch, completions, strict=True)]

    def _request(self, place: int, ask: Ask, seed: int) -> Request:
        if self.team is None:
            raise TeamtuneError("the engine has no team yet; call adopt(team) first")
        agent = self.team[ask.agent]
        adapter = BASE if agent.adapter is None else self._adapters[agent.adapter]
        return request_of(place, ask, agent, adapter, self.renderer, self.context, seed)

    def close(self) -> None:
        """Nothing to give back: the model goes when nobody holds it."""

    def _run(self, batch: Sequence[Request]) -> list[Completion]:
        names = {request.adapter for request in batch}
        decode = Decoder(self.model, self.stops, self.pad, mixed=self._mixed(names))
        alone = isinstance(self.model, PeftModel) and names == {BASE}
        with self.model.disable_adapter() if alone else nullcontext():
            found = decode(batch)
        return [completion_of(r, *ids, self.stops, self.tokenizer) for r, ids in zip(batch, found, strict=True)]

    def _mixed(self, names: set[str]) -> bool:
        """Whether PEFT must route row by row. One adapter for all rows, or none, takes the plain path: it is faster."""
        if not isinstance(self.model, PeftModel) or names == {BASE}:
            return False
        if len(names) == 1:
            self.model.set_adapter(next(iter(names)))
            return False
        return self._mixes


def batched(requests: Sequence[Request], rows: int, tokens: int = TOKENS, mix: bool = True) -> Iterator[list[Request]]:
    """Batches of prompts of about one length, of one adapter where that fills a batch, mixed where it does not."""
    mixed: list[Request] = []
    for adapter in sorted({request.adapter for request in requests}):
        own = sorted((r for r in requests if r.adapter == adapter), key=lambda r: (len(r.prompt), r.place))
        whole = len(own) if len(own) * 4 >= rows or not mix else 0
        yield from _by_length(own[:whole], rows, tokens)
        mixed += own[whole:]
    yield from _by_length(sorted(mixed, key=lambda r: (len(r.prompt), r.place)), rows, tokens)


def _by_length(requests: Sequence[Request], rows: int, tokens: int) -> Iterator[list[Request]]:
    """Sorted requests cut where a batch is full or a prompt is clearly longer than the batch's first."""
    batch: list[Request] = []
    answer = 0
    for request in requests:
        answer = max(answer, request.limit)
        full = len(batch) == rows or (len(batch) + 1) * (len(request.prompt) + answer) > tokens
        if batch and (full or len(request.prompt) > SLACK * len(batch[0].prompt) + 16):
            yield batch
            batch, answer = [], request.limit
        batch.append(request)
    if batch:
        yield batch
