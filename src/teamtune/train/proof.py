"""A trained adapter's proof: what it answers to a fixed question, so that any engine that loads it can be checked.

    verifier/proof.json   {"question": "What is 12 + 30?", "ids": [21, 9, ...], "logprobs": [-0.1, ...], "base": [...]}

`ids` are the most likely answer under the adapter, as training computes it, `logprobs` what it gives them, `base` what
the frozen base gives them.
"""

from __future__ import annotations

import json
from pathlib import Path

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


@torch.no_grad()
def prove(model: TeamModel, agent: str, folder: Path) -> None:
    """Write the proof of an agent's adapter beside it; all processes find it, as a sharded model needs, one writes."""
    renderer = Renderer(model.tokenizer, "the base")
    prompt = renderer.prompt([Message("user", QUESTION)])
    ids: list[int] = []
    while len(ids) < LENGTH and (not ids or ids[-1] not in (renderer.closing, model.tokenizer.eos_token_id)):
        whole = torch.tensor([[*prompt, *ids]], device=model.device)
        ids.append(int(model.logits(model.states(whole, [agent])[:, -1]).argmax()))
    tokens, mask = batch_of(model, [Example(prompt, ids)])
    own, base = (logprobs(model, tokens, who, mask)[mask].tolist() for who in ([agent], None))
    found = {"question": QUESTION, "ids": ids, "logprobs": own, "base": base}
    if processes.is_main():
        (folder / FILE).write_text(json.dumps(found))
