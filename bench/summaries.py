"""What a debate's summaries leave out, and whether that costs right answers.

    python bench/summaries.py [--problems 340]

The untrained model in debates of three agents over two rounds, with the settings of the study of Multiagent Finetuning,
on training problems of a data seed of its own: once with summaries and once with the others' answers shown whole. The
seeds are the same, so first answers are too. A summary is complete where it names every different answer of the others.

"at odds" are places where the agents' first answers are not all the same. Accuracy is that of second answers at those
places, by whether the summary there is complete, beside that of the same places with whole answers; errors are those of
problems, whose places are not independent, as is that of the difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import tyro

from teamtune.engines import EngineSpec, open_engine
from teamtune.evaluate import Estimate, estimate
from teamtune.memory import hold_freed_memory
from teamtune.play import Engine, Live, waves
from teamtune.protocols import exchange
from teamtune.tasks import TaskSpec
from teamtune.types import Episode, Problem, Sampling, Team

SPEAKERS = exchange.by_roles(3, 2)


@dataclass(frozen=True)
class Bench:
    model: str = "house"
    tasks: tuple[str, ...] = ("arithmetic", "stories:4")
    problems: int = 340
    data_seed: int = 70
    temperature: float = 1.0
    top_p: float = 0.9


@dataclass(frozen=True)
class Place:
    """An agent's second answer: on which problem, after what summary, and whether it is right by either way."""

    problem: str
    complete: bool
    summed: float
    whole: float


def debates(engine: Engine, team: Team, problems: Sequence[Problem], summary: exchange.Summary) -> list[Episode]:
    protocol = partial(exchange.exchange, speakers=SPEAKERS, summary=summary)
    lives = [Live(problem, 0, protocol, team) for problem in problems]
    for _ in waves(lives, engine, 0):
        pass
    return [live.episode() for live in lives]


def places(task: TaskSpec, problems: Sequence[Problem], summed: list[Episode], whole: list[Episode]) -> Iterator[Place]:
    """Every second answer where first answers are not all the same."""
    grade = task.grade("train")
    for problem, told, shown in zip(problems, summed, whole, strict=True):
        tagged = lambda episode, tag: [turn.text for turn in episode.turns if turn.ask.tag == tag]  # noqa: E731
        first = tagged(told, "round-1")
        assert first == tagged(shown, "round-1"), "the same seeds give the same first answers"
        answers = [grade(problem, text).parsed for text in first]
        if len(set(answers)) == 1:
            continue
        for n, summary in enumerate(tagged(told, "summary-2")):
            others = {answer for other, answer in enumerate(answers) if other != n and answer is not None}
            complete = all(re.search(rf"say[s]? {re.escape(answer)}\b", summary) for answer in others)
            scores = [grade(problem, tagged(episode, "round-2")[n]).score for episode in (told, shown)]
            yield Place(problem.id, complete, *scores)


def by_problem(some: Sequence[Place], value: str) -> Estimate:
    """Mean over problems of the mean over a problem's places."""
    groups: dict[str, list[float]] = {}
    for one in some:
        told = one.whole - one.summed if value == "gain" else getattr(one, value)
        groups.setdefault(one.problem, []).append(float(told))
    return estimate([sum(own) / len(own) for own in groups.values()])


def main(cfg: Bench) -> None:
    hold_freed_memory()
    names = [name for group in SPEAKERS for name in group]
    team = Team(cfg.model, exchange.seats(names, Sampling(cfg.temperature, top_p=cfg.top_p, max_tokens=256)))
    engine = open_engine(EngineSpec(), team)
    engine.adopt(team)
    for named in cfg.tasks:
        name, _, level = named.partition(":")
        task = TaskSpec(name, level=level, train=cfg.problems, data_seed=cfg.data_seed)
        problems = task.load("train")
        both = [debates(engine, team, problems, way) for way in ("base", "none")]
        found = list(places(task, problems, *both))
        told = lambda one: f"{100 * one.mean:.1f} ± {100 * one.se:.1f}"  # noqa: E731
        print(f"{named}: {len(found)} second answers at odds, of {len({one.problem for one in found})} problems")
        print(f"  summary complete: {told(by_problem(found, 'complete'))} %")
        for complete in (True, False):
            own = [one for one in found if one.complete == complete]
            if len({one.problem for one in own}) > 1:
                summed, whole, gain = (told(by_problem(own, value)) for value in ("summed", "whole", "gain"))
                print(
                    f"  {'complete' if complete else 'not complete'}: {len(own)} answers, right by summary {summed}, "
                    f"by whole answers {whole}; whole minus summary {gain}",
                    flush=True,
                )


if __name__ == "__main__":
    main(tyro.cli(Bench))
