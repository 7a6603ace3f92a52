"""Multi-agent debate (Du et al., ICML 2024): everybody answers, then reads the others and answers again.

The wording is ours. Every agent keeps its own conversation; from the second round on it is shown the other agents' last
answers, whole or as a summary.
"""

from __future__ import annotations

from collections.abc import Sequence

from teamtune.play import Play, ask
from teamtune.types import UNSAID, Agent, Message, Problem, Sampling, Turn, assistant, user

DEBATER = "You are one of several agents. Solve the problem step by step."
SUMMARISER = "You sum up what several agents say about a problem."


def seats(sampling: Sampling, count: int) -> tuple[Agent, ...]:
    """`count` debaters on one base, "debater-0" and so on."""
    return tuple(Agent(f"debater-{i}", DEBATER, sampling) for i in range(count))


def first(problem: Problem) -> tuple[Message, ...]:
    """What every debater is asked in the first round."""
    return (user(f"{problem.question}\n{problem.ending}"),)


def listed(solutions: Sequence[str]) -> str:
    """Solutions one after the other, numbered from 1."""
    return "\n\n".join(f"Agent {i}:\n{text}" for i, text in enumerate(solutions, 1))


def heard(turns: Sequence[Turn]) -> list[str]:
    """What was said; nothing is by a turn whose prompt did not fit the context, or that a server kept back."""
    return [turn.text for turn in turns if turn.completion.finish not in UNSAID]


def others(problem: Problem, solutions: Sequence[str]) -> Message:
    """The message that shows the other agents' answers."""
    if not solutions:
        return user(f"Check your answer and solve the problem again.\n{problem.ending}")
    return user(
        f"The other agents say:\n\n{listed(solutions)}\n\nUse this as advice and answer again.\n{problem.ending}"
    )


def summarise(problem: Problem, solutions: Sequence[str]) -> tuple[Message, ...]:
    """The ask to sum up the agents' answers."""
    text = f"Problem: {problem.question}\n\n{listed(solutions)}\n\nSum up the different opinions and their reasons."
    return (user(text),)


def summarised(problem: Problem, summary: str) -> Message:
    """The message that shows a summary of the other agents' answers."""
    return user(f"The other agents in short:\n\n{summary}\n\nUse this as advice and answer again.\n{problem.ending}")


def debate(problem: Problem, agents: int = 3, rounds: int = 3) -> Play:
    """`agents` debaters over `rounds` rounds, answers shown whole. The last round's answers are for the vote."""
    history: list[tuple[Message, ...]] = [first(problem)] * agents
    said: list[Turn] = yield [ask(f"debater-{i}", history[i], "round-1") for i in range(agents)]
    for round_number in range(2, rounds + 1):
        history = [
            (
                *history[i],
                assistant(said[i].text),
                others(problem, heard([t for t in said if t is not said[i]])),
            )
            for i in range(agents)
        ]
        said = yield [ask(f"debater-{i}", history[i], f"round-{round_number}", *said) for i in range(agents)]
    return said[0].index
