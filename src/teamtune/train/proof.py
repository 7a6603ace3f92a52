"""A trained adapter's proof: what it answers to a fixed question, so that any engine that loads it can be checked.

    verifier/proof.json   {"question": "What is 12 + 30?", "ids": [21, 9, ...], "logprobs": [-0.1, -0.8, ...],
                           "near": [{"21": -0.1}, {"9": -0.8, "14": -1.1}, ...], "base": [-2.3, ...],
                           "bare": {"ids": [21, 8, ...], "logprobs": [...], "near": [...], "adapter": [...]}}

`ids` are the most likely answer under the adapter, as training computes it, `logprobs` what the adapter gives to it,
`near` what is nearly as likely at each place, and `base` what the frozen base gives to the answer. `bare` is the same
the other way round: the base's answer, which a seat without an adapter must give beside this one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from teamtune.engines.render import Renderer
from teamtune.train import processes
from teamtune.train.examples import Example
from teamtune.train.forward import batch_of, logprobs
from teamtune.train.team import TeamModel
from teamtune.types import Message

QUESTION = "What is 12 + 30?"
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
    prompt = renderer.prompt([Message("user", QUESTION)])
    closing = (renderer.closing, model.tokenizer.eos_token_id)
    bare = answer(model, prompt, None, closing)
    for agent, folder in folders.items():
        own = answer(model, prompt, agent, closing)
        found = {"question": QUESTION, **own, "base": likelihood(model, prompt, own["ids"], None)}
        found["bare"] = {**bare, "adapter": likelihood(model, prompt, bare["ids"], agent)}
        if processes.is_main():
            (folder / FILE).write_text(json.dumps(found))


def answer(model: TeamModel, prompt: list[int], agent: str | None, closing: Sequence[int]) -> dict[str, Any]:
    """The most likely answer of an agent, None being the base, and how likely it is."""
    ids: list[int] = []
    near: list[dict[int, float]] = []
    while len(ids) < LENGTH and (not ids or ids[-1] not in closing):
        whole = torch.tensor([[*prompt, *ids]], device=model.device)
        [likely] = model.logits(model.states(whole, weights_of(agent))[:, -1]).float().log_softmax(-1)
        best = likely.topk(min(MOST_NEAR, len(likely)))
        found = dict(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        ids.append(next(iter(found)))
        near.append({token: value for token, value in found.items() if value >= found[ids[-1]] - NEAR})
    return {"ids": ids, "near": near, "logprobs": likelihood(model, prompt, ids, agent)}


def likelihood(model: TeamModel, prompt: list[int], ids: list[int], agent: str | None) -> list[float]:
    """The log-probabilities that an agent gives to an answer."""
    tokens, mask = batch_of(model, [Example(prompt, ids)])
    return logprobs(model, tokens, weights_of(agent), mask)[mask].tolist()


def weights_of(agent: str | None) -> list[str] | None:
    """Whose weights a batch of one row is computed with."""
    return None if agent is None else [agent]
