"""Systems to compare: who answers, by which protocol, with how many votes; and the table that compares them.

One line of the comparison:

    {"system": "MALT + MV@3", "accuracy": 0.812, "se": 0.012, "n": 1000, "consensus": 0.78, "calls": 9.0,
     "prompt_tokens": 812.4, "completion_tokens": 611.0, "trained_tokens": 1208331,
     "trained": [{"agent": "generator", "tokens": 208331}, ...], "diff": 0.0, "low": 0.0, "high": 0.0}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Literal

from teamtune.diversity import consensus
from teamtune.engines import EngineSpec
from teamtune.engines.spec import check_seats
from teamtune.evaluate import budget, estimate, paired_bootstrap
from teamtune.play import ProtocolFn
from teamtune.protocols import debate as debating
from teamtune.protocols.pipeline import pipeline
from teamtune.protocols.solo import solo
from teamtune.rollout import Rollout, rollout
from teamtune.store import Run, Table
from teamtune.tasks import Split, grade_turns
from teamtune.types import Agent, Row, Sampling, Team, TeamtuneError, answering, place_of
from teamtune.vote import Unparsed, vote_score

TEST_SEED = 1_000_003
"""added to a run's seed, so that test-time draws are others than those of training"""


def round_seed(seed: int, number: int) -> int:
    """The seed of a round of training, or an iteration, counted from 1: every one draws anew."""
    return seed + 10_007 * (number - 1)


@dataclass(frozen=True, slots=True)
class Played:
    """A protocol played by a team on the test problems."""

    turns: Table
    grades: Table


@dataclass(frozen=True, slots=True)
class System:
    """A line of the comparison: the first `votes` takes of what was played; 0 votes scores every take by itself."""

    name: str
    played: Played
    votes: int = 0
    trained: Mapping[str, int] = field(default_factory=dict)
    """target tokens that each of its agents was trained on"""
    unparsed: Unparsed = "drop"
    """what becomes of answers in a vote that could not be read (`vote.majority`)"""


def base_team(model: str, agents: tuple[Agent, ...], engine: EngineSpec, bits: Literal[16, 4] = 16) -> Team:
    """The untrained team, on a base in so many bits. One that cannot be had stops here, before a run folder is made.

    With a server the base may be a name that the server alone knows.
    """
    from teamtune.models import at_hand, identity  # takes torch along, which a report does without

    check_seats(engine, [agent.name for agent in agents])
    elsewhere = engine.kind == "scripted" or (engine.kind == "openai" and not at_hand(model))
    return Team(model, agents, "" if elsewhere else identity(model), bits)


def play_test(
    run: Run, name: str, test: Split, team: Team, protocol: ProtocolFn, engine: EngineSpec, how: Rollout
) -> Played:
    """Roll out on the test problems and grade every turn, as two stages of the run."""
    problems = test.sealed(run)
    turns = run.work(f"{name}/turns", rollout, problems, team, protocol, engine, how)
    return Played(turns, run.stage(f"{name}/grades", grade_turns, turns, problems, test.task, test.name))


def play_solo(run: Run, name: str, test: Split, team: Team, engine: EngineSpec, how: Rollout) -> Played:
    """The generator alone."""
    return play_test(run, name, test, team, solo, engine, how)


def play_pipeline(
    run: Run, name: str, test: Split, team: Team, engine: EngineSpec, how: Rollout, roles: str = "GVR"
) -> Played:
    """The pipeline in single passes."""
    return play_test(run, name, test, team, partial(pipeline, roles=roles), engine, how)


def play_debate(
    run: Run,
    name: str,
    test: Split,
    base: Team,
    sampling: Sampling,
    engine: EngineSpec,
    how: Rollout,
    size: int = 3,
) -> Played:
    """The untrained base in debate with itself, `size` agents over `size` rounds (Du et al.)."""
    team = replace(base, agents=debating.seats(sampling, size))
    protocol = partial(debating.debate, agents=size, rounds=size)
    return play_test(run, name, test, team, protocol, engine, how)


def untrained(team: Team, names: Sequence[str]) -> Team:
    """The team with the named seats back at the base."""
    return team.adopt(dict.fromkeys(names))


def alone_and_together(prefix: str, alone: Played, together: Played, votes: int) -> list[System]:
    """One agent and the pipeline, each without and with votes; one agent also at the pipeline's number of calls."""
    return [
        System(f"{prefix}SA", alone),
        System(f"{prefix}SA + MV@{votes}", alone, votes),
        System(f"{prefix}SA + MV@{3 * votes}", alone, 3 * votes),
        System(f"{prefix}MA", together),
        System(f"{prefix}MA + MV@{votes}", together, votes),
    ]


