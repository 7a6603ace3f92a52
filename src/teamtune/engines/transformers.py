"""The embedded engine: transformers' own `generate`, on a CPU or a GPU.

Asks are batched across problems, agents and siblings, with prompts of about one length in a batch, so that no short
ask is padded to a long one's length. A batch may hold different adapters (PEFT's `adapter_names`). Sampling is seeded
row by row (`sampling.py`) and does not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from teamtune.engines.render import Renderer, check_adapter, stop_ids
from teamtune.engines.sampling import RowSampling, choose, uniforms
from teamtune.types import Ask, Completion, Sampling, Team, TeamtuneError

BASE = "__base__"  # PEFT's name for "no adapter" in a mixed batch
SLACK = 1.25  # in one batch the longest prompt is at most this much (and 16 ids) longer than the shortest


@dataclass(frozen=True, slots=True)
class Request:
    """One ask, ready to generate."""

    place: int
    adapter: str
    prompt: list[int]
    limit: int
    sampling: Sampling
    seed: int


class Sampler(LogitsProcessor):
    """Chooses each row's token and notes its log-probability; `generate` then takes the one choice left."""

    def __init__(self, requests: Sequence[Request], device: torch.device):
        longest = max(request.limit for request in requests)
        self.uniforms = uniforms([request.seed for request in requests], longest).to(device)
        self.options = RowSampling.of([request.sampling for request in requests], device)
        self.logprobs: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        chosen = choose(scores, self.uniforms[:, len(self.logprobs)], self.options)[:, None]
        self.logprobs.append(scores.float().log_softmax(-1).gather(-1, chosen).squeeze(-1))
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen, 0.0)


class RowLimits(StoppingCriteria):
    """Ends each row at its own limit."""

    def __init__(self, prompt_length: int, limits: torch.Tensor):
        self.prompt_length, self.limits = prompt_length, limits

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:  # type: ignore[override]
        return self.limits <= input_ids.shape[1] - self.prompt_length


class TransformersEngine:
    """Generates with a model that is in memory. `rows` bounds a batch; more rows are faster and take more memory."""

    def __init__(self, model: Any, tokenizer: Any, name: str = "model", rows: int = 256):
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.renderer = Renderer(tokenizer, name)
        self.rows = rows
        self.stops = stop_ids(model, tokenizer)
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.stops[0]
        self.team: Team | None = None
        self._pending: list[tuple[int, Ask, int]] = []
        self._adapters: dict[str, str] = {}

    def adopt(self, team: Team) -> None:
        """Load the adapters of the team that are new; a path that was loaded before is not read again."""
        for agent in team.agents:
            if agent.adapter is None or agent.adapter in self._adapters:
                continue
            folder = check_adapter(agent.adapter)
            name = f"a{len(self._adapters)}"
            if isinstance(self.model, PeftModel):
                self.model.load_adapter(str(folder), adapter_name=name)
            else:
                self.model = PeftModel.from_pretrained(self.model, str(folder), adapter_name=name)
            self.model.eval()
            self._adapters[agent.adapter] = name
        self.team = team

    def generate(self, asks: Sequence[Ask], seeds: Sequence[int]) -> list[Completion]:
        requests = [self._request(i, ask, seed) for i, (ask, seed) in enumerate(zip(asks, seeds, strict=True))]
        done: list[Completion | None] = [None] * len(requests)
        for batch in batched(requests, self.rows):
            for request, completion in zip(batch, self._run(batch), strict=True):
                done[request.place] = completion
        return [completion for completion in done if completion is not None]

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
        prompt = self.renderer.prompt(ask.messages)
        room = getattr(self.model.config, "max_position_embeddings", 1 << 30) - len(prompt)
        if room < 1:
            raise TeamtuneError(
                f"the prompt of agent {ask.agent!r} has {len(prompt)} tokens, more than the model's context; "
                "lower max_tokens or the number of answers shown"
            )
        adapter = BASE if agent.adapter is None else self._adapters[agent.adapter]
        return Request(place, adapter, prompt, min(agent.sampling.max_tokens, room), agent.sampling, seed)

    @torch.inference_mode()
    def _run(self, batch: Sequence[Request]) -> list[Completion]:
        device = self.model.device
        longest = max(len(request.prompt) for request in batch)
        ids = torch.full((len(batch), longest), self.pad)
        mask = torch.zeros_like(ids)
        for row, request in enumerate(batch):
            ids[row, longest - len(request.prompt) :] = torch.tensor(request.prompt)
            mask[row, longest - len(request.prompt) :] = 1
        sampler = Sampler(batch, device)
        limits = torch.tensor([request.limit for request in batch], device=device)
        sampled = self.model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            generation_config=self._greedy(int(limits.max())),
            logits_processor=LogitsProcessorList([sampler]),
            stopping_criteria=StoppingCriteriaList([RowLimits(longest, limits)]),
            **self._adapter_arguments(batch),
        )
        texts = sampled[:, longest:].tolist()
        logprobs = torch.stack(sampler.logprobs, dim=1).tolist()
        return [self._completion(*row) for row in zip(batch, texts, logprobs, strict=True)]

    def _greedy(self, longest: int) -> Any:
        """Our sampler decides; nothing of the model's own generation settings may interfere."""
        from transformers import GenerationConfig

        return GenerationConfig(
            do_sample=False, max_new_tokens=longest, eos_token_id=self.stops, pad_token_id=self.pad, use_cache=True
        )

    def _adapter_arguments(self, batch: Sequence[Request]) -> dict[str, Any]:
        if not isinstance(self.model, PeftModel):
            return {}
        names = [request.adapter for request in batch]
        if len(set(names)) == 1 and names[0] != BASE:
            # One adapter for all rows: the plain path is faster than a mixed batch.
            self.model.set_adapter(names[0])
            return {}
        return {"adapter_names": names}

    def _completion(self, request: Request, ids: list[int], logprobs: list[float]) -> Completion:
        end = next((i + 1 for i, token in enumerate(ids[: request.limit]) if token in self.stops), None)
        length = request.limit if end is None else end
        kept = ids[:length]
        text = self.tokenizer.decode(kept if end is None else kept[:-1], skip_special_tokens=True)
        finish = "length" if end is None else "stop"
        return Completion(text, finish, tuple(request.prompt), tuple(kept), tuple(logprobs[:length]))


def batched(requests: Sequence[Request], rows: int) -> Iterator[list[Request]]:
    """Batches of prompts of about one length, of one adapter where that fills a batch, mixed where it does not."""
    mixed: list[Request] = []
    for adapter in sorted({request.adapter for request in requests}):
        own = sorted((r for r in requests if r.adapter == adapter), key=lambda r: (len(r.prompt), r.place))
        whole = len(own) if len(own) * 4 >= rows else 0
        yield from _by_length(own[:whole], rows)
        mixed += own[whole:]
    yield from _by_length(sorted(mixed, key=lambda r: (len(r.prompt), r.place)), rows)


def _by_length(requests: Sequence[Request], rows: int) -> Iterator[list[Request]]:
    """Sorted requests cut where a batch is full or a prompt is clearly longer than the batch's first."""
    batch: list[Request] = []
    for request in requests:
        if batch and (len(batch) == rows or len(request.prompt) > SLACK * len(batch[0].prompt) + 16):
            yield batch
            batch = []
        batch.append(request)
    if batch:
        yield batch
