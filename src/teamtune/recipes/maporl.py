"""MAPoRL (Park et al., 2025): agents that discuss, all trained at once on what their answers do to the discussion.

a scorer -> multi-agent PPO on discussions (maporl_team.py) -> the team on test problems beside its baselines
(maporl_rivals.py), in discussions of several sizes -> the majority after every turn, and how answers moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from teamtune.models import check_targets, identity
from teamtune.protocols.discussion import seats
from teamtune.recipes.entrants import Arena, Entrant
from teamtune.recipes.maporl_rivals import entrant, rivals
from teamtune.recipes.maporl_team import Lab, Maporl, Trained, trained, untrained_team
from teamtune.recipes.scorer import SPEAKERS, measured, trained_scorer, with_scorer
from teamtune.recipes.stored import with_adapters
from teamtune.recipes.systems import TEST_SEED
from teamtune.scorer import check_scorer
from teamtune.store import Run, Table
from teamtune.tasks import Split, elsewhere, parted
from teamtune.transitions import by_turn, turn_rows
from teamtune.types import SCORER, Row, Team, TeamtuneError

__all__ = ["Maporl", "main"]
SCORED_ANSWERS = 4
"""answers to a test problem that a scorer made here is measured on"""


def main(cfg: Maporl, command: str = "") -> Run:
    """Train and compare; everything is in the run folder afterwards."""
    first, train, test = parted(cfg.task, cfg.scorer_questions if makes_scorer(cfg) else 0)
    others = [elsewhere(train.task, told) for told in cfg.eval_tasks]
    if cfg.engine.kind != "transformers":
        raise TeamtuneError(f"engine is {cfg.engine.kind}; MAPoRL samples with the model that it trains: transformers")
    for model in (cfg.model, *cfg.partners):
        check_targets(model, cfg.lora.targets)
    base = identified(untrained_team(cfg, given_scorer(cfg)))
    with Run(cfg.out, cfg, command, cfg.track) as run:
        team = base
        if makes_scorer(cfg):
            alone = replace(base, agents=seats(SPEAKERS, cfg.making.sampling))
            folder = str(trained_scorer(run, cfg.making, first, alone, cfg.engine, cfg.seed, cfg.driver))
            measured(run, with_scorer(alone, folder), test, cfg.engine, SCORED_ANSWERS, cfg.seed)
            team = replace(untrained_team(cfg, folder), weights=base.weights)
        lab = Lab(run, cfg, train, team)
        done = trained(lab)
        arena = Arena(run, cfg.engine, cfg.seed + TEST_SEED, cfg.driver)
        entrants = [*sizes(lab, done), *rivals(lab, done), whole(lab, done, 0)]
        for split in others:
            place = f"transfer/{split.place}"
            moving = [one for one in entrants if one.transfers]
            arena.compare(moving, split, place, f"{place}/comparison")
            after_every_turn(arena, moving, split, place, f"{place}/by-turn")
        arena.compare(entrants, test)
        after_every_turn(arena, entrants, test)
        return run


def makes_scorer(cfg: Maporl) -> bool:
    """Whether a scorer is trained in this run."""
    return cfg.scorer == "learned" and not cfg.scorer_from


def given_scorer(cfg: Maporl) -> str | None:
    """The folder of a scorer that is there already. Raises TeamtuneError where it is none."""
    if not cfg.scorer_from:
        return None
    inside = Path(cfg.scorer_from) / "scorer" / "fit" / SCORER
    folder = str(inside) if inside.exists() else cfg.scorer_from
    check_scorer(folder)
    return folder


def identified(team: Team) -> Team:
    """The team with what tells its weights apart. A base that cannot be had stops here."""
    named = replace(team, weights=" ".join(map(identity, team.models)))
    scorer = next((agent.adapter for agent in team.agents if agent.name == SCORER), None)
    return with_adapters(named, {SCORER: scorer}) if scorer else named


def whole(lab: Lab, done: Trained, number: int) -> Entrant:
    """The trained team in discussions of one of the sizes."""
    told = lab.cfg.sizes[number]
    name, place = ("MAPoRL", "team") if number == 0 else (f"MAPoRL, {told}", f"team-{told}")
    return entrant(name, place, done.team, lab.cfg.talk(lab.cfg.speakers_of(told)), done.tokens, transfers=not number)


def sizes(lab: Lab, done: Trained) -> Iterator[Entrant]:
    """The untrained and the trained team in discussions of the further sizes."""
    for number, told in enumerate(lab.cfg.sizes[1:], start=1):
        protocol = lab.cfg.talk(lab.cfg.speakers_of(told))
        yield entrant(f"Off-the-shelf, {told}", f"base-{told}", lab.team, protocol, transfers=False)
        yield whole(lab, done, number)


@dataclass(frozen=True, slots=True)
class Discussed:
    """A system's answers turn by turn."""

    name: str
    turns: Table


def after_every_turn(
    arena: Arena, entrants: Sequence[Entrant], split: Split, root: str = "test", name: str = "by-turn"
) -> Table:
    """The majority after every turn, and how answers moved, of all entrants; against the untrained discussion."""
    found = []
    for one in entrants:
        played = arena.play(one, split, root)
        moves = arena.run.stage(f"{root}/{one.place}/moves", turn_rows, played.turns, played.grades)
        found.append(Discussed(one.name, moves))
    return arena.run.stage(name, by_turn_rows, found)


def by_turn_rows(systems: Sequence[Discussed]) -> list[Row]:
    """Rows of `transitions.by_turn` of every system; differences are from "Off-the-shelf" at the same turn."""
    tables = {one.name: one.turns.rows() for one in systems}
    against = tables.get("Off-the-shelf")
    rows: list[Row] = []
    for name, table in tables.items():
        other = against if name != "Off-the-shelf" else None
        rows += by_turn(name, table, other)
    return rows
