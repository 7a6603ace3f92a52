"""One agent answers: the single-agent baseline. Votes over several takes give self-consistency."""

from __future__ import annotations

from teamtune.play import Play, ask
from teamtune.protocols.pipeline import generate
from teamtune.types import Problem


def solo(problem: Problem, agent: str = "generator", width: int = 1) -> Play:
    """`width` independent answers by one agent, with MALT's generator prompt; the first is the episode's answer."""
    turns = yield [ask(agent, generate(problem), "generate")] * width
    return turns[0].index
