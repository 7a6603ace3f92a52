"""Answers scored under other agents of the team: for measures of how far agents have come apart.

One row, an answer of critic-1 under critic-2, one number a token of the answer:

    {"problem": "p", "take": 0, "turn": 6, "agent": "critic-1", "under": "critic-2", "logprobs": [-0.1, -1.3, ...]}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import torch

from teamtune.engines.render import Renderer
from teamtune.models import told_when_full
from teamtune.store import Counted
from teamtune.train.examples import Example
from teamtune.train.fit import packed
from teamtune.train.objective import Item, forward
from teamtune.train.team import Lora, TeamModel
from teamtune.types import Message, Row, Team

Given = Literal["turn", "question"]
"""What stands before an answer when it is scored: all that its author was shown, or the question alone."""


@torch.no_grad()
def score_turns(
    turns: Sequence[Row], team: Team, under: Sequence[str], given: Given = "question", tokens: int = 16_384
) -> Counted:
    """Every turn under every agent of `under`, in the order of turns and agents.

    Turns that have no ids, or no text, are left out and counted. A seat without an adapter scores as the base.
    """
    model = TeamModel.open(team, list(under), Lora(rank=1, alpha=1))  # a new adapter adds nothing
    renderer = Renderer(model.tokenizer, team.model)
    scored = [turn for turn in turns if turn["token_ids"]]
    examples = [Example(_before(turn, given, renderer), list(turn["token_ids"])) for turn in scored]
    items = [
        Item(name, number * len(under) + place, example)
        for number, example in enumerate(examples)
        for place, name in enumerate(under)
    ]
    found: dict[int, list[float]] = {}
    for micro in packed(items, tokens, model.mixes):
        with told_when_full(f"{len(micro)} answers to score", "score fewer tokens at once"):
            logprobs, mask = forward(model, [(item.agent, item.data) for item in micro])  # type: ignore[misc]
        for item, row, own in zip(micro, logprobs, mask, strict=True):
            found[item.number] = row[own].tolist()
    rows: list[Row] = []
    for number, turn in enumerate(scored):
        place = {name: turn[name] for name in ("problem", "take", "turn", "agent")}
        rows += [{**place, "under": n, "logprobs": found[number * len(under) + i]} for i, n in enumerate(under)]
    without = Counter({"turns without ids": len(turns) - len(scored)})
    return Counted(rows, without if len(scored) < len(turns) else {})


def _before(turn: Row, given: Given, renderer: Renderer) -> list[int]:
    if given == "turn" and turn["prompt_ids"] is not None:
        return list(turn["prompt_ids"])
    messages = [Message(message["role"], message["content"]) for message in turn["messages"]]
    if given == "question":
        asked = next(place for place, message in enumerate(messages) if message.role == "user")
        messages = messages[: asked + 1]
    return renderer.prompt(messages)
