"""Multiagent Finetuning (Subramaniam et al., 2025): generators and critics, each finetuned on its own part of debates.

debates on training problems -> answers read without gold -> the last round's majority as label -> every generator's
right first answers, every critic's corrected and kept ones -> SFT of all 2N agents in one joint fit -> and again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from teamtune.credit.consensus import TiePolicy, consensus
from teamtune.curate.debate import Masking, debate_rows
from teamtune.engines import EngineSpec
from teamtune.models import check_targets
from teamtune.protocols import exchange
from teamtune.protocols.exchange import Manner, Summary, by_one, by_roles, critic, generator
from teamtune.recipes.malt import enough
from teamtune.recipes.systems import Played, System, base_team, compare, play_test, trained_tokens
from teamtune.rollout import Driver, Rollout, rollout
from teamtune.store import Run, Table, read_table
from teamtune.tasks import Split, TaskSpec, splits
from teamtune.tasks.parse import parse_turns
from teamtune.train.fit import Fit, fit
from teamtune.train.objective import Sft
from teamtune.train.team import Lora
from teamtune.types import Sampling, Team, TeamtuneError

SOLVER = "solver"
"""the seat of a single model"""


@dataclass(frozen=True)
class Maft:
    """Train generators and critics by Multiagent Finetuning and compare them with their baselines."""

    out: Path
    """run folder; the same command goes on where a killed run was"""
    task: Annotated[TaskSpec, tyro.conf.arg(name="")] = TaskSpec(train=500)
    model: str = "house"
    """house, a folder, or a hub name"""
    engine: EngineSpec = EngineSpec()
    sampling: Sampling = Sampling(temperature=1.0, top_p=0.9, max_tokens=320)
    """of every seat; the paper's for open models, but for its 2,048 tokens"""
    agents: int = 3
    """N: as many generators as critics"""
    rounds: int = 2
    """M: rounds of a debate"""
    iterations: int = 1
    """L: how often to debate and finetune"""
    summary: Summary = "base"
    """who sums up the others' answers between rounds"""
    manner: Manner = "contest"
    """agents take the others' answers as advice, or combine them with theirs"""
    weight: float = 0.5
    """w: share of corrected answers in a critic's data"""
    ties: TiePolicy = "random"
    """what becomes of a last round without a single winner"""
    masking: Masking = "final"
    """loss on a critic's last answer, or on all answers of its conversation (the published code)"""
    init: Literal["continue", "base"] = "continue"
    """what an iteration's finetuning starts from: the iteration before, or the base"""
    critics: bool = True
    """finetune the critics too; else they stay at the base"""
    lora: Lora = Lora()
    sft: Fit = Fit(rate=1e-4, epochs=2)
    baselines: Literal["none", "base", "all"] = "all"
    """base: one answer, a majority of N, and the debate, all untrained; all: also one model finetuned in four ways"""
    driver: Driver = "waves"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("agents", 1), ("rounds", 2), ("iterations", 1)):
            if getattr(self, name) < least:
                raise TeamtuneError(f"{name} is {getattr(self, name)}; it must be {least} or above")
        if not 0 <= self.weight <= 1:
            raise TeamtuneError(f"weight is {self.weight}; it must lie in [0, 1]")

    @property
    def learners(self) -> dict[str, str]:
        """Every agent that is finetuned, each on its own turns."""
        names = [generator(n) for n in range(self.agents)]
        names += [critic(n) for n in range(self.agents)] if self.critics else []
        return {name: name for name in names}


@dataclass(frozen=True, slots=True)
class Step:
    """A team after an iteration, and the target tokens that each of its agents was trained on so far."""

    team: Team
    tokens: Mapping[str, int]


def main(cfg: Maft, command: str = "") -> Run:
    """Train and compare; everything is in the run folder afterwards."""
    train, test = splits(cfg.task)
    speakers = by_roles(cfg.agents, cfg.rounds)
    names = [name for names in speakers for name in names]
    base = base_team(cfg.model, exchange.seats(names, cfg.sampling), cfg.engine)
    check_targets(cfg.model, cfg.lora.targets)
    step = Step(base, dict.fromkeys(cfg.learners, 0))
    with Run(cfg.out, cfg, command) as run:
        systems = untrained(run, cfg, test, base)
        trained: list[System] = []
        for number in range(cfg.iterations):
            step = iterate(run, cfg, train, base, step, number)
            played = play_team(run, cfg, f"test/iteration-{number + 1}", test, step.team)
            trained.append(System(f"MAFT, iteration {number + 1}", played, 1, sum(step.tokens.values())))
        if cfg.baselines == "all":
            systems += single_models(run, cfg, train, test, base)
        systems += trained
        run.stage("comparison", compare, systems, against=systems[-1].name)
        return run


