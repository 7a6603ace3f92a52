"""MAPoRL (Park et al., 2025): agents that discuss, all trained at once on what their answers do to the discussion.

a scorer -> multi-agent PPO on discussions (maporl_team.py) -> the team on test problems beside its baselines
(maporl_rivals.py), in discussions of several sizes -> the majority after every turn, and how answers moved.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from teamtune.engines.spec import check_ppo, check_seats
from teamtune.launcher import several
from teamtune.models import check_lora, identity
from teamtune.play import ProtocolFn
from teamtune.protocols.discussion import seats
from teamtune.recipes.entrants import Arena, Entrant
from teamtune.recipes.maporl_rivals import PAID, entrant, rivals, sft_rows
from teamtune.recipes.maporl_team import Lab, Maporl, Trained, size, trained, untrained_team
from teamtune.recipes.scorer import trained_scorer, with_scorer
from teamtune.recipes.scorer_measures import measured
from teamtune.recipes.scorer_source import check_bits, check_unseen, questions_before, run_of, scorer_folder
from teamtune.recipes.stored import with_adapters
from teamtune.recipes.systems import TEST_SEED
from teamtune.rollout import Rollout
from teamtune.store import Run, Table
from teamtune.tasks import Split, all_elsewhere, parted
from teamtune.train.ppo import check_sampling
from teamtune.transitions import by_turn, shifts, turn_rows
from teamtune.types import SCORER, Row, Team, TeamtuneError
from teamtune.warn import warn

__all__ = ["Maporl", "main"]
SCORED_ANSWERS = 4
"""answers to a test problem that a scorer made here is measured on"""


def main(cfg: Maporl, command: str = "") -> Run:
    """Train and compare; everything is in the run folder afterwards."""
    before = problems_before(cfg)
    first, train, test = parted(cfg.task, before)
    others = all_elsewhere(train.task, cfg.eval_tasks)
    check_places(cfg, train)
    check_bits(cfg)
    for model in (cfg.model, *cfg.partners):
        check_lora(model, cfg.lora.targets, cfg.lora.shard, cfg.lora.bits)
    if makes_scorer(cfg):
        check_lora(cfg.model, cfg.making.lora.targets, False, cfg.making.lora.bits)
    base = identified(untrained_team(cfg, given_scorer(cfg, test, others, before)))
    with Run(cfg.out, cfg, command, cfg.track) as run:
        team = base
        if makes_scorer(cfg):
            speakers = cfg.making.speakers
            alone = replace(base, agents=seats(speakers, cfg.making.sampling))
            folder = str(trained_scorer(run, cfg.making, first, alone, cfg.engine, cfg.seed, cfg.driver))
            how = Rollout(SCORED_ANSWERS, cfg.seed, cfg.driver)
            measured(run, with_scorer(alone, folder), speakers, test, cfg.engine, how)
            team = replace(untrained_team(cfg, folder), weights=base.weights)
        lab = Lab(run, cfg, train, team)
        if "sft" in cfg.baselines:
            sft_rows(lab)
        done = trained(lab)
        arena = Arena(run, cfg.engine, cfg.seed + TEST_SEED, cfg.driver, unparsed="class")
        entrants = [*sizes(lab, done), *rivals(lab, done), whole(lab, done, 0)]
        for split in others:
            place = f"transfer/{split.place}"
            moving = [one for one in entrants if one.transfers]
            arena.compare(moving, split, place, f"{place}/comparison")
            after_every_turn(arena, moving, split, place, f"{place}/by-turn")
        arena.compare(entrants, test)
        after_every_turn(arena, entrants, test)
        if "incentives" in cfg.baselines:
            paid = [one for one in entrants if one.place.startswith(PAID)]
            run.stage("shifts", shift_rows, discussed(arena, [entrants[-1], *paid], test))
        return run


def check_places(cfg: Maporl, train: Split) -> None:
    """Raises TeamtuneError where the team cannot be sampled from, or trained, where and as the options say."""
    start, end = train.span or (0, cfg.task.train)
    cfg.ppo.check_problems(end - start)
    if cfg.engine.kind != "transformers" and cfg.lora.bits == 4:
        raise TeamtuneError(
            f"engine.kind {cfg.engine.kind} samples from the whole base, and lora.bits 4 trains on another; PPO needs "
            "one: take engine.kind transformers, which samples from the base in 4 bits, or lora.bits 16"
        )
    for told in cfg.sizes:
        if cfg.frozen and size(told)[1] == 1:
            raise TeamtuneError(
                f"size {told} has 1 turn and the first one is frozen, so that nobody in it is trained; give it more "
                "turns, or take baseline votes, which is what the base alone answers"
            )
    if several():
        raise TeamtuneError("PPO trains in one process, and this is one of several; run it without a launcher")
    if cfg.lora.shard or (makes_scorer(cfg) and cfg.making.lora.shard):
        raise TeamtuneError("lora.shard has no use in MAPoRL, whose training is one process; leave it out")
    if cfg.partners and cfg.engine.kind == "openai":
        raise TeamtuneError("a server holds one base, and the partners have others; take another engine.kind")
    team = Team(cfg.model, seats(cfg.speakers, cfg.sampling))
    check_seats(cfg.engine, team.names)
    check_ppo(cfg.engine, team.trainable)
    check_sampling(team, team.trainable)


def given_scorer(cfg: Maporl, test: Split, further: Sequence[Split], before: int) -> str | None:
    """The folder of a scorer that is there already, None where there is none. It must not have seen the team's
    problems, which come after the first `before` ones, nor those of further tasks."""
    others = [model for model in dict.fromkeys(cfg.partners) if model != cfg.model]
    if cfg.scorer == "learned" and others:
        told = f"the scorer is trained on answers of {cfg.model} and scores those of {', '.join(others)} too; in the "
        told += "paper a scorer of another family than those who answer misled training (G.7)"
        warn(told)
    if not cfg.scorer_from:
        return None
    folder = scorer_folder(cfg.scorer_from)
    if run_of(cfg.scorer_from) is None:
        told = f"no run that made {cfg.scorer_from} is there, so nobody can tell which problems it has seen"
        warn(told)
    if not cfg.task.allow_leaks:
        own = test.task.load("train")[before:]
        tests = {f"test ({split.place or 'own'})": split.task.load("test") for split in (test, *further)}
        check_unseen(cfg.scorer_from, training=own, **tests)
    return folder


def makes_scorer(cfg: Maporl) -> bool:
    """Whether a scorer is trained in this run."""
    return cfg.scorer == "learned" and not cfg.scorer_from


def problems_before(cfg: Maporl) -> int:
    """How many training problems are the scorer's, so that the team's come after them."""
    if makes_scorer(cfg):
        return cfg.scorer_questions
    return questions_before(cfg.scorer_from, cfg.task) if cfg.scorer_from else 0


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
    return arena.run.stage(name, by_turn_rows, discussed(arena, entrants, split, root))


def discussed(arena: Arena, entrants: Sequence[Entrant], split: Split, root: str = "test") -> list[Discussed]:
    """The answers of all entrants turn by turn."""
    found = []
    for one in entrants:
        played = arena.play(one, split, root)
        most = turns_of(one.protocol)
        moves = arena.run.stage(f"{root}/{one.place}/moves", turn_rows, played.turns, played.grades, most)
        found.append(Discussed(one.name, moves))
    return found


def turns_of(talk: ProtocolFn) -> int:
    """The turns of a discussion that `Maporl.talk` made, however early it may end."""
    assert isinstance(talk, partial)
    return len(talk.keywords["speakers"])


def shift_rows(systems: Sequence[Discussed]) -> list[Row]:
    """Rows of `transitions.shifts` of teams that were paid incentives, against the first one, which was not."""
    without, *paid = [(one.name, one.turns.rows()) for one in systems]
    return [row for name, rows in paid for row in shifts(name, rows, without[1])]


def by_turn_rows(systems: Sequence[Discussed]) -> list[Row]:
    """Rows of `transitions.by_turn` of every system; differences are from the untrained discussion of the same size."""
    tables = {one.name: one.turns.rows() for one in systems}
    rows: list[Row] = []
    for name, table in tables.items():
        other = untrained_beside(name, tables)
        rows += by_turn(name, table, tables[other] if other and other != name else None)
    return rows


def untrained_beside(name: str, names: Container[str]) -> str | None:
    """The untrained discussion to compare a system with: of its own size, as its name ends, or the first one."""
    sized = f"Off-the-shelf, {name.rpartition(', ')[2]}"
    return next((one for one in (sized, "Off-the-shelf") if one in names), None)
