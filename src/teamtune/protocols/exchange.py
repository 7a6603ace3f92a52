"""Multiagent Finetuning's debate (Subramaniam et al., 2025): whoever speaks in a round, with summaries between rounds.

Round 1 is answered by generators, every later round by critics, who see their own last answer and a summary of what the
others said. Who is a generator and who a critic is a matter of names, so one play serves the method and its baselines:

    by_roles(3, 2)             [["generator-1", "generator-2", "generator-3"], ["critic-1", "critic-2", "critic-3"]]
    by_one("solver", 3, 2)     [["solver", "solver", "solver"], ["solver", "solver", "solver"]]    single agent
    by_one("solver", 3, 1)     [["solver", "solver", "solver"]]                                   majority vote

The wording is that of `debate`; the paper's own is described in its repository and not repeated here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from teamtune.play import Play, ask
from teamtune.protocols.debate import DEBATER, SUMMARISER, first, heard, listed, others, summarise, summarised
from teamtune.types import Agent, Message, Problem, Sampling, TeamtuneError, Turn, assistant, user

Summary = Literal["base", "own", "none"]
"""Who sums up what the others said: the base in a seat of its own, the agent that will answer, or nobody."""
Manner = Literal["contest", "cooperate"]

SUMMARISER_SEAT = "summariser"
"""never trained, so it is the base"""

Speakers = Sequence[Sequence[str]]
"""Of every round, the names of those who answer, in the agents' order."""


def generator(number: int) -> str:
    return f"generator-{number + 1}"


def critic(number: int) -> str:
    return f"critic-{number + 1}"


def by_roles(agents: int, rounds: int) -> Speakers:
    """Generators in round 1, critics in all later ones."""
    return [[generator(n) for n in range(agents)], *[[critic(n) for n in range(agents)]] * (rounds - 1)]


def by_one(name: str, agents: int, rounds: int) -> Speakers:
    """The same agent in every place."""
    return [[name] * agents] * rounds


def seats(names: Sequence[str], sampling: Sampling, ids: bool = False) -> tuple[Agent, ...]:
    """A seat for every name, and the summariser's. With `ids` every seat's prompt begins with an id of its own, GEN1 or
    CRIT1 (the unique-ID ablation: one model, told apart by its prompts)."""
    debaters = (Agent(name, f"{_tag(name)} {DEBATER}" if ids else DEBATER, sampling) for name in dict.fromkeys(names))
    return (*debaters, Agent(SUMMARISER_SEAT, SUMMARISER, sampling, trainable=False))


def _tag(name: str) -> str:
    role, _, number = name.partition("-")
    known = {"generator": ("GEN", "You answer first."), "critic": ("CRIT", "You judge answers and answer again.")}
    short, does = known.get(role, (role.upper(), ""))
    return f"{short}{number}. {does}".strip()


def advice(problem: Problem, shown: Sequence[str], summary: str | None, manner: Manner) -> Message:
    """The message of a later round: a summary, or the others' answers themselves."""
    if manner == "contest" or not shown:
        return summarised(problem, summary) if summary is not None else others(problem, shown)
    whole = f"The other agents say:\n\n{listed(shown)}"
    said = whole if summary is None else f"The other agents in short:\n\n{summary}"
    return user(f"{said}\n\nCombine these answers with yours into the best one and answer again.\n{problem.ending}")


def exchange(problem: Problem, speakers: Speakers, summary: Summary = "base", manner: Manner = "contest") -> Play:
    """The play. Every agent keeps its own conversation; nobody sees its own answer among the others'.

    The last round's answers are for the vote. What was not said, since its prompt did not fit the context, is not
    shown: an agent whose summary was never begun is asked to check its own answer.
    """
    count = len(speakers[0])
    if any(len(names) != count for names in speakers):
        raise TeamtuneError(f"rounds have {[len(names) for names in speakers]} speakers; give each the same number")
    talks: list[tuple[Message, ...]] = [first(problem)] * count
    said: list[Turn] = yield [ask(name, talks[n], "round-1") for n, name in enumerate(speakers[0])]
    for number, names in enumerate(speakers[1:], start=2):
        apart = [[turn for turn in said if turn is not said[n]] for n in range(count)]
        briefs: list[Turn] = []
        if summary != "none" and count > 1:
            who = [SUMMARISER_SEAT] * count if summary == "base" else names
            texts = [heard(group) for group in apart]
            tag = f"summary-{number}"
            briefs = yield [ask(who[n], summarise(problem, texts[n]), tag, *apart[n]) for n in range(count)]
        asks = []
        for n, name in enumerate(names):
            brief = briefs[n : n + 1]
            short = heard(brief)
            shown = heard(apart[n]) if short or not brief else []
            message = advice(problem, shown, short[0] if short else None, manner)
            talks[n] = (*talks[n], assistant(said[n].text), message)
            asks.append(ask(name, talks[n], f"round-{number}", said[n], *(brief or apart[n])))
        said = yield asks
    return said[0].index
