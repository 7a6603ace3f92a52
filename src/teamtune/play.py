"""Plays and their drivers.

A protocol is a generator: it yields lists of asks, is sent the answered turns, and returns the index of the turn that
answers. It does no I/O and never sees the reference answer. Drivers connect plays to an engine; every ask's seed comes
from (run seed, problem id, take, turn index), so every driver gives the same episodes:

    play = pipeline(problem)             # nothing has happened yet
    asks = next(play)                    # [Ask("generator", ...)]
    asks = play.send([Turn(0, asks[0], Completion("7 * 23 = 161 ..."))])
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from teamtune.types import Ask, Completion, Episode, Message, Problem, Team, TeamtuneError, Turn

Play = Generator[list[Ask], list[Turn], int]
ProtocolFn = Callable[[Problem], Play]


@runtime_checkable
class Engine(Protocol):
    """Anything that answers asks. Completions come back in the order of the asks."""

    def generate(self, asks: Sequence[Ask], seeds: Sequence[int]) -> list[Completion]: ...

    def adopt(self, team: Team) -> None:
        """Take the team's adapters and sampling. An adapter's path is immutable."""
        ...

    def close(self) -> None:
        """Give back what it holds: memory, processes, connections."""
        ...


@runtime_checkable
class RollingEngine(Engine, Protocol):
    """An engine that takes asks at any time and gives back answers as they finish."""

    def submit(self, ticket: int, ask: Ask, seed: int) -> None: ...

    def poll(self) -> list[tuple[int, Completion]]: ...


def ask(agent: str, messages: Sequence[Message], tag: str, *read: Turn) -> Ask:
    """An ask that shows the turns `read`."""
    return Ask(agent, tuple(messages), tag, tuple(turn.index for turn in read))


def seed_of(run_seed: int, problem: str, take: int, turn: int) -> int:
    """The seed of one ask, a number below 2**63 that depends on nothing but its arguments."""
    name = f"{run_seed}/{problem}/{take}/{turn}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1


def seated(ask: Ask, team: Team) -> Ask:
    """The ask as it is sent: with the seat's system message in front."""
    system = team[ask.agent].system
    if not system:
        return ask
    return Ask(ask.agent, (Message("system", system), *ask.messages), ask.tag, ask.parents)


class Live:
    """One episode under way: a play, the turns so far, and the asks it waits for.

    Turns of an earlier, broken-off attempt can be fed back in (`known`): the play is replayed up to them and goes on
    from there. A play whose asks differ from the known turns is refused, since it would mix two protocols.
    """

    def __init__(self, problem: Problem, take: int, protocol: ProtocolFn, team: Team, known: Sequence[Turn] = ()):
        self.problem, self.take, self.team = problem, take, team
        self.turns: list[Turn] = []
        self.answer: int | None = None
        self.waiting: list[Ask] = []
        self._known = {turn.index: turn for turn in known}
        self._answered: dict[int, Turn] = {}
        self._play = protocol(problem)
        self._advance(None)

    def owed(self) -> list[tuple[int, Ask]]:
        """The asks without an answer, each with the index that its turn will have."""
        base = len(self.turns)
        return [(base + i, ask) for i, ask in enumerate(self.waiting) if base + i not in self._answered]

    def give(self, index: int, completion: Completion) -> Turn:
        """Answer one ask; the play goes on once all it waits for are answered."""
        turn = Turn(index, self.waiting[index - len(self.turns)], completion)
        self._answered[index] = turn
        if not self.owed():
            self._flush()
        return turn

    def episode(self) -> Episode:
        assert self.answer is not None, "the episode is not over"
        return Episode(self.problem.id, self.take, tuple(self.turns), self.answer)

    def _flush(self) -> None:
        base = len(self.turns)
        batch = [self._answered.pop(base + i) for i in range(len(self.waiting))]
        self.turns += batch
        self._advance(batch)

    def _advance(self, batch: list[Turn] | None) -> None:
        try:
            asks = next(self._play) if batch is None else self._play.send(batch)
        except StopIteration as stop:
            self.waiting, self.answer = [], stop.value
            self._check_answer()
            return
        if not asks:
            raise TeamtuneError(f"the protocol yielded no asks on problem {self.problem.id}, take {self.take}")
        self.waiting = [seated(ask, self.team) for ask in asks]
        self._replay()

    def _check_answer(self) -> None:
        if not isinstance(self.answer, int) or not 0 <= self.answer < len(self.turns):
            raise TeamtuneError(
                f"the protocol returned {self.answer!r} on problem {self.problem.id}; it must return the index of the "
                f"turn that answers, 0 to {len(self.turns) - 1}"
            )

    def _replay(self) -> None:
        base = len(self.turns)
        for i, waiting in enumerate(self.waiting):
            turn = self._known.pop(base + i, None)
            if turn is None:
                continue
            if turn.ask != waiting:
                raise TeamtuneError(
                    f"turn {base + i} of problem {self.problem.id}, take {self.take} was asked differently before; "
                    "the protocol or its prompts have changed: start a new run folder"
                )
            self._answered[base + i] = turn
        if not self.owed():
            self._flush()


@dataclass(frozen=True, slots=True)
class Answered:
    """One new turn, as drivers report it."""

    live: Live
    turn: Turn


def waves(lives: Iterable[Live], engine: Engine, run_seed: int, at_once: int = 4096) -> Iterator[list[Answered]]:
    """Lock-step driver: gathers what episodes wait for, until there are `at_once` asks, and sends it as one batch."""
    active = [live for live in lives if live.answer is None]
    while active:
        owed: list[tuple[Live, int, Ask]] = []
        for live in active:
            owed += [(live, index, ask) for index, ask in live.owed()]
            if len(owed) >= at_once:
                break
        seeds = [seed_of(run_seed, live.problem.id, live.take, index) for live, index, _ in owed]
        completions = engine.generate([ask for _, _, ask in owed], seeds)
        if len(completions) != len(owed):
            raise TeamtuneError(f"the engine answered {len(completions)} of {len(owed)} asks")
        yield [Answered(live, live.give(index, done)) for (live, index, _), done in zip(owed, completions, strict=True)]
        active = [live for live in active if live.answer is None]


def rolling(lives: Iterable[Live], engine: RollingEngine, run_seed: int) -> Iterator[list[Answered]]:
    """Continuous driver: an episode goes on as soon as its own asks are answered, waiting for no other episode."""
    tickets: dict[int, tuple[Live, int]] = {}
    sent = 0

    def submit(live: Live) -> None:
        nonlocal sent
        for index, waiting in live.owed():
            engine.submit(sent, waiting, seed_of(run_seed, live.problem.id, live.take, index))
            tickets[sent] = (live, index)
            sent += 1

    for live in lives:
        if live.answer is None:
            submit(live)
    while tickets:
        answered: list[Answered] = []
        for ticket, done in engine.poll():
            live, index = tickets.pop(ticket)
            before = len(live.turns)
            answered.append(Answered(live, live.give(index, done)))
            if live.answer is None and len(live.turns) > before:
                submit(live)
        yield answered


def by_hand(
    problem: Problem, protocol: ProtocolFn, team: Team, engine: Engine, seed: int = 0, take: int = 0
) -> Episode:
    """Play one problem to its end and give the episode back: the smallest driver, for notebooks and tests."""
    live = Live(problem, take, protocol, team)
    for _ in waves([live], engine, seed):
        pass
    return live.episode()
