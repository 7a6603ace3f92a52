"""The baselines alone: one agent, one agent with votes, the untrained pipeline and debate, at equal calls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from teamtune.engines import EngineSpec
from teamtune.given import given
from teamtune.protocols.pipeline import seats
from teamtune.recipes.systems import (
    TEST_SEED,
    System,
    alone_and_together,
    base_team,
    compare,
    play_debate,
    play_pipeline,
    play_solo,
)
from teamtune.rollout import Rollout
from teamtune.store import Run
from teamtune.tasks import TaskSpec, held_out_split
from teamtune.tasks.spec import endless
from teamtune.types import Sampling, TeamtuneError


@dataclass(frozen=True)
class Baselines:
    """Measure the untrained baselines on a task's test problems."""

    out: Path
    task: Annotated[TaskSpec, tyro.conf.arg(name="")] = TaskSpec()
    model: str = "house"
    engine: EngineSpec = EngineSpec()
    sampling: Sampling = Sampling(temperature=1.0, max_tokens=320)
    votes: int = 3
    """passes of the pipeline that vote; one agent alone gets three times as many answers, the same number of calls"""
    debaters: int = 3
    """agents and rounds of the debate"""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("votes", "debaters"):
            if getattr(self, name) < 1:
                raise TeamtuneError(f"{name} is {getattr(self, name)}; it must be 1 or above")
        told = given(self.task)
        idle = [name for name in ("allow_leaks", "unlabelled") if name in told]
        if "train" in told and endless(self.task.name("test")):
            idle.append("train")  # a data set keeps what is trained on apart from what is tested
        if idle:
            raise TeamtuneError(
                f"--{idle[0].replace('_', '-')} has no use for baselines, which train on nothing; leave it out"
            )
        if self.engine.openai.load_adapters:
            raise TeamtuneError("engine.openai.load_adapters has no use for untrained baselines; leave it out")


def main(cfg: Baselines, command: str = "") -> Run:
    """Play and compare; everything is in the run folder afterwards. A killed run goes on where it was."""
    test = held_out_split(cfg.task)  # an unknown task stops here, before the run folder is made
    team, seed = base_team(cfg.model, seats(cfg.sampling), cfg.engine), cfg.seed + TEST_SEED
    with Run(cfg.out, cfg, command) as run:
        alone = play_solo(run, "test/base-solo", test, team, cfg.engine, Rollout(3 * cfg.votes, seed))
        together = play_pipeline(run, "test/base", test, team, cfg.engine, Rollout(cfg.votes, seed))
        talked = play_debate(run, "test/debate", test, team, cfg.sampling, cfg.engine, Rollout(1, seed), cfg.debaters)
        systems = [
            *alone_and_together("", alone, together, cfg.votes),
            System(f"Debate {cfg.debaters}x{cfg.debaters}", talked, votes=1),
        ]
        run.stage("comparison", compare, systems, against=f"MA + MV@{cfg.votes}")
        return run
