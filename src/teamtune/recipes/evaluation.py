"""A trained team on test problems: another task or level, fewer roles, or some seats put back to the base.

The ablations of MALT's paper are runs of this on one trained team:

    teamtune eval --run runs/a --out runs/a-no-verifier --untrained verifier      one seat untrained
    teamtune eval --run runs/a --out runs/a-gr --roles GR                         fewer roles
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from teamtune.engines import EngineSpec
from teamtune.protocols.pipeline import seats
from teamtune.recipes.systems import System, compare, play_pipeline, trained_tokens
from teamtune.store import Run, read_table
from teamtune.tasks import TaskSpec, check_apart
from teamtune.types import Sampling, Team, TeamtuneError

T = TypeVar("T")


@dataclass(frozen=True)
class Evaluation:
    """Evaluate the team of a finished run; what is not given is as in that run."""

    run: Path
    """the run folder that holds the trained team"""
    out: Path
    """run folder of this evaluation"""
    task: Annotated[TaskSpec, tyro.conf.arg(name="")] = TaskSpec()
    stage: Literal["dpo", "sft"] = "dpo"
    """which weights: after DPO, or after SFT alone (STaR)"""
    roles: Literal["G", "GV", "GR", "GVR"] = "GVR"
    """which roles play"""
    untrained: tuple[str, ...] = ()
    """seats that the base takes instead"""
    engine: EngineSpec = EngineSpec()
    sampling: Sampling = Sampling(temperature=1.0, max_tokens=320)
    votes: int = 3
    seed: int = 0


def main(cfg: Evaluation, command: str = "") -> Run:
    team = trained_team(cfg.run, cfg.sampling, cfg.stage).adopt(dict.fromkeys(cfg.untrained))
    check_apart(trained_on(cfg.run).load("train"), cfg.task.load("test"))
    seed = cfg.seed + 1_000_003
    name = f"{cfg.roles}{''.join(f', {seat} untrained' for seat in cfg.untrained)}"
    tokens = tokens_of(cfg.run, cfg.stage)
    with Run(cfg.out, cfg, command) as run:
        played = play_pipeline(run, "test/team", cfg.task, team, cfg.engine, cfg.votes, seed, cfg.roles)
        systems = [
            System(f"{name}, one pass", played, 0, tokens),
            System(f"{name} + MV@{cfg.votes}", played, cfg.votes, tokens),
        ]
        run.stage("comparison", compare, systems, against=systems[-1].name)
        return run


def _config(folder: Path) -> dict[str, Any]:
    """The options of a run that trained a team."""
    file = folder / "config.json"
    if not file.exists():
        raise TeamtuneError(f"{str(folder)!r} is no run folder: it holds no config.json")
    config = json.loads(file.read_text())["config"]
    if config.get("__type__") != "Malt":
        raise TeamtuneError(
            f"{str(folder)!r} is a run of {config.get('__type__')}, which trains no team; give a malt run"
        )
    return config


def _of(kind: type[T], stored: dict[str, Any]) -> T:
    return kind(**{name: value for name, value in stored.items() if name != "__type__"})


def defaults(folder: Path) -> Evaluation:
    """An evaluation with the task, sampling and votes that the run was made with."""
    config = _config(folder)
    return Evaluation(
        run=tyro.MISSING,
        out=tyro.MISSING,
        task=_of(TaskSpec, config["task"]),
        engine=_of(EngineSpec, config["engine"]),
        sampling=_of(Sampling, config["sampling"]),
        votes=config["votes"],
        seed=config["seed"],
    )


def trained_on(folder: Path) -> TaskSpec:
    """The task that a run was trained on."""
    return _of(TaskSpec, _config(folder)["task"])


def rounds_of(folder: Path) -> list[Path]:
    """The folders that hold a run's rounds, in order."""
    rounds = _config(folder)["rounds"]
    return [folder / f"round-{number + 1}" for number in range(rounds)] if rounds > 1 else [folder]


def tokens_of(folder: Path, stage: str) -> int:
    """Target tokens that the run has trained on up to the stage, over all its rounds and epochs."""
    config = _config(folder)
    total = 0
    *before, last = rounds_of(folder)
    for place in [*before, last]:
        for rows, name in (("sft-rows", "sft"), ("pairs", "dpo")):
            if (place / rows / "DONE.json").exists() and not (place == last and name == "dpo" and stage == "sft"):
                total += config[name]["epochs"] * trained_tokens(read_table(place / rows))
    return total


def trained_team(folder: Path, sampling: Sampling, stage: Literal["dpo", "sft"] = "dpo") -> Team:
    """The team that a run trained; a seat without an adapter of the stage has the one of the stage before."""
    config, last = _config(folder), rounds_of(folder)[-1]
    stages = ["sft", "dpo"] if stage == "dpo" else ["sft"]
    team = Team(config["model"], seats(sampling))
    for name in stages:
        if not (last / name).exists():
            continue
        read_table(last / name)  # an unsealed stage holds no finished adapters
        found = {a.name: str(last / name / a.name) for a in team.agents if (last / name / a.name).exists()}
        team = team.adopt(found)
    if all(agent.adapter is None for agent in team.agents):
        raise TeamtuneError(f"{str(folder)!r} holds no trained team; finish its recipe first")
    return team
