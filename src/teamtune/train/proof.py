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


@torch.no_grad()
def prove(model: TeamModel, agent: str, folder: Path) -> None:
    """Write the proof of an agent's adapter beside it; all processes find it, as a sharded model needs, one writes."""
    prompt = Renderer(model.tokenizer, "the base").prompt([Message("user", QUESTION)])
    own, base = answer(model, prompt, agent, other=None)
    bare, adapter = answer(model, prompt, None, other=agent)
    found = {"question": QUESTION, **own, "base": base, "bare": {**bare, "adapter": adapter}}
    if processes.is_main():
        (folder / FILE).write_text(json.dumps(found))


def answer(
    model: TeamModel, prompt: list[int], agent: str | None, other: str | None
) -> tuple[dict[str, Any], list[float]]:
    """The most likely answer of an agent, None being the base, and the log-probabilities that another gives to it."""
    closing = (Renderer(model.tokenizer, "the base").closing, model.tokenizer.eos_token_id)
    ids: list[int] = []
    near: list[dict[int, float]] = []
    while len(ids) < LENGTH and (not ids or ids[-1] not in closing):
        whole = torch.tensor([[*prompt, *ids]], device=model.device)
        [likely] = model.logits(model.states(whole, told(agent))[:, -1]).float().log_softmax(-1)
        ids.append(int(likely.argmax()))
        near.append({int(i): float(likely[i]) for i in (likely >= likely.max() - NEAR).nonzero()})
    tokens, mask = batch_of(model, [Example(prompt, ids)])
    own, others = (logprobs(model, tokens, told(who), mask)[mask].tolist() for who in (agent, other))
    return {"ids": ids, "near": near, "logprobs": own}, others


def told(agent: str | None) -> list[str] | None:
    """Whose weights a batch of one row is computed with."""
    return None if agent is None else [agent]
