"""A team that was trained to discuss, on other problems, in discussions of other sizes, or with some seats untrained.

teamtune eval --run runs/d --out runs/d-harder --level 4
teamtune eval --run runs/d --out runs/d-sizes --sizes 2x3 3x3 5x2
teamtune eval --run runs/d --out runs/d-unscored --no-feedback
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from teamtune.engines import EngineSpec
from teamtune.engines.spec import check_seats
from teamtune.protocols.discussion import Early
from teamtune.recipes.entrants import Arena
from teamtune.recipes.maporl import after_every_turn, identified, problems_before
from teamtune.recipes.maporl_rivals import entrant
from teamtune.recipes.maporl_team import Maporl, alone, size, trained_tokens_of, untrained_team
from teamtune.recipes.scorer_source import check_unseen, scorer_folder
from teamtune.recipes.stored import finished, stored_options, with_adapters
from teamtune.recipes.systems import TEST_SEED
from teamtune.store import Run
from teamtune.tasks import Split, TaskSpec, splits
from teamtune.types import SCORER, Sampling, Team, TeamtuneError


@dataclass(frozen=True)
class MaporlEvaluation:
    """Evaluate the team of a finished run of maporl beside its base; what is not given is as in that run."""

    run: Path
    """the run folder that holds the trained team"""
    out: Path
    """run folder of this evaluation"""
    task: Annotated[TaskSpec, tyro.conf.arg(name="")] = TaskSpec()
    sizes: tuple[str, ...] = ("3x3",)
    """agents x turns of the discussions"""
    feedback: bool = True
    early: Early = Early()
    untrained: tuple[str, ...] = ()
    """seats that the base takes instead"""
    engine: EngineSpec = EngineSpec()
    sampling: Sampling = Sampling(temperature=0.7, max_tokens=300)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.sizes:
            raise TeamtuneError("sizes names no discussion; give for example 3x3")
        for told in self.sizes:
            size(told)


def main(cfg: MaporlEvaluation, command: str = "") -> Run:
    """Play and compare; everything is in the run folder afterwards. A killed run goes on where it was."""
    source, test, base, playing = looked_at(cfg)
    folder = finished(cfg.run, "ppo")
    team = with_adapters(base, {name: str(folder / name) for name in playing})
    tokens = trained_tokens_of(cfg.run, "ppo", playing, source.ppo)
    first, *others = cfg.sizes
    named = ", ".join(["MAPoRL", *(f"{seat} untrained" for seat in cfg.untrained)])
    entrants = []
    for told in (*others, first):  # the team that others are compared with comes last, as in the run itself
        speakers = source.speakers_of(told)
        protocol, more = source.talk(speakers), f", {told}" if others else ""
        own = {name: tokens[name] for name in playing if any(name in seats for seats in speakers)}
        entrants.append(entrant(f"Off-the-shelf{more}", f"base-{told}", base, protocol))
        entrants.append(entrant(f"{named}{more}", f"team-{told}", team, protocol, own))
    with Run(cfg.out, cfg, command) as run:
        arena = Arena(run, cfg.engine, cfg.seed + TEST_SEED, unparsed="class")
        arena.compare(entrants, test)
        after_every_turn(arena, entrants, test)
        return run


def looked_at(cfg: MaporlEvaluation) -> tuple[Maporl, Split, Team, list[str]]:
    """What an evaluation begins with, checked: the options, the test problems, the untrained team, and the seats that
    play as they were trained."""
    source = as_asked(cfg)
    _, test = splits(cfg.task, whole_task(source))
    if source.scorer_from and not cfg.task.allow_leaks:
        check_unseen(source.scorer_from, test=cfg.task.load("test"))
    base = identified(untrained_team(source, scorer_of(cfg, source)))
    check_seats(cfg.engine, base.names)
    policies = base.trainable
    for name in cfg.untrained:
        if name not in policies:
            raise TeamtuneError(f"untrained names {name!r}, which is no trained seat; there are {', '.join(policies)}")
    return source, test, base, [name for name in policies if name not in cfg.untrained]


def as_asked(cfg: MaporlEvaluation) -> Maporl:
    """The options of the run with those of the evaluation in their place."""
    source = stored_options(Maporl, cfg.run)
    same = {name: getattr(cfg, name) for name in ("sizes", "feedback", "early", "sampling")}
    return replace(alone(source), **same)


def scorer_of(cfg: MaporlEvaluation, source: Maporl) -> str | None:
    """The folder of the scorer that the run had, its own or one from elsewhere; None where it had none."""
    if source.scorer != "learned":
        return None
    if source.scorer_from:
        return scorer_folder(source.scorer_from)
    return str(finished(cfg.run / "scorer", "fit") / SCORER)


def whole_task(source: Maporl) -> TaskSpec:
    """All that a run was trained on, its scorer's problems included."""
    return replace(source.task, train=source.task.train + problems_before(source))


def defaults(folder: Path) -> MaporlEvaluation:
    """An evaluation with the task, discussion and sampling that the run was made with."""
    cfg = stored_options(Maporl, folder)
    same = ("task", "sizes", "feedback", "early", "engine", "sampling", "seed")
    return MaporlEvaluation(run=tyro.MISSING, out=tyro.MISSING, **{name: getattr(cfg, name) for name in same})
