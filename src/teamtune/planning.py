"""`teamtune plan`: what a recipe needs before it begins, and how that compares with a run that is finished.

teamtune plan malt --model meta-llama/Llama-3.1-8B-Instruct --task math --lengths.answer 400
teamtune plan runs/malt                  # the same options, beside what happened
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from teamtune import machine
from teamtune.recipes.maporl_team import Maporl
from teamtune.recipes.workload import Lengths, Load, load_of
from teamtune.reporting import read
from teamtune.resources import (
    DEVICES,
    SPREAD,
    Device,
    at_once,
    generation_memory,
    seconds,
    share_of,
    side_by_side,
    training_memory,
)
from teamtune.shapes import Shape, shape_of_all
from teamtune.train.fit import Fit
from teamtune.types import TeamtuneError, answering, tokens_of

LOCAL = ("transformers", "vllm")
"""engines that need memory and time where the recipe runs"""
PARTS = ("reading", "writing", "training")
"""of the work, as hours are told"""


@dataclass(frozen=True, slots=True)
class Need:
    """GB of one way to do a part of the work, by what takes it."""

    way: str
    parts: Mapping[str, float]
    share: float = 1.0
    """of a device's memory that it may take"""

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    @property
    def fits(self) -> str:
        """The smallest of the usual devices that holds it, by its memory."""
        return next((f"{device.gb} GB" for device in DEVICES if device.holds(self.total, self.share)), "none")


def needs(cfg: Any, load: Load, shape: Shape, on_cpu: bool = False, processes: int = 1) -> list[Need]:
    """Memory of the joint fit as it is asked for and in more sparing ways, and of the engine; a server's is its own.

    processes: that train, and that a sharded base is spread over; one alone is told what SPREAD of them would hold.
    """
    spread = processes if processes > 1 else SPREAD
    asked = [fit for fit, _ in load.fits]
    again = [replace(fit, checkpoint=True) for fit in asked]
    ways = {"training": (asked, cfg.lora), "fit.checkpoint": (again, cfg.lora)}
    ways["+ lora.bits 4"] = (again, replace(cfg.lora, bits=4, shard=False))
    if not isinstance(cfg, Maporl):  # which trains in one process
        ways[f"or lora.shard {spread}"] = (again, replace(cfg.lora, bits=16, shard=True))
    ways = ways if asked else {}  # rows alone
    # PPO trains on the very base that the engine has.
    dtype = cfg.engine.dtype if isinstance(cfg, Maporl) else "auto"
    memory = {way: largest(shape, load.adapters, *how, on_cpu, spread, dtype) for way, how in ways.items()}
    found = [Need(way, gb) for n, (way, gb) in enumerate(memory.items()) if gb not in list(memory.values())[:n]]
    if cfg.engine.kind not in LOCAL:
        return found
    engine = generation_memory(shape, load.adapters, cfg.engine, load.longest, on_cpu, cfg.lora.bits)
    found.append(Need("generating", engine, share_of(cfg.engine, on_cpu)))
    return [*found, both_at_once(cfg, found[0], engine, on_cpu)] if isinstance(cfg, Maporl) else found


def largest(shape: Shape, agents: int, fits: Sequence[Fit], *how: Any) -> dict[str, float]:
    """The memory of that fit which takes most."""
    found = (training_memory(shape, agents, fit, *how) for fit in fits)
    return max(found, key=lambda gb: sum(gb.values()))


def both_at_once(cfg: Any, training: Need, engine: Mapping[str, float], on_cpu: bool) -> Need:
    """PPO samples between its steps: the embedded engine from the very weights that it trains, vLLM from its own, for
    which it keeps its share of the card, or what it is told."""
    if cfg.engine.kind == "transformers":
        return Need("both at once", {**training.parts, "cache": engine["cache"]})
    if (share := share_of(cfg.engine, on_cpu)) < 1:
        return Need("beside vLLM", training.parts, 1 - share)
    whole = dict(training.parts) | {"cache": engine["cache"]}
    for part in ("weights", "adapters"):
        whole[part] += engine[part]
    return Need("beside vLLM", whole)


def hours(cfg: Any, load: Load, shape: Shape, device: Device, processes: int = 1) -> dict[str, float]:
    """Hours of each part of the work on a device, those alone that it has the memory for. So many processes train, each
    on a device of its own, or beside each other on the cores of one CPU."""
    asked = {
        need.way: device.holds(need.total, need.share) for need in needs(cfg, load, shape, device.on_cpu, processes)
    }
    if not all(asked.get(way, True) for way in ("both at once", "beside vLLM")):
        return {}
    bits, fits = cfg.lora.bits, asked.get("generating")
    rows = at_once(shape, load.adapters, cfg.engine, load.longest, device, bits) if fits else 0
    found = seconds(shape, load.work, device, load.fits, rows, cfg.engine, bits)
    found["training"] /= 1 if device.on_cpu else processes
    return {name: spent / 3600 for name, spent in found.items() if name != "training" or asked.get("training")}


