"""Several engines as one: every seat has its own. For a scorer beside the agents, and for agents on different bases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from teamtune.play import Engine, RollingEngine
from teamtune.types import Ask, Completion, Team, TeamtuneError


def joined(seats: Mapping[str, Engine]) -> Engine:
    """The engine of all seats: their own where they share one."""
    routed = Routed(seats)
    return routed if len(routed.engines) > 1 else routed.engines[0]


class Routed:
    """Sends each ask to the engine of its seat. Each engine adopts the seats that are its own."""

    def __init__(self, seats: Mapping[str, Engine | RollingEngine]):
        self.seats = dict(seats)
        self.engines: list[Engine | RollingEngine] = list({id(one): one for one in seats.values()}.values())
        self._waiting: Counter[int] = Counter()

    def adopt(self, team: Team) -> None:
        for engine in self.engines:
            own = tuple(agent for agent in team.agents if self._of(agent.name) is engine)
            if own:
                engine.adopt(replace(team, model=team.model_of(own[0]), agents=own))

    def generate(self, asks: Sequence[Ask], seeds: Sequence[int]) -> list[Completion]:
        done: dict[int, Completion] = {}
        for engine in self.engines:
            own = [i for i, ask in enumerate(asks) if self._of(ask.agent) is engine]
            answers = engine.generate([asks[i] for i in own], [seeds[i] for i in own]) if own else []
            done |= dict(zip(own, answers, strict=True))
        return [done[i] for i in range(len(asks))]

    def close(self) -> None:
        for engine in self.engines:
            engine.close()

    def submit(self, ticket: int, ask: Ask, seed: int) -> None:
        engine = self._of(ask.agent)
        engine.submit(ticket, ask, seed)  # type: ignore[union-attr]
        self._waiting[id(engine)] += 1

    def poll(self) -> list[tuple[int, Completion]]:
        """What the first engine with something to do has to give."""
        engine = next(one for one in self.engines if self._waiting[id(one)])
        found = engine.poll()  # type: ignore[union-attr]
        self._waiting[id(engine)] -= len(found)
        return found

    def _of(self, seat: str) -> Engine | RollingEngine:
        if seat not in self.seats:
            raise TeamtuneError(f"no engine for seat {seat!r}; there are engines for {', '.join(self.seats)}")
        return self.seats[seat]
