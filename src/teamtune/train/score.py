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
from jaxtyping import Float
from torch import Tensor

from teamtune.engines.render import Renderer
from teamtune.models import told_when_full
from teamtune.store import Counted
from teamtune.train.examples import Example
from teamtune.train.forward import at_targets, batch_of
from teamtune.train.objective import Item
from teamtune.train.packing import micro_tokens, packed
from teamtune.train.team import Lora, TeamModel
from teamtune.types import Message, Row, Team, TeamtuneError

Given = Literal["turn", "question"]
"""What stands before an answer when it is scored: all that its author was shown, or the question alone."""
MOST_LOGITS = 2**28
"""log-probabilities that a batch may make; those of its author and of one other agent are held at a time"""


@torch.no_grad()
def score_turns(
    turns: Sequence[Row], team: Team, under: Sequence[str], given: Given = "question", tokens: int = 0
) -> Counted:
    """Every turn under every agent of `under`, in the order of turns and agents; `tokens` ids at a time, padding
    included, or the device's own.

    Turns that have no ids, or no text, are left out and counted. A seat without an adapter scores as the base.
    """
    scored = [turn for turn in turns if turn["token_ids"]]
    seats = sorted({turn["agent"] for turn in scored} | set(under))
    first = {team[name].adapter: name for name in reversed(seats)}
    voice = {name: first[team[name].adapter] for name in seats}  # seats of one adapter say the same
    # A new adapter adds nothing, so whoever has none is the base.
    model = TeamModel.open(team, sorted(first.values()), Lora(rank=1, alpha=1, bits=team.bits))
    renderer = Renderer(model.tokenizer, team.model)
    most = MOST_LOGITS // model.model.config.get_text_config().vocab_size
    tokens = min(tokens or micro_tokens(model.device.type == "cpu", checkpoint=False), most)
    items = [
        Item(voice[turn["agent"]], number, Example(_before(turn, given, renderer), list(turn["token_ids"])))
        for number, turn in enumerate(scored)
    ]
    judges = sorted({voice[name] for name in under})
    found: dict[tuple[int, str], Row] = {}
    for micro in packed(items, tokens, model.mixes):
        found |= _in_parts(model, micro, judges)
    rows: list[Row] = []
    for number, turn in enumerate(scored):
        place = {name: turn[name] for name in ("problem", "take", "turn", "agent")}
        rows += [{**place, "under": name, **found[number, voice[name]]} for name in under]
    without = Counter({"turns without ids": len(turns) - len(scored)})
    return Counted(rows, without if len(scored) < len(turns) else {})


def _in_parts(model: TeamModel, micro: Sequence[Item], judges: Sequence[str]) -> dict[tuple[int, str], Row]:
    """`_score`, of half of them at a time where memory is full."""
    try:
        with told_when_full(f"{len(micro)} answers to score", "take a smaller model, or leave this measure out"):
            return _score(model, micro, judges)
    except TeamtuneError:
        if len(micro) == 1:
            raise
    half = len(micro) // 2
    return _in_parts(model, micro[:half], judges) | _in_parts(model, micro[half:], judges)


def _score(model: TeamModel, micro: Sequence[Item], judges: Sequence[str]) -> dict[tuple[int, str], Row]:
    ids, mask = batch_of(model, [item.data for item in micro])  # type: ignore[misc]
    authors = [item.agent for item in micro]
    lengths = mask.sum(-1).tolist()

    def distributions(agents: Sequence[str]) -> Float[Tensor, "tokens vocabulary"]:
        """Log-probabilities at the answers' tokens, row by row."""
        return at_targets(model, ids, agents, mask, lambda logits, *_: logits.float().log_softmax(-1))

    said = ids[mask][:, None]
    own = distributions(authors)
    mine = own.gather(-1, said).squeeze(-1).split(lengths)
    found: dict[tuple[int, str], Row] = {}
    for name in judges:
        other = own if set(authors) == {name} else distributions([name] * len(micro))
        theirs = other.gather(-1, said).squeeze(-1).split(lengths)
        apart = (own.exp() * (own - other)).sum(-1).split(lengths)
        for item, *told in zip(micro, mine, theirs, apart, strict=True):
            kl = max(0.0, float(told[2].mean()))
            found[item.number, name] = {"own": told[0].tolist(), "logprobs": told[1].tolist(), "kl": kl}
    return found


def _before(turn: Row, given: Given, renderer: Renderer) -> list[int]:
    if given == "turn" and turn["prompt_ids"] is not None:
        return list(turn["prompt_ids"])
    messages = [Message(message["role"], message["content"]) for message in turn["messages"]]
    if given == "question":
        asked = next(place for place, message in enumerate(messages) if message.role == "user")
        messages = messages[: asked + 1]
    return renderer.prompt(messages)
