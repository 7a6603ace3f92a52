"""`teamtune plan`: what a recipe needs before it begins, and how that compares with a run that is finished.

teamtune plan malt --model meta-llama/Llama-3.1-8B-Instruct --task math --lengths.answer 400
teamtune plan runs/malt                  # the same options, beside what happened
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from teamtune.recipes.maporl_team import Maporl
from teamtune.recipes.workload import Lengths, Load, load_of
from teamtune.reporting import read
from teamtune.resources import (
    DEVICES,
    OVERHEAD,
    SPREAD,
    Shape,
    generation_memory,
    seconds,
    shape_of,
    training_memory,
)
from teamtune.types import answering, tokens_of


@dataclass(frozen=True, slots=True)
class Need:
    """GB of one way to do a part of the work, by what takes it."""

    way: str
    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    @property
    def fits(self) -> str:
        """The smallest of the usual devices that holds it, by its memory."""
        return next((f"{gb} GB" for _, gb, _, _ in DEVICES if self.total + OVERHEAD <= gb), "none")


def needs(cfg: Any, load: Load, shape: Shape, on_cpu: bool = False) -> list[Need]:
    """Memory of the joint fit as it is asked for and in three more sparing ways, and of the embedded engine."""
    ways = {"training": (load.fit, cfg.lora)}
    ways["fit.checkpoint"] = (replace(load.fit, checkpoint=True), cfg.lora)
    ways["+ lora.bits 4"] = (replace(load.fit, checkpoint=True), replace(cfg.lora, bits=4, shard=False))
    if not isinstance(cfg, Maporl):  # which trains in one process
        whole = replace(cfg.lora, bits=16, shard=True)
        ways[f"or lora.shard {SPREAD}"] = (replace(load.fit, checkpoint=True), whole)
    found = [Need(w, training_memory(shape, load.adapters, fit, lora, on_cpu)) for w, (fit, lora) in ways.items()]
    engine = cfg.engine
    cache = generation_memory(shape, load.adapters, engine.rows, engine.tokens, load.longest, on_cpu)
    return [*found, Need("generating", cache)]


def show_plan(cfg: Any, lengths: Lengths) -> None:
    """Print the plan of a recipe's options."""
    shape, load, console = shape_of(cfg.model, cfg.lora), load_of(cfg, lengths), Console(soft_wrap=True)
    adapters = f"{load.adapters} adapters of {shape.adapter / 1e6:.1f} M"
    console.print(f"{shape.name}: {shape.parameters / 1e9:.2f} G parameters, {adapters}", highlight=False)
    work = load.work
    told = f"{work.answers:,} answers; {work.read / 1e6:.1f} M ids read, {work.written / 1e6:.1f} M written"
    console.print(f"{told}, {work.forward / 1e6:.1f} M scored, {work.trained / 1e6:.1f} M trained on", highlight=False)
    asked = needs(cfg, load, shape)
    names = list(dict.fromkeys(name for need in asked for name in need.parts))
    table = Table("Memory, GB", *names, "all", "fits", padding=(0, 1, 0, 0))
    for need in asked:
        cells = [f"{need.parts[name]:.1f}" if name in need.parts else "" for name in names]
        table.add_row(need.way, *cells, f"{need.total:.1f}", need.fits)
    console.print(table)
    table = Table("Hours", "reading", "writing", "training", "all")
    for device in DEVICES:
        hours = {name: spent / 3600 for name, spent in seconds(shape, work, device, load.fit, cfg.engine.rows).items()}
        table.add_row(device[0], *(f"{value:.2f}" for value in hours.values()), f"{sum(hours.values()):.2f}")
    console.print(table)
    console.print("Lengths are assumed (--lengths), speeds are shares of the makers' figures (teamtune/resources.py).")


def show_outcome(run: Path, cfg: Any, lengths: Lengths) -> None:
    """Print what a finished run took beside what would have been planned for it."""
    table = Table(f"{run}", "planned", "happened", "happened / planned")
    for what, planned, happened in outcome(run, cfg, lengths):
        share = f"{happened / planned:.2f}" if planned else ""
        table.add_row(what, f"{planned:,.1f}", f"{happened:,.1f}", share)
    Console(soft_wrap=True).print(table)


def outcome(run: Path, cfg: Any, lengths: Lengths) -> Iterator[tuple[str, float, float]]:
    """(what, planned, happened) of a finished run. Memory is that of the process, with all that it has loaded."""
    from teamtune.models import device

    load, found = load_of(cfg, lengths), happened(run)
    yield "answers", load.work.answers, found["answers"]
    yield "M ids read", load.work.read / 1e6, found["read"] / 1e6
    yield "M ids written", load.work.written / 1e6, found["written"] / 1e6
    on_cpu = device().type == "cpu"
    for need in needs(cfg, load, shape_of(cfg.model, cfg.lora), on_cpu):
        if need.way in ("training", "generating"):
            yield f"GB, {need.way}", need.total, found[need.way] / 1000


def happened(run: Path) -> dict[str, float]:
    """Answers and ids of all rollouts of a run, and the peak memory in MB of its fits and rollouts."""
    found: dict[str, float] = dict.fromkeys(("answers", "read", "written", "training", "generating"), 0.0)
    for stage in read.stages(run, read.options(run)["config"]):
        if stage["state"] != "sealed":
            continue
        peak = stage["peak_mb"] or 0.0
        if stage["fn"].endswith((":fit", ":learn")):
            found["training"] = max(found["training"], peak)
        if stage["fn"].endswith(":rollout"):
            found["generating"] = max(found["generating"], peak)
            count(found, run / stage["name"] / "rows.parquet")
    for file in run.glob("**/updates/*.parquet"):
        count(found, file)
    return found


def count(found: dict[str, float], file: Path) -> None:
    """Add the answers and ids of a Turn table."""
    have = set(pq.read_schema(file).names) & {"agent", "prompt_ids", "token_ids", "usage"}
    for row in answering(pq.read_table(file, columns=sorted(have)).to_pylist()):
        found["answers"] += 1
        found["read"] += tokens_of(row, "prompt_ids") or 0
        found["written"] += tokens_of(row, "token_ids") or 0