def parts_here(cfg: Any, load: Load) -> tuple[str, ...]:
    """The parts of the work that are done where the recipe runs; a server's are its own, and rows alone train none."""
    return (*(PARTS[:2] if cfg.engine.kind in LOCAL else ()), *(PARTS[2:] if load.fits else ()))


def show_plan(cfg: Any, lengths: Lengths, processes: int = 0, here: bool = False) -> None:
    """Print the plan of a recipe's options. processes: that train; 0 is one, or as many as a base is spread over. here:
    memory and hours on this machine too."""
    processes, load, console = trained_by(cfg, processes), load_of(cfg, lengths), Console(soft_wrap=True)
    work, own = load.work, parts_here(cfg, load)
    told = f"{work.answers:,} answers; {work.read / 1e6:.1f} M ids read, {work.written / 1e6:.1f} M written"
    told += f", {work.forward / 1e6:.1f} M scored, {load.trained / 1e6:.1f} M trained on"
    if not own:
        if here:
            raise TeamtuneError("--here has no use where all of the work is a server's; leave it out")
        console.print(f"{told}; all of it is the server's", highlight=False)
        return
    shape = shape_of_all(bases_of(cfg), cfg.lora)
    check_context(cfg, shape)
    adapters = f", {load.adapters} adapters of {shape.adapter / 1e6:.1f} M" if load.fits else ""
    size = f"{shape.parameters / 1e9:.2f} G" if shape.parameters >= 1e8 else f"{shape.parameters / 1e6:.2f} M"
    each = " each on average" if shape.bases > 1 else ""
    console.print(f"{shape.name}: {size} parameters{each}{adapters}", highlight=False)
    console.print(told, highlight=False)
    devices = (*DEVICES, *([machine.here()] if here else []))
    console.print(memory_table("Memory, GB", needs(cfg, load, shape, processes=processes)))
    if devices[-1].on_cpu:
        own_memory = needs(cfg, load, shape, on_cpu=True, processes=processes)
        console.print(memory_table("Memory on this machine, GB", own_memory, devices[-1]))
    table = Table("Hours", *own, "all", padding=(0, 1, 0, 0))
    for device in devices:
        found = hours(cfg, load, shape, device, processes)
        cells = [f"{found[part]:.2f}" if part in found else "" for part in own]
        fits = found.keys() >= {*own}
        table.add_row(device.name, *cells, f"{sum(found[part] for part in own):.2f}" if fits else "does not fit")
    console.print(table)
    console.print("\n".join(notes(cfg, load, shape, processes, here)), highlight=False)


def memory_table(title: str, asked: Sequence[Need], on: Device | None = None) -> Table:
    """What each part of the work takes, and the smallest device that has room for it, or whether this one has."""
    names = list(dict.fromkeys(name for need in asked for name in need.parts))
    table = Table(title, *names, "all", "fits", padding=(0, 1, 0, 0))
    for need in asked:
        cells = [f"{need.parts[name]:.1f}" if name in need.parts else "" for name in names]
        fits = need.fits if on is None else "yes" if on.holds(need.total, need.share) else "no"
        table.add_row(need.way, *cells, f"{need.total:.1f}", fits)
    return table


def notes(cfg: Any, load: Load, shape: Shape, processes: int, here: bool) -> Iterator[str]:
    """What the tables rest on."""
    yield "Lengths are assumed (--lengths), speeds are shares of the makers' figures (teamtune/resources.py)."
    if here:
        yield "This machine's are shares of what products of matrices and a copy of its memory reached now."
    if load.longest > shape.context:
        yield (
            f"Texts of up to {load.longest:,} ids are reckoned with and the model reads {shape.context:,}: longer ones "
            "are cut off, or overflow and are counted."
        )
    if processes > 1:
        yield f"Of training, memory is that of each of {processes} devices, and hours are those of all at once."
    if (devices := side_by_side(cfg.engine)) > 1:
        yield f"Of generating, memory is that of each of {devices} devices, and hours are those of all at once."
    if cfg.engine.kind == "openai":
        yield "What is read and written is its server's."


def trained_by(cfg: Any, processes: int) -> int:
    """The processes that train; 0 is one, or as many as a base is spread over."""
    if processes > 1 and isinstance(cfg, Maporl):
        raise TeamtuneError(f"processes is {processes} and PPO trains in one; leave it out")
    if processes > 1 and not isinstance(cfg, Maporl) and cfg.rows_only:
        raise TeamtuneError(f"processes is {processes} and rows alone train nothing; leave it out")
    return processes or (SPREAD if cfg.lora.shard else 1)


