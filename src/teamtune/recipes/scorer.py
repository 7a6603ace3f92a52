"""A learned scorer, MAPoRL's verifier: trained on the base's own answers, and measured on problems it has not seen.

answers of the base -> right or wrong -> as many of each a question (more are asked for where one kind is lacking) ->
cross-entropy on the last half of each answer -> accuracy, AUROC and calibration on test problems.

    teamtune scorer train --task stories --out runs/scorer
    teamtune scorer eval --run runs/scorer --task arithmetic --out runs/scorer-elsewhere
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from teamtune.curate.judged import asked_for, judged_rows
from teamtune.engines import EngineSpec
from teamtune.given import given
from teamtune.models import check_lora
from teamtune.protocols.discussion import by_policy, discussion, scorer_seat, seats
from teamtune.recipes.malt import enough
from teamtune.recipes.scorer_measures import measured
from teamtune.recipes.stored import finished, stored_kind, stored_options, with_adapters
from teamtune.recipes.systems import TEST_SEED, base_team
from teamtune.rollout import Driver, Rollout, rollout
from teamtune.store import Run
from teamtune.tasks import Split, TaskSpec, grade_turns, splits
from teamtune.track import Track
from teamtune.train.fit import Fit, fit
from teamtune.train.objective import Scoring
from teamtune.train.team import Lora
from teamtune.types import BESIDE, SCORER, Row, Sampling, Team, TeamtuneError


@dataclass(frozen=True, slots=True)
class Scorer:
    """How to make a scorer."""

    samples: int = 100
    """answers to a question; discussions of it where there are several agents or turns"""
    agents: int = 1
    """who discuss, without scores; 1 over 1 turn gives single answers, as in the paper"""
    turns: int = 1
    """answers of all turns are learned from, each as if it had been given to the question at once"""
    quota: int = 20
    """right answers, and wrong answers, of a question; those that cannot meet it are left out. 0 takes all answers"""
    ask: int = 20
    """further answers to ask for, of a question and kind that lacks some; 0 asks for none"""
    sampling: Sampling = Sampling(temperature=1.0, max_tokens=320)
    scoring: Scoring = Scoring()
    lora: Lora = Lora(rank=16, alpha=32)
    fit: Fit = Fit(rate=2e-4, batch=2, beta2=0.95)

    def __post_init__(self) -> None:
        for name, least in (("samples", 1), ("agents", 1), ("turns", 1), ("quota", 0), ("ask", 0)):
            if getattr(self, name) < least:
                raise TeamtuneError(f"{name} of the scorer is {getattr(self, name)}; it must be {least} or above")
        if not self.quota and "ask" in given(self):
            raise TeamtuneError("ask of the scorer has no use with quota 0, which nothing lacks; leave it out")
        if 2 * self.quota > self.answers + 2 * self.ask:
            raise TeamtuneError(
                f"a quota of {self.quota} right and {self.quota} wrong answers cannot be met by {self.answers} of them"
            )

    @property
    def asks(self) -> bool:
        """Whether lacking answers are asked for."""
        return bool(self.ask and self.quota)

    @property
    def answers(self) -> int:
        """Answers to a question."""
        return self.samples * self.agents * self.turns

    @property
    def speakers(self) -> list[list[str]]:
        """Who gives them."""
        return by_policy("shared", self.agents, self.turns)


@dataclass(frozen=True)
class ScorerTraining:
    """Train a scorer on a model's own answers to a task's training problems, and measure it on its test problems."""

    out: Path
    """run folder; the same command goes on where a killed run was"""
    task: Annotated[TaskSpec, tyro.conf.arg(name="")] = TaskSpec(train=500, test=200)
    model: str = "house"
    """house, a folder, or a hub name"""
    engine: EngineSpec = EngineSpec()
    scorer: Scorer = Scorer()
    test_samples: int = 8
    """answers to a test problem"""
    driver: Driver = field(default="auto", metadata=BESIDE)
    track: Track = "none"
    """where metrics go besides metrics.jsonl"""
    seed: int = 0

    def __post_init__(self) -> None:
        self.task.check_answers("a scorer")
        if self.test_samples < 1:
            raise TeamtuneError(f"test_samples is {self.test_samples}; it must be 1 or above")


@dataclass(frozen=True)
class ScorerEvaluation:
    """Measure a trained scorer on other problems."""

    run: Path
    """the run folder that holds the scorer, one of scorer train or of maporl"""
    out: Path
    """run folder of this evaluation"""
    task: Annotated[TaskSpec, tyro.conf.arg(name="")] = TaskSpec()
    engine: EngineSpec = EngineSpec()
    sampling: Sampling = Sampling(temperature=1.0, max_tokens=320)
    test_samples: int = 8
    seed: int = 0


def train(cfg: ScorerTraining, command: str = "") -> Run:
    """Train and measure; everything is in the run folder afterwards."""
    problems, test = splits(cfg.task)
    speakers = cfg.scorer.speakers
    base = base_team(cfg.model, seats(speakers, cfg.scorer.sampling), cfg.engine, cfg.scorer.lora.bits)
    check_lora(cfg.model, cfg.scorer.lora.targets, cfg.scorer.lora.shard, cfg.scorer.lora.bits)
    with Run(cfg.out, cfg, command, cfg.track) as run:
        folder = trained_scorer(run, cfg.scorer, problems, base, cfg.engine, cfg.seed, cfg.driver)
        how = Rollout(cfg.test_samples, cfg.seed, cfg.driver)
        measured(run, with_scorer(base, str(folder)), speakers, test, cfg.engine, how)
        return run


def evaluate(cfg: ScorerEvaluation, command: str = "") -> Run:
    """Measure; everything is in the run folder afterwards."""
    source, team, test = looked_at(cfg)
    with Run(cfg.out, cfg, command) as run:
        measured(run, team, source.scorer.speakers, test, cfg.engine, Rollout(cfg.test_samples, cfg.seed))
        return run


def looked_at(cfg: ScorerEvaluation) -> tuple[ScorerTraining, Team, Split]:
    """What an evaluation begins with, checked: how the scorer was made, who answers, and the test problems."""
    source = making_of(cfg.run)
    _, test = splits(cfg.task, source.task)
    who = seats(source.scorer.speakers, cfg.sampling)
    base = base_team(source.model, who, cfg.engine, source.scorer.lora.bits)
    team = with_scorer(base, str(finished(cfg.run / "scorer", "fit") / SCORER))
    return source, with_adapters(team, {SCORER: str(team[SCORER].adapter)}), test


def defaults(folder: Path) -> ScorerEvaluation:
    """An evaluation with the task and sampling that the scorer was made with."""
    cfg = making_of(folder)
    same = {name: getattr(cfg, name) for name in ("task", "engine", "test_samples", "seed")}
    return ScorerEvaluation(run=tyro.MISSING, out=tyro.MISSING, sampling=cfg.scorer.sampling, **same)


def making_of(folder: Path) -> ScorerTraining:
    """How the scorer of a run was made, by itself or for a team. Raises TeamtuneError where the run made none."""
    if stored_kind(folder) != "Maporl":
        return stored_options(ScorerTraining, folder)
    from teamtune.recipes.maporl_team import Maporl

    cfg = stored_options(Maporl, folder)
    if cfg.scorer != "learned" or cfg.scorer_from:
        had = f"has that of {cfg.scorer_from}" if cfg.scorer_from else f"was scored by {cfg.scorer}"
        raise TeamtuneError(f"run {str(folder)!r} made no scorer, it {had}; give a run that made one")
    same = {name: getattr(cfg, name) for name in ("out", "model", "engine", "seed")}
    return ScorerTraining(task=replace(cfg.task, train=cfg.scorer_questions), scorer=cfg.making, **same)


def trained_scorer(
    run: Run, options: Scorer, problems: Split, base: Team, engine: EngineSpec, seed: int, driver: Driver = "auto"
) -> Path:
    """The folder of a scorer trained on the base's answers to the problems, in the stages scorer/... of a run."""
    table, task = problems.sealed(run), problems.task
    answer, once = (partial(discussion, speakers=who) for who in (options.speakers, by_policy("shared", 1, 1)))
    grade = lambda name, turns: run.stage(f"scorer/{name}", grade_turns, turns, table, task, "train")  # noqa: E731
    turns = run.work("scorer/turns", rollout, table, base, answer, engine, Rollout(options.samples, seed, driver))
    grades = grade("grades", turns)
    more: list[Any] = []
    if options.asks:
        asked = run.stage("scorer/asked-for", all_asked_for, table, turns, grades, options.quota)
        again = Rollout(options.ask, seed + TEST_SEED, driver)
        found = run.work("scorer/more-turns", rollout, asked, base, once, engine, again)
        more = [run.stage("scorer/more", under_own_name, found)]
        more.append(grade("more-grades", more[0]))
    rows = run.stage("scorer/rows", judged_rows, table, turns, grades, *more, quota=options.quota, seed=seed)
    enough(rows, [SCORER])
    done = run.train(
        "scorer/fit", fit, rows, with_scorer(base, None), [SCORER], options.lora, options.scoring, options.fit, seed
    )
    return done.path / SCORER


def with_scorer(team: Team, folder: str | None) -> Team:
    """The team with a scorer's seat."""
    others = tuple(agent for agent in team.agents if agent.name != SCORER)
    return replace(team, agents=(*others, scorer_seat(folder)))


def all_asked_for(problems: Sequence[Row], turns: Sequence[Row], grades: Sequence[Row], quota: int) -> list[Row]:
    """The problems that lack right answers, then those that lack wrong ones; an id says of what kind is asked."""
    return [
        {**row, "id": f"{kind}:{row['id']}"}
        for kind in ("right", "wrong")
        for row in asked_for(problems, turns, grades, quota, kind == "right")
    ]


def under_own_name(turns: Sequence[Row]) -> list[Row]:
    """Turns of `all_asked_for` under the ids of the problems themselves; takes go on counting over both kinds."""
    takes = 1 + max((turn["take"] for turn in turns), default=0)
    rows = []
    for turn in turns:
        kind, _, problem = turn["problem"].partition(":")
        rows.append({**turn, "problem": problem, "take": turn["take"] + (takes if kind == "wrong" else 0)})
    return rows
