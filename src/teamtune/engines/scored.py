"""An engine with a scorer beside it: asks to the scorer's seat are answered with a number, all others by the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from teamtune.play import Engine, RollingEngine
from teamtune.types import SCORER, Ask, Completion, Team

Scorer = Callable[[Sequence[Ask]], list[float]]
"""From asks (a question, and the answer to it) to how likely each answer is right, in [0, 1]."""


class Scored:
    """Routes asks by their seat. Scores are written with eight digits, which is all that a play sees of them."""

    def __init__(self, engine: Engine | RollingEngine, scorer: Scorer):
        self.engine, self.scorer = engine, scorer
        self._pending: list[tuple[int, Ask]] = []

    def adopt(self, team: Team) -> None:
        self.engine.adopt(replace(team, agents=tuple(agent for agent in team.agents if agent.name != SCORER)))

    def generate(self, asks: Sequence[Ask], seeds: Sequence[int]) -> list[Completion]:
        to_score = [i for i, ask in enumerate(asks) if ask.agent == SCORER]
        others = [i for i, ask in enumerate(asks) if ask.agent != SCORER]
        done: dict[int, Completion] = {}
        if others:
            answers = self.engine.generate([asks[i] for i in others], [seeds[i] for i in others])
            done |= dict(zip(others, answers, strict=True))
        if to_score:
            done |= dict(zip(to_score, self._scores([asks[i] for i in to_score]), strict=True))
        return [done[i] for i in range(len(asks))]

    def submit(self, ticket: int, ask: Ask, seed: int) -> None:
        if ask.agent == SCORER:
            self._pending.append((ticket, ask))
        else:
            self.engine.submit(ticket, ask, seed)  # type: ignore[union-attr]

    def poll(self) -> list[tuple[int, Completion]]:
        """Scores as soon as there is something to score; else what the engine has."""
        if not self._pending:
            return self.engine.poll()  # type: ignore[union-attr]
        waiting, self._pending = self._pending, []
        return list(zip([t for t, _ in waiting], self._scores([ask for _, ask in waiting]), strict=True))

    def _scores(self, asks: Sequence[Ask]) -> list[Completion]:
        return [Completion(f"{score:.8f}") for score in self.scorer(asks)]
