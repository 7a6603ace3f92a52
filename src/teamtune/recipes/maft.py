"""Multiagent Finetuning (Subramaniam et al., 2025): generators and critics, each finetuned on its own part of debates.

debates, votes, finetuning (maft_team.py), once an iteration -> the team's debates on test problems -> baselines and
ablations on the same problems (maft_rivals.py) -> measures of diversity (measures.py) -> comparison, further tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from teamtune.models import check_targets
from teamtune.protocols import exchange
from teamtune.recipes.entrants import TEST_SEED, Arena, Entrant
from teamtune.recipes.maft_rivals import rivals
from teamtune.recipes.maft_team import Lab, Maft, Step, graded, iterations, multiagent
from teamtune.recipes.measures import Measured, collapse_rows, measure
from teamtune.recipes.systems import base_team
from teamtune.store import Run
from teamtune.tasks import Split, elsewhere, splits

__all__ = ["Maft", "main"]


def main(cfg: Maft, command: str = "") -> Run:
    """Train and compare; everything is in the run folder afterwards."""
    train, test = splits(cfg.task)
    others = [elsewhere(cfg.task, told) for told in cfg.eval_tasks]
    base = base_team(cfg.model, exchange.seats(cfg.names, cfg.sampling), cfg.engine)
    check_targets(cfg.model, cfg.lora.targets)
    with Run(cfg.out, cfg, command) as run:
        lab = Lab(run, cfg, train, base)
        arena = Arena(run, cfg.engine, cfg.seed + TEST_SEED)
        own: list[Entrant] = []
        for step in iterations(lab, multiagent(lab)):
            graded(lab, step.number)
            own.append(entrant(cfg, step))
            arena.play(own[-1], test)
        entrants = [*rivals(lab, Step(own[-1].team, own[-1].trained, cfg.iterations)), *own]
        measure_all(arena, cfg, test, entrants)
        for split in others:
            arena.compare([e for e in entrants if e.transfers], split, f"transfer/{split.place}", compared(split))
        arena.compare(entrants, test)
        return run


def entrant(cfg: Maft, step: Step) -> Entrant:
    """The team as it stands after an iteration."""
    name, place, last = f"MAFT, iteration {step.number}", f"iteration-{step.number}", step.number == cfg.iterations
    return Entrant(name, place, step.team, cfg.debate, step.tokens, transfers=last, debates=True)


def compared(split: Split) -> str:
    """The stage that compares everybody on a further task."""
    return f"transfer/{split.place}/comparison"


def measure_all(arena: Arena, cfg: Maft, test: Split, entrants: Sequence[Entrant]) -> None:
    """How the members of every system differ; what speaks for a collapse over iterations is said on stderr too."""
    tables = {}
    for one in entrants:
        if one.debates:
            played = arena.play(one, test)
            tables[one.name] = measure(
                arena.run, f"test/{one.place}", played, one.team, exchange.SUMMARISER_SEAT, cfg.measures
            )
    for key in ("MAFT", "Single-agent FT"):
        names = [n for n in tables if n == "Debate" or n.startswith(f"{key}, iteration")]
        if len(names) < 2:
            continue
        history = [Measured(name, tables[name]) for name in names]
        for row in arena.run.stage(f"collapse/{key.lower().replace(' ', '-')}", collapse_rows, history).rows():
            Console(stderr=True, soft_wrap=True).print(f"warning: {row['system']}: {row['warning']}", style="yellow")
