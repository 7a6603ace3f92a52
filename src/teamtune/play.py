"""Plays and their drivers.

A protocol is a generator: it yields lists of asks, is sent the answered turns, and returns the index of the turn that
answers. A list may hold asks that wait for others of the same list (`After`). It does no I/O and never sees the
reference answer. Drivers connect plays to an engine; every ask's seed comes
from (run seed, problem id, take, turn index), so every driver gives the same episodes:

    play = solo(problem)                 # nothing has happened yet
    asks = next(play)                    # [Ask("generator", ...)]
    play.send([Turn(0, asks[0], Completion("7 * 23 = 161 ..."))])     # raises StopIteration(0): turn 0 answers
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from teamtune.types import Ask, Completion, Episode, Message, Problem, Team, TeamtuneError, Turn


@dataclass(frozen=True, slots=True)
class After:
    """An ask that is asked as soon as the turns at these places of the same list are there: `ask` makes it of them."""

    places: tuple[int, ...]
    ask: Callable[..., Ask]


Play = Generator[Sequence[Ask | After], list[Turn], int]
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
        self.waiting: list[Ask | After] = []
        self._known = {turn.index: turn for turn in known}
        self._answered: dict[int, Turn] = {}
        self._play = protocol(problem)
        self._advance(None)

    def owed(self) -> list[tuple[int, Ask]]:
        """The asks that can be asked now, each with the index that its turn will have."""
        base = len(self.turns)
        waiting = enumerate(self.waiting, start=base)
        return [(at, one) for at, one in waiting if isinstance(one, Ask) and at not in self._answered]

    def give(self, index: int, completion: Completion) -> Turn:
        """Answer one ask; the play goes on once all it waits for are answered."""
        asked = self.waiting[index - len(self.turns)]
        assert isinstance(asked, Ask), "it waits for other turns"
        turn = Turn(index, asked, completion)
        self._answered[index] = turn
        self._settle()
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
        self.waiting = [one if isinstance(one, After) else seated(one, self.team) for one in asks]
        for place, one in enumerate(self.waiting):
            if isinstance(one, After) and not all(0 <= earlier < place for earlier in one.places):
                raise TeamtuneError(
                    f"ask {place} of the protocol's list waits for places {one.places}, on problem {self.problem.id}; "
                    "it can wait for earlier ones of the same list"
                )
            self._recall(place)
        self._settle()

    def _check_answer(self) -> None:
        if not isinstance(self.answer, int) or not 0 <= self.answer < len(self.turns):
            raise TeamtuneError(
                f"the protocol returned {self.answer!r} on problem {self.problem.id}; it must return the index of the "
                f"turn that answers, 0 to {len(self.turns) - 1}"
            )

    def _settle(self) -> None:
        """Make the asks whose turns have come, and go on where nothing is waited for."""
        base = len(self.turns)
        for place, one in enumerate(self.waiting):
            if isinstance(one, After) and all(base + earlier in self._answered for earlier in one.places):
                read = [self._answered[base + earlier] for earlier in one.places]
                self.waiting[place] = seated(one.ask(*read), self.team)
                self._recall(place)
        if len(self._answered) == len(self.waiting):
            self._flush()

    def _recall(self, place: int) -> None:
        """Answer an ask from the turns that are known, if it is among them."""
        index, waiting = len(self.turns) + place, self.waiting[place]
        if isinstance(waiting, After) or (turn := self._known.pop(index, None)) is None:
            return
        if turn.ask != waiting:
            raise TeamtuneError(
                f"turn {index} of problem {self.problem.id}, take {self.take} was asked differently before; "
                "the protocol or its prompts have changed: start a new run folder"
            )
        self._answered[index] = turn


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
    """Continuous driver: an ask is sent as soon as the turns that it waits for are there; no other ask holds it up."""
    tickets: dict[int, tuple[Live, int]] = {}
    on_their_way: set[tuple[str, int, int]] = set()
    sent = 0

    def submit(live: Live) -> None:
        nonlocal sent
        for index, waiting in live.owed():
            place = (live.problem.id, live.take, index)
            if place in on_their_way:
                continue
            engine.submit(sent, waiting, seed_of(run_seed, *place))
            on_their_way.add(place)
            tickets[sent] = (live, index)
            sent += 1

    for live in lives:
        submit(live)
    while tickets:
        answered: list[Answered] = []
        for ticket, done in engine.poll():
            live, index = tickets.pop(ticket)
            on_their_way.remove((live.problem.id, live.take, index))
            answered.append(Answered(live, live.give(index, done)))
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
