"""Answers scored under other agents of the team: for measures of how far agents have come apart.

One row, an answer of critic-1 under critic-2: its log-probability under either, one number a token, and the divergence
KL(critic-1 || critic-2) over the whole vocabulary, a token of the answer:

    {"problem": "p", "take": 0, "turn": 6, "agent": "critic-1", "under": "critic-2", "own": [-0.1, -0.9, ...],
     "logprobs": [-0.1, -1.3, ...], "kl": 0.21}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import torch
from torch.nn import functional as F

from teamtune.engines.render import Renderer
from teamtune.models import told_when_full
from teamtune.store import Counted
from teamtune.train.examples import Example
from teamtune.train.forward import batch_of
from teamtune.train.losses import token_logprobs
from teamtune.train.objective import Item
from teamtune.train.packing import packed
from teamtune.train.team import Lora, TeamModel
from teamtune.types import Message, Row, Team

Given = Literal["turn", "question"]
"""What stands before an answer when it is scored: all that its author was shown, or the question alone."""
MOST_LOGITS = 2**28
"""entries of one forward pass's logits; two of them are held at a time"""


@torch.no_grad()
def score_turns(
    turns: Sequence[Row], team: Team, under: Sequence[str], given: Given = "question", tokens: int = 16_384
) -> Counted:
    """Every turn under every agent of `under`, in the order of turns and agents.

    Turns that have no ids, or no text, are left out and counted. A seat without an adapter scores as the base.
    """
    scored = [turn for turn in turns if turn["token_ids"]]
    authors = {turn["agent"] for turn in scored}
    # A new adapter adds nothing, so whoever has none is the base.
    model = TeamModel.open(team, sorted(authors | set(under)), Lora(rank=1, alpha=1))
    renderer = Renderer(model.tokenizer, team.model)
    tokens = min(tokens, MOST_LOGITS // model.model.config.get_text_config().vocab_size)
    items = [
        Item(turn["agent"], number, Example(_before(turn, given, renderer), list(turn["token_ids"])))
        for number, turn in enumerate(scored)
    ]
    found: dict[tuple[int, str], Row] = {}
    for micro in packed(items, tokens, model.mixes):
        with told_when_full(f"{len(micro)} answers to score", "score fewer tokens at once"):
            found |= _score(model, micro, under)
    rows: list[Row] = []
    for number, turn in enumerate(scored):
        place = {name: turn[name] for name in ("problem", "take", "turn", "agent")}
        rows += [{**place, "under": name, **found[number, name]} for name in under]
    without = Counter({"turns without ids": len(turns) - len(scored)})
    return Counted(rows, without if len(scored) < len(turns) else {})


def _score(model: TeamModel, micro: Sequence[Item], under: Sequence[str]) -> dict[tuple[int, str], Row]:
    ids, mask = batch_of(model, [item.data for item in micro])  # type: ignore[misc]
    authors = [item.agent for item in micro]
    own = model(ids, authors).float()
    mine = token_logprobs(own, ids)
    own = own.log_softmax(-1)
    found: dict[tuple[int, str], Row] = {}
    for name in under:
        other = model(ids, [name] * len(micro)).float()
        theirs = token_logprobs(other, ids)
        apart = (own.exp() * (own - other.log_softmax(-1))).sum(-1)
        apart = F.pad(apart[:, :-1], (1, 0))  # the logits at a token predict the next one
        for row, item in enumerate(micro):
            here = mask[row]
            said = {"own": mine[row, here].tolist(), "logprobs": theirs[row, here].tolist()}
            found[item.number, name] = said | {"kl": max(0.0, float(apart[row, here].mean()))}
    return found


def _before(turn: Row, given: Given, renderer: Renderer) -> list[int]:
    if given == "turn" and turn["prompt_ids"] is not None:
        return list(turn["prompt_ids"])
    messages = [Message(message["role"], message["content"]) for message in turn["messages"]]
    if given == "question":
        asked = next(place for place, message in enumerate(messages) if message.role == "user")
        messages = messages[: asked + 1]
    return renderer.prompt(messages)