def scores(
    turns: Sequence[Row], grades: Sequence[Row], votes: int = 0, unparsed: Unparsed = "drop"
) -> dict[str, float]:
    """Each problem's score: of the vote over all final turns of the first `votes` takes, or the mean over the takes.

    A vote with a tie scores the mean of the tied answers, which is what a random choice among them would on average.
    Within one take several final turns (a debate's last round) vote among themselves.
    """
    found = ballots(turns, grades, votes)

    def score(voters: list[Row]) -> float:
        return vote_score([v["parsed"] for v in voters], [v["score"] for v in voters], unparsed=unparsed)

    return {problem: sum(map(score, group)) / len(group) for problem, group in found.items()}


def agreement(turns: Sequence[Row], grades: Sequence[Row], votes: int = 0) -> float | None:
    """Consensus: mean over problems of the share of voters who gave the winning answer; None for a single voter."""
    found = ballots(turns, grades, votes)
    if any(len(voters) < 2 for group in found.values() for voters in group):
        return None
    shares = [
        sum(consensus([v["parsed"] for v in voters]) for voters in group) / len(group) for group in found.values()
    ]
    return sum(shares) / len(shares)


def ballots(turns: Sequence[Row], grades: Sequence[Row], votes: int = 0) -> dict[str, list[list[Row]]]:
    """The grades of those who vote together, by problem: one group of the first `votes` takes, or one a take."""
    graded = {place_of(g): g for g in grades}
    final: dict[str, dict[int, list[Row]]] = {}
    for turn in turns:
        if turn["final"]:
            key = place_of(turn)
            final.setdefault(turn["problem"], {}).setdefault(turn["take"], []).append(graded[key])
    return {problem: _together(takes, votes) for problem, takes in final.items()}


def _together(takes: Mapping[int, list[Row]], votes: int) -> list[list[Row]]:
    if not votes:
        return list(takes.values())
    if votes > len(takes):
        raise TeamtuneError(f"{votes} votes asked for, but only {len(takes)} takes were played")
    return [[grade for take in sorted(takes)[:votes] for grade in takes[take]]]


def compare(systems: Sequence[System], against: str) -> list[Row]:
    """The comparison table: every system with its cost and its difference from the system named `against`.

    The interval is a paired bootstrap over problems, at 95 %.
    """
    found = {system.name: _measured(system) for system in systems}
    if against not in found:
        raise TeamtuneError(f"no system {against!r} to compare with; there are {', '.join(found)}")
    rows = []
    reference = found[against][0]
    for system in systems:
        by_problem, together, turns = found[system.name]
        if by_problem.keys() != reference.keys():
            raise TeamtuneError(f"{system.name} and {against} did not answer the same problems")
        here = estimate(list(by_problem.values()))
        gap = paired_bootstrap([reference[p] for p in by_problem], list(by_problem.values()))
        spent = budget(turns)
        takes = len({turn["take"] for turn in turns}) if not system.votes else 1
        share = lambda tokens, takes=takes: None if tokens is None else tokens / takes  # noqa: E731
        rows.append(
            {
                "system": system.name,
                "accuracy": here.mean,
                "se": here.se,
                "n": here.n,
                "consensus": together,
                "calls": spent.calls / takes,
                "prompt_tokens": share(spent.prompt_tokens),
                "completion_tokens": share(spent.completion_tokens),
                "trained_tokens": sum(system.trained.values()),
                "trained": [{"agent": agent, "tokens": count} for agent, count in system.trained.items()],
                "diff": gap.diff,
                "low": gap.low,
                "high": gap.high,
            }
        )
    return rows


def _measured(system: System) -> tuple[dict[str, float], float | None, list[Row]]:
    """Scores by problem, consensus, and the turns that they cost; a scorer's are no generations."""
    turns, grades = answering(system.played.turns.rows()), system.played.grades.rows()
    if system.votes:
        turns = [turn for turn in turns if turn["take"] < system.votes]
    return scores(turns, grades, system.votes, system.unparsed), agreement(turns, grades, system.votes), turns


def trained_tokens(table: Table, model: str, epochs: int = 1, agents: Sequence[str] | None = None) -> Counter[str]:
    """Target tokens of each agent (None: of all) over all epochs: answers of SFT rows, both answers of pairs. Answers
    without ids are counted as training reads them: by the model's tokenizer, and the token that closes them, but for a
    rejected one that was cut off."""
    from teamtune.models import open_tokenizer

    answers = (("completion", "token_ids"), ("chosen", "chosen_ids"), ("rejected", "rejected_ids"))
    tokenizer = cache(partial(open_tokenizer, model))
    found: Counter[str] = Counter()
    for row in table.rows():
        if agents is None or row["agent"] in agents:
            for text, ids in (one for one in answers if one[0] in row):
                if (own := row[ids]) is None:
                    own = tokenizer()(row[text], add_special_tokens=False)["input_ids"]
                    own = [*own, "closed"] if text != "rejected" or row.get("rejected_ended", True) else own
                found[row["agent"]] += epochs * len(own)
    return found
