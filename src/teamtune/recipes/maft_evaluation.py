"""A team of generators and critics on other problems, at other debates, or with some seats put back to the base.

teamtune eval --run runs/m --out runs/m-harder --level 4
teamtune eval --run runs/m --out runs/m-longer --rounds 3
teamtune eval --run runs/m --out runs/m-no-critic-1 --untrained critic-1
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from teamtune.embed import check_encoder
from teamtune.engines import EngineSpec
from teamtune.protocols import exchange
from teamtune.protocols.exchange import Manner, Summary
from teamtune.recipes.entrants import Arena, Entrant
from teamtune.recipes.maft_team import Maft, varied
from teamtune.recipes.measures import Measures, measure
from teamtune.recipes.stored import finished, stored_options, with_adapters
from teamtune.recipes.systems import TEST_SEED, base_team, trained_tokens
from teamtune.store import Run, read_table
from teamtune.tasks import Split, TaskSpec, splits
from teamtune.types import Sampling, Team, TeamtuneError


@dataclass(frozen=True)
class MaftEvaluation:
    """Evaluate the team of a finished run of maft beside its base; what is not given is as in that run."""

    run: Path
    """the run folder that holds the trained team"""
    out: Path
    """run folder of this evaluation"""
    task: Annotated[TaskSpec, tyro.conf.arg(name="")] = TaskSpec()
    iteration: int = 0
    """which iteration's team; 0 takes the last one's"""
    rounds: int = 2
    summary: Summary = "base"
    manner: Manner = "contest"
    untrained: tuple[str, ...] = ()
    """seats that the base takes instead"""
    engine: EngineSpec = EngineSpec()
    sampling: Sampling = Sampling(temperature=1.0, top_p=0.9, max_tokens=320)
    measures: Measures = Measures()
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("iteration", 0), ("rounds", 2)):
            if getattr(self, name) < least:
                raise TeamtuneError(f"{name} is {getattr(self, name)}; it must be {least} or above")


def main(cfg: MaftEvaluation, command: str = "") -> Run:
    """Play and compare; everything is in the run folder afterwards. A killed run goes on where it was."""
    source, team, test = looked_at(cfg)
    name = ", ".join(["Trained team", *(f"{seat} untrained" for seat in cfg.untrained)])
    entrants = [
        Entrant("Untrained team", "base", team.adopt(dict.fromkeys(team.names)), source.debate),
        Entrant(name, "team", team, source.debate, tokens_of(cfg, source)),
    ]
    with Run(cfg.out, cfg, command) as run:
        arena = Arena(run, cfg.engine, cfg.seed + TEST_SEED)
        for one in entrants:
            measure(run, f"test/{one.place}", arena.play(one, test), one.team, exchange.SUMMARISER_SEAT, cfg.measures)
        arena.compare(entrants, test)
        return run


def looked_at(cfg: MaftEvaluation) -> tuple[Maft, Team, Split]:
    """What an evaluation begins with, checked: the options, the team with its untrained seats, and test problems."""
    source = as_asked(cfg)
    team = trained_team(cfg, source).adopt(dict.fromkeys(cfg.untrained))
    _, test = splits(cfg.task, source.task)
    check_encoder(cfg.measures.encoder, cfg.measures.pooling)
    return source, team, test


def as_asked(cfg: MaftEvaluation) -> Maft:
    """The options of the run with those of the evaluation in their place."""
    source = stored_options(Maft, cfg.run)
    return varied(source, baselines=(), rounds=cfg.rounds, summary=cfg.summary, manner=cfg.manner)


def defaults(folder: Path) -> MaftEvaluation:
    """An evaluation with the task, debate and sampling that the run was made with."""
    cfg = stored_options(Maft, folder)
    same = ("task", "rounds", "summary", "manner", "engine", "sampling", "measures", "seed")
    return MaftEvaluation(run=tyro.MISSING, out=tyro.MISSING, **{name: getattr(cfg, name) for name in same})


def trained_team(cfg: MaftEvaluation, source: Maft) -> Team:
    """The team after the iteration asked for."""
    number = cfg.iteration or source.iterations
    if number > source.iterations:
        raise TeamtuneError(f"iteration is {number}, but the run has {source.iterations}; take one of those")
    folder = finished(cfg.run / f"iteration-{number}", source.objective)  # stages are named after it
    base = base_team(source.model, exchange.seats(source.names, cfg.sampling), cfg.engine, source.lora.bits)
    return with_adapters(base, {name: str(folder / name) for name in source.learners})


def tokens_of(cfg: MaftEvaluation, source: Maft) -> Counter[str]:
    """Target tokens that the seats which are not put back were trained on, up to the iteration asked for."""
    fits = {"sft": {"sft-rows": source.sft}, "ppo": {"ppo-rows": source.ppo}}
    fits["dpo"] = {"sft-rows": source.sft, "pairs": source.dpo}
    playing = [name for name in source.learners if name not in cfg.untrained]
    total: Counter[str] = Counter()
    for number in range(1, (cfg.iteration or source.iterations) + 1):
        for stage, fit in fits[source.objective].items():
            total += trained_tokens(
                read_table(cfg.run / f"iteration-{number}" / stage), source.model, fit.epochs, playing
            )
    return total