def iterate(run: Run, cfg: Maft, train: Split, base: Team, before: Step, number: int) -> Step:
    """Debate on the training problems, label, and finetune every agent on its own part."""
    prefix, seed = f"iteration-{number + 1}/", cfg.seed + 10_007 * number
    protocol = partial(
        exchange.exchange, speakers=by_roles(cfg.agents, cfg.rounds), summary=cfg.summary, manner=cfg.manner
    )
    problems = train.sealed(run)
    how = Rollout(seed=seed, driver=cfg.driver)
    turns = run.work(f"{prefix}turns", rollout, problems, before.team, protocol, cfg.engine, how)
    rows = labelled_rows(run, cfg, prefix, turns, problems, cfg.learners, cfg.weight, seed)
    start = base if cfg.init == "base" else before.team
    sft = run.train(f"{prefix}sft", fit, rows, start, list(cfg.learners), cfg.lora, Sft(), cfg.sft, seed)
    team = before.team.adopt({name: str(sft.path / name) for name in cfg.learners})
    spent = {name: cfg.sft.epochs * trained_tokens(rows, [name]) for name in cfg.learners}
    carried = before.tokens if cfg.init == "continue" else dict.fromkeys(cfg.learners, 0)
    return Step(team, {name: carried[name] + spent[name] for name in cfg.learners})


def labelled_rows(
    run: Run,
    cfg: Maft,
    prefix: str,
    turns: Table,
    problems: Table,
    learners: Mapping[str, str],
    weight: float | None,
    seed: int,
) -> Table:
    """Training rows of debates: answers read, the majority as label, and everybody's part. No gold answer is read."""
    parsed = run.stage(f"{prefix}parsed", parse_turns, turns, problems, cfg.task)
    credit = run.stage(f"{prefix}credit", consensus, turns, parsed, cfg.ties, seed)
    rows = run.stage(f"{prefix}sft-rows", debate_rows, turns, credit, dict(learners), weight, cfg.masking, seed)
    enough(rows, list(dict.fromkeys(learners.values())))
    return rows


def single_models(run: Run, cfg: Maft, train: Split, test: Split, base: Team) -> list[System]:
    """One model in all places, finetuned on votes over single answers, or on the first iteration's debates.

    Those debates were the untrained base's, so every method learns from the same start and the same problems.
    """
    problems = train.sealed(run)
    alone = replace(base, agents=exchange.seats([SOLVER], cfg.sampling))
    how = Rollout(seed=cfg.seed, driver=cfg.driver)
    votes = partial(exchange.exchange, speakers=by_one(SOLVER, cfg.agents, 1))
    answers = run.work("majority-ft/turns", rollout, problems, alone, votes, cfg.engine, how)
    debates = read_table(run.path / "iteration-1" / "turns")
    names = [name for group in by_roles(cfg.agents, cfg.rounds) for name in group]
    pooled = dict.fromkeys(names, SOLVER)
    majority = one_model(run, cfg, "majority-ft", alone, answers, problems, {SOLVER: SOLVER}, None)
    debater = one_model(run, cfg, "single-ft", alone, debates, problems, pooled, None)
    union = one_model(run, cfg, "union-ft", alone, debates, problems, pooled, cfg.weight)
    debate = partial(
        exchange.exchange, speakers=by_one(SOLVER, cfg.agents, cfg.rounds), summary=cfg.summary, manner=cfg.manner
    )
    once = partial(exchange.exchange, speakers=by_one(SOLVER, 1, 1))
    test_how = Rollout(1, cfg.seed + 1_000_003)
    play = partial(play_test, run, test=test, engine=cfg.engine, how=test_how)
    return [
        System("Majority FT", play("test/majority-ft", team=majority[0], protocol=votes), 1, majority[1]),
        System("Single-agent FT", play("test/single-ft", team=debater[0], protocol=debate), 1, debater[1]),
        System("Single-agent FT, alone", play("test/single-ft-solo", team=debater[0], protocol=once), 1, debater[1]),
        System("One model, all agents' data", play("test/union-ft", team=union[0], protocol=debate), 1, union[1]),
    ]


def one_model(
    run: Run,
    cfg: Maft,
    name: str,
    alone: Team,
    turns: Table,
    problems: Table,
    learners: Mapping[str, str],
    weight: float | None,
) -> tuple[Team, int]:
    """One model finetuned on the turns of `learners`, and its target tokens."""
    rows = labelled_rows(run, cfg, f"{name}/", turns, problems, learners, weight, cfg.seed)
    sft = run.train(f"{name}/sft", fit, rows, alone, [SOLVER], cfg.lora, Sft(), cfg.sft, cfg.seed)
    return alone.adopt({SOLVER: str(sft.path / SOLVER)}), cfg.sft.epochs * trained_tokens(rows)


def play_team(run: Run, cfg: Maft, name: str, test: Split, team: Team) -> Played:
    """The team's debate on the test problems."""
    protocol = partial(
        exchange.exchange, speakers=by_roles(cfg.agents, cfg.rounds), summary=cfg.summary, manner=cfg.manner
    )
    return play_test(run, name, test, team, protocol, cfg.engine, Rollout(1, cfg.seed + 1_000_003))


def untrained(run: Run, cfg: Maft, test: Split, base: Team) -> list[System]:
    """One answer, the majority of N answers, and the debate, by the base."""
    if cfg.baselines == "none":
        return []
    alone = partial(exchange.exchange, speakers=by_one(generator(0), 1, 1))
    how = Rollout(cfg.agents, cfg.seed + 1_000_003)
    answers = play_test(run, "test/base-solo", test, base, alone, cfg.engine, how)
    return [
        System("Base", answers),
        System(f"Majority of {cfg.agents}", answers, cfg.agents),
        System("Debate", play_team(run, cfg, "test/base", test, base), 1),
    ]
