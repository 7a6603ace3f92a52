"""A learned scorer (MAPoRL's verifier): how likely an answer is right, without a gold answer.

scorer = LearnedScorer.open("house", "runs/scorer/scorer")
scorer([ask])                 # [0.873]; the ask's last message is the answer, what stands before it the question

Its folder holds an adapter and a head; a score is what the head says at the answer's last token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from teamtune.adapters import attach, check_adapter
from teamtune.engines.render import Renderer
from teamtune.models import load_model, told_when_full
from teamtune.train.examples import Example
from teamtune.train.forward import batch_of, scored
from teamtune.train.heads import HEAD_FILE, Head
from teamtune.train.objective import Item
from teamtune.train.packing import packed
from teamtune.train.team import TeamModel
from teamtune.types import SCORER, Ask, Completion, Message, Team, TeamtuneError


class LearnedScorer:
    """Scores answers with an adapter and a head on a model that is in memory; an engine for the scorer's seat."""

    def __init__(self, model: TeamModel, name: str = SCORER, tokens: int = 16_384):
        self.model, self.name, self.tokens = model, name, tokens
        self.renderer = Renderer(model.tokenizer, "the scorer's base")
        self._pending: list[tuple[int, Ask]] = []

    @staticmethod
    def open(base: str, folder: str, dtype: str = "auto") -> LearnedScorer:
        """The scorer in a folder, on a base of its own in memory. Raises TeamtuneError where it is none."""
        model, tokenizer = load_model(base, dtype)
        return LearnedScorer.beside(model, tokenizer, folder)

    @staticmethod
    def beside(model: Any, tokenizer: Any, folder: str | None) -> LearnedScorer:
        """The scorer in a folder, on a base that is in memory already."""
        if folder is None:
            raise TeamtuneError("the scorer's seat has no adapter; train one with `teamtune scorer train`")
        check_scorer(folder)
        peft = attach(model, folder, SCORER)
        head = Head.open(folder, peft.config.get_text_config().hidden_size, peft.device)
        return LearnedScorer(TeamModel(peft, tokenizer, [SCORER], {SCORER: head}))

    @torch.no_grad()
    def __call__(self, asks: Sequence[Ask]) -> list[float]:
        """The score of every ask's last message as an answer to the messages before it."""
        different = list(dict.fromkeys(ask.messages for ask in asks))
        examples = [self._example(messages) for messages in different]
        found: dict[tuple[Message, ...], float] = {}
        for micro in packed([Item(self.name, n, one) for n, one in enumerate(examples)], self.tokens):
            batch: list[Example] = [item.data for item in micro]  # type: ignore[misc]
            with told_when_full(f"{len(batch)} answers to score", "score fewer tokens at once"):
                values = scored(self.model, [self.name] * len(batch), *batch_of(self.model, batch)).sigmoid()
            last = [float(values[row, len(one) - 1]) for row, one in enumerate(batch)]
            found |= {different[item.number]: score for item, score in zip(micro, last, strict=True)}
        return [found[ask.messages] for ask in asks]

    def _example(self, messages: Sequence[Message]) -> Example:
        answer = self.model.tokenizer(messages[-1].content, add_special_tokens=False)["input_ids"]
        return Example(self.renderer.prompt(messages[:-1]), list(answer))

    # As an engine. Scores are written with eight digits, which is all that a play sees of them.

    def adopt(self, team: Team) -> None:
        pass

    def generate(self, asks: Sequence[Ask], seeds: Sequence[int]) -> list[Completion]:
        return [Completion(f"{score:.8f}") for score in self(asks)]

    def close(self) -> None:
        pass

    def submit(self, ticket: int, ask: Ask, seed: int) -> None:
        self._pending.append((ticket, ask))

    def poll(self) -> list[tuple[int, Completion]]:
        waiting, self._pending = self._pending, []
        done = self.generate([ask for _, ask in waiting], [0] * len(waiting))
        return list(zip([ticket for ticket, _ in waiting], done, strict=True))


def check_scorer(folder: str) -> None:
    """Raises TeamtuneError where a folder holds no scorer, before work begins that needs it."""
    if not (check_adapter(folder) / HEAD_FILE).exists():
        raise TeamtuneError(
            f"{folder!r} has no {HEAD_FILE}, so it is no scorer; train one with `teamtune scorer train`"
        )