def show_outcome(run: Path, cfg: Any, lengths: Lengths, processes: int = 0) -> None:
    """Print what a finished run took beside what would have been planned for it, and for so many processes."""
    table = Table(f"{run}", "planned", "happened", "happened / planned")
    for what, planned, happened in outcome(run, cfg, lengths, trained_by(cfg, processes)):
        share = f"{happened / planned:.2f}" if planned else ""
        told = lambda value: f"{value:,.2f}" if value >= 0.1 else f"{value:.2g}"  # noqa: E731
        table.add_row(what, "" if planned is None else told(planned), told(happened), share)
    console = Console(soft_wrap=True)
    console.print(table)
    console.print("Hours are planned for this machine. Of a stage that was resumed, those of its last part happened.")


def bases_of(cfg: Any) -> tuple[str, ...]:
    """The models that a recipe holds."""
    return (cfg.model, *cfg.partners) if isinstance(cfg, Maporl) else (cfg.model,)


def check_context(cfg: Any, shape: Shape) -> None:
    """Raises TeamtuneError where vLLM is asked for longer texts than the model reads."""
    asked = cfg.engine.vllm.context
    if asked > shape.context:
        raise TeamtuneError(f"engine.vllm.context is {asked} and the model's {shape.context}; give that at most")


def outcome(run: Path, cfg: Any, lengths: Lengths, processes: int = 1) -> Iterator[tuple[str, float | None, float]]:
    """(what, planned, happened) of a finished run. Memory is that of the process, with all that it has loaded; hours
    are planned for this machine, as if the run had been made here."""
    from teamtune.models import device

    load, found = load_of(cfg, lengths), happened(run)
    yield "answers", load.work.answers, found["answers"]
    yield "M ids read", load.work.read / 1e6, found["read"] / 1e6
    yield "M ids written", load.work.written / 1e6, found["written"] / 1e6
    if found["trained"]:
        yield "M ids trained on", load.trained / 1e6, found["trained"] / 1e6
    planned: dict[str, float] = {}
    # PPO generates in the process that trains.
    embedded = cfg.engine.kind == "transformers"
    compared = {"training": "training"} if not (embedded and isinstance(cfg, Maporl)) else {"both at once": "training"}
    compared |= {"generating": "generating"} if embedded else {}
    if parts_here(cfg, load):
        shape = shape_of_all(bases_of(cfg), cfg.lora)
        for need in needs(cfg, load, shape, device().type == "cpu", processes):
            if need.way in compared:
                yield f"GB, {need.way}", need.total, found[f"{compared[need.way]} MiB"] * 2**20 / 1e9
        planned = hours(cfg, load, shape, machine.here(), processes)
    writing = planned["reading"] + planned["writing"] if "writing" in planned else None
    yield "hours, generating", writing, found["generating"] / 3600
    if load.fits:
        yield "hours, training", planned.get("training"), found["training"] / 3600


def happened(run: Path) -> dict[str, float]:
    """Answers and ids of all rollouts of a run, ids trained on, seconds of rollouts and fits, and their peak memory.
    PPO's updates are training but for their generation."""
    names = ("answers", "read", "written", "trained", "training", "generating", "training MiB", "generating MiB")
    found: dict[str, float] = dict.fromkeys(names, 0.0)
    sealed: set[str] = set()
    for stage in read.stages(run, read.options(run)["config"]):
        if stage["state"] != "sealed":
            continue
        sealed.add(stage["name"])
        learning = stage["fn"].endswith(":learn")  # its lines tell what is what
        part = "training" if learning or stage["fn"].endswith(":fit") else "generating"
        if part == "generating" and not stage["fn"].endswith(":rollout"):
            continue
        found[part] += 0.0 if learning else stage["seconds"]
        found[f"{part} MiB"] = max(found[f"{part} MiB"], stage["peak_mb"] or 0.0)
        if part == "generating":
            count(found, run / stage["name"] / "rows.parquet")
    for file in run.glob("**/updates/*.parquet"):
        count(found, file)
    for line in (one for one in read.metrics(run) if one["stage"] in sealed):
        found["trained"] += sum(value for name, value in line.items() if name.endswith("/tokens"))
        for name, spent in line.items():
            if name.startswith("seconds/"):
                found["generating" if name == "seconds/generation" else "training"] += spent
    return found


def count(found: dict[str, float], file: Path) -> None:
    """Add the answers and ids of a Turn table."""
    have = set(pq.read_schema(file).names) & {"agent", "prompt_ids", "token_ids", "usage"}
    for row in answering(pq.read_table(file, columns=sorted(have)).to_pylist()):
        found["answers"] += 1
        found["read"] += tokens_of(row, "prompt_ids") or 0
        found["written"] += tokens_of(row, "token_ids") or 0
