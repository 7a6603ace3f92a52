"""A trained adapter's proof: what it answers to fixed questions, so that any engine that loads it can be checked.

    verifier/proof.json   {"answers": [{"question": "What is 12 + 30?", "ids": [21, 9, ...], "logprobs": [-0.1, ...],
                           "near": [{"21": -0.1}, {"9": -0.8, "14": -1.1}, ...], "base": [-2.3, ...],
                           "bare": {"ids": [21, 8, ...], "logprobs": [...], "near": [...], "adapter": [...]}}, ...]}

`ids` are the most likely answer under the adapter, as training computes it, `logprobs` what the adapter gives to it,
`near` what is nearly as likely at each place, and `base` what the frozen base gives to the answer. `bare` is the same
the other way round: the base's answer, which a seat without an adapter must give beside this one. An adapter that
learned little differs from the base on some texts alone, so there are several questions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from teamtune.engines.render import Renderer
from teamtune.models import context_of
from teamtune.train import processes
from teamtune.train.examples import Example
from teamtune.train.forward import batch_of, logprobs
from teamtune.train.team import TeamModel
from teamtune.types import Message

QUESTIONS = (
    "What is 12 + 30?",
    "Say something about the sea.",
    "Is 7 * 8 = 54 right or wrong, and why?",
)
"""short, and open: weights differ most where no token is certain"""
LENGTH = 12
FILE = "proof.json"
NEAR = 1.0
"""nats below the most likely token, up to which rounding in another engine may put another in its place"""
MOST_NEAR = 64
"""tokens that are kept as near at one place; untrained models find their whole vocabulary near"""


@torch.no_grad()
def prove(model: TeamModel, folders: Mapping[str, Path]) -> None:
    """Write the proofs of agents' adapters beside them. The base answers once for all. All processes find the answers,
    as a sharded model needs; one writes."""
    renderer = Renderer(model.tokenizer, "the base")
    asked = {question: renderer.prompt([Message("user", question)]) for question in QUESTIONS}
    most = max(context_of(model.model.config), min(map(len, asked.values())) + LENGTH)
    asked = {question: prompt for question, prompt in asked.items() if len(prompt) + LENGTH <= most}
    prompts = list(asked.values())
    closing = (renderer.closing, model.tokenizer.eos_token_id)
    bare = answers(model, prompts, None, closing)
    for agent, folder in folders.items():
        own = answers(model, prompts, agent, closing)
        base = likelihoods(model, prompts, [one["ids"] for one in own], None)
        adapter = likelihoods(model, prompts, [one["ids"] for one in bare], agent)
        rows = zip(asked, own, base, bare, adapter, strict=True)
        found = [{"question": q, **o, "base": b, "bare": {**r, "adapter": a}} for q, o, b, r, a in rows]
        if processes.is_main():
            (folder / FILE).write_text(json.dumps({"answers": found}))


def answers(
    model: TeamModel, prompts: Sequence[list[int]], agent: str | None, closing: Sequence[int]
) -> list[dict[str, Any]]:
    """The most likely answer of an agent to each prompt, None being the base, and how likely it is. All are in one
    batch to the end; what comes after an answer has closed is cut off."""
    ids: list[list[int]] = [[] for _ in prompts]
    near: list[list[dict[int, float]]] = [[] for _ in prompts]
    for _ in range(LENGTH):
        tokens, _ = batch_of(model, [Example(*row) for row in zip(prompts, ids, strict=True)])
        last = [len(prompt) + len(own) - 1 for prompt, own in zip(prompts, ids, strict=True)]
        states = model.states(tokens, weights_of(agent, len(prompts)))[range(len(prompts)), last]
        likely = model.logits(states).float().log_softmax(-1)
        best = likely.topk(min(MOST_NEAR, likely.shape[-1]))
        for row, (places, values) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True)):
            ids[row].append(places[0])
            near[row].append({p: value for p, value in zip(places, values, strict=True) if value >= values[0] - NEAR})
    ends = [next((n for n, one in enumerate(own, start=1) if one in closing), LENGTH) for own in ids]
    ids = [own[:end] for own, end in zip(ids, ends, strict=True)]
    rows = zip(ids, near, ends, likelihoods(model, prompts, ids, agent), strict=True)
    return [{"ids": own, "near": beside[:end], "logprobs": told} for own, beside, end, told in rows]


def likelihoods(
    model: TeamModel, prompts: Sequence[list[int]], ids: Sequence[list[int]], agent: str | None
) -> list[list[float]]:
    """The log-probabilities that an agent gives to an answer of each prompt."""
    tokens, mask = batch_of(model, [Example(*row) for row in zip(prompts, ids, strict=True)])
    found = logprobs(model, tokens, weights_of(agent, len(prompts)), mask)
    return [row[own].tolist() for row, own in zip(found, mask, strict=True)]


def weights_of(agent: str | None, rows: int) -> list[str] | None:
    """Whose weights a batch is computed with."""
    return None if agent is None else [agent] * rows
