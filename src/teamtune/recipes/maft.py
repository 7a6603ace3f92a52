"""Multiagent Finetuning (Subramaniam et al., 2025): generators and critics, each finetuned on its own part of debates.

debates, votes, finetuning (maft_team.py), once an iteration -> the team's debates on test problems -> baselines and
ablations on the same problems (maft_rivals.py) -> measures of diversity (measures.py) -> comparison, further tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from teamtune.embed import check_encoder
from teamtune.engines.spec import check_trained
from teamtune.models import check_lora
from teamtune.protocols import exchange
from teamtune.recipes.entrants import Arena, Entrant
from teamtune.recipes.maft_rivals import alone_at_base, away, reasoned, rivals, untrained_debate
from teamtune.recipes.maft_team import Lab, Maft, Step, first_rows, iterations, multiagent
from teamtune.recipes.measures import Measured, collapse_rows, measure
from teamtune.recipes.systems import TEST_SEED, base_team
from teamtune.store import Run
from teamtune.tasks import Split, all_elsewhere, splits
from teamtune.tasks.parse import check_reader
from teamtune.warn import warn

__all__ = ["Maft", "main"]


def main(cfg: Maft, command: str = "") -> Run:
    """Train and compare; everything is in the run folder afterwards."""
    train, test = splits(cfg.task)
    others = all_elsewhere(cfg.task, cfg.eval_tasks)
    check_reader(cfg.task)
    base = base_team(cfg.model, exchange.seats(cfg.names, cfg.sampling), cfg.engine, cfg.lora.bits)
    if not cfg.rows_only:
        check_trained(cfg.engine, base.trainable)
        check_lora(cfg.model, cfg.lora.targets, cfg.lora.shard, cfg.lora.bits)
        check_encoder(cfg.measures.encoder, cfg.measures.pooling)
    with Run(cfg.out, cfg, command, cfg.track) as run:
        lab = Lab(run, cfg, train, base)
        if cfg.rows_only:
            first_rows(lab)
            return run
        if "star" in cfg.baselines:
            reasoned(lab, alone_at_base(lab))
        arena = Arena(run, cfg.engine, cfg.seed + TEST_SEED, cfg.driver)
        watched = Watch(arena, cfg, test)
        seen = [watched.look(untrained_debate(lab))] if "debate" in cfg.baselines else []
        own: list[Entrant] = []
        for step in iterations(lab, multiagent(lab)):
            own.append(entrant(cfg, step))
            seen.append(watched.look(own[-1], *first_and_last(seen)))
        entrants = [*rivals(lab, Step(own[-1].team, own[-1].trained, cfg.iterations)), *own]
        watched.look_at_all(entrants)
        for split in others:
            place = f"transfer/{split.place}"
            debates = arena.play(own[-1], split, place).turns.rows()
            arena.compare(away(lab, entrants, debates), split, place, f"{place}/comparison")
        arena.compare(entrants, test)
        return run


def entrant(cfg: Maft, step: Step) -> Entrant:
    """The team as it stands after an iteration."""
    name, place, last = f"MAFT, iteration {step.number}", f"iteration-{step.number}", step.number == cfg.iterations
    return Entrant(name, place, step.team, cfg.debate, step.tokens, transfers=last, debates=True)


@dataclass(frozen=True, slots=True)
class Watch:
    """Measures test debates, and looks for signs of a collapse since the iteration before and the first debate."""

    arena: Arena
    cfg: Maft
    test: Split

    def look(self, one: Entrant, *before: Measured) -> Measured:
        """Play and measure; what speaks for a collapse since any of `before` is said on stderr, and kept as a stage."""
        run, played = self.arena.run, self.arena.play(one, self.test)
        rounds = measure(run, f"test/{one.place}", played, one.team, exchange.SUMMARISER_SEAT, self.cfg.measures)
        now = Measured(one.name, rounds)
        if before:
            for row in run.stage(f"collapse/{one.place}", collapse_rows, [*before, now]).rows():
                told = f"{row['system']}: {row['warning']}"
                warn(told)
        return now

    def look_at_all(self, entrants: Sequence[Entrant]) -> None:
        """Measure every debate; the single agent's iterations follow on the untrained debate too."""
        seen: list[Measured] = []
        for one in (one for one in entrants if one.debates):
            single = one.name.startswith("Single-agent FT, iteration")
            now = self.look(one, *(first_and_last(seen) if single else ()))
            seen += [now] if single or one.name == "Debate" else []


def first_and_last(seen: Sequence[Measured]) -> list[Measured]:
    """What to hold the next one to: a slow drift shows in no single step."""
    return [*seen[:1], *seen[1:][-1:]]
