"""A trained team on test problems: another task or level, fewer roles, or some seats put back to the base.

The ablations of MALT's paper are runs of this on one trained team:

    teamtune eval --run runs/a --out runs/a-no-verifier --untrained verifier      one seat untrained
    teamtune eval --run runs/a --out runs/a-gr --roles GR                         fewer roles
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from teamtune.adapters import check_adapter
from teamtune.engines import EngineSpec
from teamtune.models import fingerprint
from teamtune.protocols.pipeline import ROLES, seats
from teamtune.recipes.malt import Malt, preferring_seats
from teamtune.recipes.systems import System, base_team, compare, play_pipeline, trained_tokens
from teamtune.store import Run, read_table
from teamtune.tasks import TaskSpec, splits
from teamtune.types import Sampling, Team, TeamtuneError

T = TypeVar("T")
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
    team = trained_team(cfg.run, cfg.sampling, cfg.stage).adopt(dict.fromkeys(cfg.untrained))
    _, test = splits(cfg.task, trained_on(cfg.run))
    seed = cfg.seed + 1_000_003
    name = f"{cfg.roles}{''.join(f', {seat} untrained' for seat in cfg.untrained)}"
    playing = [seat for seat in ROLES if seat[0].upper() in cfg.roles and seat not in cfg.untrained]
    tokens = tokens_of(cfg.run, cfg.stage, playing)
    with Run(cfg.out, cfg, command) as run:
        played = play_pipeline(run, "test/team", test, team, cfg.engine, cfg.votes, seed, cfg.roles)
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
    try:
        config = dict(json.loads(file.read_bytes())["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise TeamtuneError(f"{file} is corrupt; mend it, or train again in another folder") from error
    if config.get("__type__") != "Malt":
        raise TeamtuneError(
            f"{str(folder)!r} is a run of {config.get('__type__')}, which trains no team; give a malt run"
        )
    missing = {field.name for field in fields(Malt)} - config.keys()
    if missing:
        raise TeamtuneError(
            f"{file} lacks {', '.join(sorted(missing))}: another version made it, or it is corrupt; train again"
        )
    return config


def _of(kind: type[T], stored: dict[str, Any]) -> T:
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
    return kind(**{name: value for name, value in plain.items() if name != "__type__"})


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


def tokens_of(folder: Path, stage: Stage, playing: Sequence[str]) -> Counter[str]:
    """Target tokens that the playing seats were trained on up to the stage, over all the run's rounds and epochs."""
    config = _config(folder)
    total: Counter[str] = Counter()
    for place in rounds_of(folder):
        total += trained_tokens(read_table(place / "sft-rows"), config["sft"]["epochs"], playing)
        later = place == rounds_of(folder)[-1] and stage == "sft"
        if _preferring(config) and not later:
            total += trained_tokens(read_table(place / "pairs"), config["dpo"]["epochs"], playing)
    return total


def _preferring(config: dict[str, Any]) -> list[str]:
    return preferring_seats(config["train_seats"], config["dpo_generator"])


def trained_team(folder: Path, sampling: Sampling, stage: Stage = "dpo") -> Team:
    """The team that a run trained; a seat that the stage does not train has the adapter of the stage before.

    Raises TeamtuneError where a stage of the run is unfinished or one of its adapters is gone.
    """
    config, last = _config(folder), rounds_of(folder)[-1]
    adapters = {seat: str(last / "sft" / seat) for seat in config["train_seats"]}
    stages = ["sft"]
    if stage == "dpo" and _preferring(config):
        adapters |= {seat: str(last / "dpo" / seat) for seat in _preferring(config)}
        stages.append("dpo")
    for name in stages:
        if not (last / name / "DONE.json").exists():
            less = "; --stage sft takes the team as it is before DPO" if name == "dpo" else ""
            raise TeamtuneError(
                f"{str(folder)!r} holds no trained team, its {name} is not done; finish its recipe first{less}"
            )
    prints = [fingerprint(check_adapter(path)) for path in adapters.values()]
    team = base_team(config["model"], seats(sampling), _of(EngineSpec, config["engine"])).adopt(adapters)
    return replace(team, weights=" ".join([team.weights, *prints]))
