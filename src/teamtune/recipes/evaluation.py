"""A trained team on test problems: another task or level, fewer roles, or some seats put back to the base.

The ablations of MALT's paper are runs of this on one trained team:

    teamtune eval --run runs/a --out runs/a-no-verifier --untrained verifier      one seat untrained
    teamtune eval --run runs/a --out runs/a-gr --roles GR                         fewer roles
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from teamtune.engines import EngineSpec
from teamtune.protocols.pipeline import ROLES, seats
from teamtune.recipes.malt import Malt, preferring_seats
from teamtune.recipes.stored import finished, stored_options, with_adapters
from teamtune.recipes.systems import TEST_SEED, System, base_team, compare, play_pipeline, trained_tokens
from teamtune.rollout import Rollout
from teamtune.store import Run, read_table
from teamtune.tasks import Split, TaskSpec, splits
from teamtune.types import Sampling, Team, TeamtuneError

Stage = Literal["dpo", "sft"]


@dataclass(frozen=True)
class Evaluation:
    """Evaluate the team of a finished run; what is not given is as in that run."""

    run: Path
    """the run folder that holds the trained team"""
    out: Path
    """run folder of this evaluation"""
    task: Annotated[TaskSpec, tyro.conf.arg(name="")] = TaskSpec()
    stage: Stage = "dpo"
    """which weights: after DPO, or after SFT alone (STaR)"""
    roles: Literal["G", "GV", "GR", "GVR"] = "GVR"
    """which roles play"""
    untrained: tuple[str, ...] = ()
    """seats that the base takes instead"""
    engine: EngineSpec = EngineSpec()
    sampling: Sampling = Sampling(temperature=1.0, max_tokens=320)
    votes: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.votes < 1:
            raise TeamtuneError(f"votes is {self.votes}; it must be 1 or above")


def main(cfg: Evaluation, command: str = "") -> Run:
    """Play and compare; everything is in the run folder afterwards. A killed run goes on where it was."""
    team, test = looked_at(cfg)
    seed = cfg.seed + TEST_SEED
    name = f"{cfg.roles}{''.join(f', {seat} untrained' for seat in cfg.untrained)}"
    playing = [seat for seat in ROLES if seat[0].upper() in cfg.roles and seat not in cfg.untrained]
    tokens = tokens_of(cfg.run, cfg.stage, playing)
    with Run(cfg.out, cfg, command) as run:
        played = play_pipeline(run, "test/team", test, team, cfg.engine, Rollout(cfg.votes, seed), cfg.roles)
        systems = [
            System(f"{name}, one pass", played, 0, tokens),
            System(f"{name} + MV@{cfg.votes}", played, cfg.votes, tokens),
        ]
        run.stage("comparison", compare, systems, against=systems[-1].name)
        return run


def looked_at(cfg: Evaluation) -> tuple[Team, Split]:
    """What an evaluation begins with, checked: the team with its untrained seats, and the test problems."""
    team = trained_team(cfg.run, cfg.sampling, cfg.engine, cfg.stage).adopt(dict.fromkeys(cfg.untrained))
    return team, splits(cfg.task, stored_options(Malt, cfg.run).task)[1]


def defaults(folder: Path) -> Evaluation:
    """An evaluation with the task, sampling and votes that the run was made with."""
    cfg = stored_options(Malt, folder)
    same = ("task", "engine", "sampling", "votes", "seed")
    return Evaluation(run=tyro.MISSING, out=tyro.MISSING, **{name: getattr(cfg, name) for name in same})


def rounds_of(cfg: Malt) -> list[Path]:
    """The folders that hold a run's rounds, in order."""
    return [cfg.out / f"round-{number + 1}" for number in range(cfg.rounds)] if cfg.rounds > 1 else [cfg.out]


def tokens_of(folder: Path, stage: Stage, playing: Sequence[str]) -> Counter[str]:
    """Target tokens that the playing seats were trained on up to the stage, over all the run's rounds and epochs."""
    cfg = stored_options(Malt, folder)
    total: Counter[str] = Counter()
    for place in rounds_of(cfg):
        total += trained_tokens(read_table(place / "sft-rows"), cfg.model, cfg.sft.epochs, playing)
        later = place == rounds_of(cfg)[-1] and stage == "sft"
        if _preferring(cfg) and not later:
            total += trained_tokens(read_table(place / "pairs"), cfg.model, cfg.dpo.epochs, playing)
    return total


def _preferring(cfg: Malt) -> list[str]:
    return preferring_seats(cfg.train_seats, cfg.dpo_generator)


def trained_team(folder: Path, sampling: Sampling, engine: EngineSpec, stage: Stage = "dpo") -> Team:
    """The team that a run trained, which may be asked by another engine than in training; a seat that the stage does
    not train has the adapter of the stage before.

    Raises TeamtuneError where a stage of the run is unfinished or one of its adapters is gone.
    """
    cfg = stored_options(Malt, folder)
    last = rounds_of(cfg)[-1]
    adapters = {seat: str(finished(last, "sft") / seat) for seat in cfg.train_seats}
    if stage == "dpo" and _preferring(cfg):
        less = "; --stage sft takes the team as it is before DPO"
        adapters |= {seat: str(finished(last, "dpo", less) / seat) for seat in _preferring(cfg)}
    return with_adapters(base_team(cfg.model, seats(sampling), engine, cfg.lora.bits), adapters)
