"""The joint fit: all agents of a team trained in one loop over one base.

A step takes the next batch of every agent that has steps left, packs the rows of all agents into micro-batches of
about one length, runs them forward and backward through the mixed adapters, and steps each agent's own optimiser on its
own schedule. No parameter is shared, and each row's loss is divided by its own agent's normaliser, so the result equals
separate fits, agent by agent.

    folder/  generator/adapter_model.safetensors  verifier/...      the adapters, at the end
             reference.safetensors                                 DPO: log-probabilities under the incoming adapters
             state/step-000050/                                    what a killed fit resumes from
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import Progress

from teamtune.engines.render import Renderer
from teamtune.models import native_bfloat16, told_when_full
from teamtune.train import losses, processes
from teamtune.train.examples import judged_example, pair_example, sampled_example, sft_example
from teamtune.train.heads import HINTS
from teamtune.train.hints import start_heads
from teamtune.train.objective import (
    Item,
    Objective,
    Policy,
    Preference,
    Reference,
    Scoring,
    Sft,
    Weighted,
    micro_losses,
    padded,
    reference_of,
)
from teamtune.train.packing import micro_batches
from teamtune.train.proof import prove
from teamtune.train.state import latest_state, load_tensors, optimizer_tensors, restore_optimizer, save_state
from teamtune.train.team import Lora, TeamModel
from teamtune.types import BESIDE, Row, Team, TeamtuneError


@dataclass(frozen=True, slots=True)
class Fit:
    """How to train. The same options hold for every agent; steps follow from each agent's own rows."""

    rate: float = 1e-4
    """peak learning rate of AdamW"""
    epochs: int = 1
    batch: int = 32
    """rows (or pairs) of one agent in an optimiser step"""
    warmup: float = 0.05
    """share of an agent's steps with rising rate"""
    decay: Literal["linear", "constant"] = "linear"
    floor: float = 0.0
    """share of the peak rate that a linear decay ends at"""
    beta2: float = 0.999
    """AdamW's decay of squared gradients"""
    clip: float = 1.0
    """largest gradient norm of one agent"""
    micro_tokens: int = field(default=0, metadata=BESIDE)
    """ids in one forward pass, padding included; 0 takes 4,096, and 16,384 on a GPU with `checkpoint`"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """of the forward pass; auto is bfloat16 where the machine computes in it natively, else float32"""
    checkpoint: bool = field(default=False, metadata=BESIDE)
    """compute activations again on the way back: far less memory, about a third more time"""
    save_every: int = field(default=50, metadata=BESIDE)
    """steps between two states to resume from"""

    def __post_init__(self) -> None:
        for name in ("rate", "epochs", "batch", "clip", "save_every"):
            if not 0 < getattr(self, name) < math.inf:
                raise TeamtuneError(f"{name} is {getattr(self, name)}; it must be above 0, and finite")
        if self.micro_tokens < 0:
            raise TeamtuneError(f"micro_tokens is {self.micro_tokens}; it must be above 0, or 0 for the device's own")
        if not 0 <= self.warmup <= 1:
            raise TeamtuneError(f"warmup is {self.warmup}; it is a share of the steps and must lie in [0, 1]")
        for name in ("floor", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise TeamtuneError(f"{name} is {getattr(self, name)}; it must lie in [0, 1)")
        if self.floor and self.decay == "constant":
            raise TeamtuneError(f"floor {self.floor} has no use with decay constant; leave it out")


Metrics = dict[str, float | int | str]


def fit(
    folder: Path,
    rows: Sequence[Row],
    team: Team,
    agents: Sequence[str],
    lora: Lora,
    objective: Objective,
    options: Fit,
    seed: int = 0,
) -> Generator[Metrics, None, None]:
    """Train the agents on their rows, yielding a line of metrics a step, and leave their adapters in `folder`."""
    scoring = isinstance(objective, Scoring)
    hints = HINTS if scoring and objective.surprise else 0
    model = TeamModel.open(team, agents, lora, seed, heads=agents if scoring else (), hints=hints)
    return fit_model(folder, model, rows, objective, options, seed)


def fit_model(
    folder: Path, model: TeamModel, rows: Sequence[Row], objective: Objective, options: Fit, seed: int = 0
) -> Generator[Metrics, None, None]:
    """`fit` with a model that is in memory."""
    items = items_of(rows, model, objective)
    schedules = {agent: schedule(len(items[agent]), options, seed, agent) for agent in model.agents}
    if isinstance(objective, Scoring) and objective.surprise:
        start_heads(model, first_epoch(items, schedules, options, model))
    steps = max(map(len, schedules.values()))
    optimizers = {agent: adamw(model.parameters(agent), options) for agent in model.agents}
    done = resume(folder, model, optimizers)
    reference = None
    if isinstance(objective, Preference):
        reference = reference_of(
            folder, model, first_epoch(items, schedules, options, model), objective, autocast(model, options)
        )
    with Progress(console=Console(stderr=True, quiet=not processes.is_main())) as progress:
        bar = progress.add_task(folder.name, total=steps, completed=done)
        for step in range(done, steps):
            batches = {a: [items[a][i] for i in plan[step]] for a, plan in schedules.items() if step < len(plan)}
            sums = backward(model, batches, objective, options, reference)
            line: Metrics = {"step": step}
            for agent in batches:
                finite(agent, "loss", sums[agent]["loss"], step, options)
                line |= update(model, agent, optimizers[agent], options, step, len(schedules[agent]))
                line |= {f"{agent}/{name}": value for name, value in sums[agent].items()}
                line[f"{agent}/tokens"] = sum(len(one) * one.rows for one in batches[agent])
            yield line
            # Only after its line is logged: a state must never be ahead of the metrics.
            if (step + 1) % options.save_every == 0 and step + 1 < steps and processes.is_main():
                keep(folder, model, optimizers, step + 1)
            progress.update(bar, completed=step + 1)
    for agent in model.agents:
        if processes.is_main():
            model.save(agent, folder / agent)
    if proven := {agent: folder / agent for agent in model.agents if agent not in model.heads}:
        prove(model, proven)


def adamw(parameters: Sequence[torch.nn.Parameter], options: Fit) -> torch.optim.Optimizer:
    """The optimiser of one agent; weights do not decay."""
    return torch.optim.AdamW(parameters, lr=options.rate, betas=(0.9, options.beta2), weight_decay=0.0)


def finite(agent: str, what: str, value: float, step: int, options: Fit) -> None:
    """A loss that is no number stops the fit: the adapter is lost, and all that is made with it would be."""
    if not math.isfinite(value):
        raise TeamtuneError(
            f"the {what} of {agent} is {value} at step {step}; the rate {options.rate:g} is too high or the weights "
            "are broken: take a lower rate and another --out"
        )


def items_of(rows: Sequence[Row], model: TeamModel, objective: Objective) -> dict[str, list[Item]]:
    """Each agent's examples or pairs; an agent without any stops the fit."""
    renderer = Renderer(model.tokenizer, "the base")
    made: dict[type, Any] = {Sft: sft_example, Preference: pair_example}
    make = (made | {Policy: sampled_example, Scoring: judged_example})[type(objective)]
    items: dict[str, list[Item]] = {agent: [] for agent in model.agents}
    for row in rows:
        if row["agent"] in items:
            number = len(items[row["agent"]])
            items[row["agent"]].append(Item(row["agent"], number, make(row, renderer)))
    empty = [agent for agent, own in items.items() if not own]
    if empty:
        raise TeamtuneError(f"no rows to train {', '.join(empty)} on; roll out more problems or lower the threshold")
    return items


def schedule(
    count: int, options: Fit, seed: int, agent: str, together: Sequence[Sequence[int]] | None = None
) -> list[list[int]]:
    """Which rows each step of one agent takes; it depends on this agent alone.

    together: all rows, in lists whose rows follow each other; None: each row by itself.
    """
    plan: list[list[int]] = []
    for epoch in range(options.epochs):
        groups = [[n] for n in range(count)] if together is None else list(together)
        random.Random(f"{seed}/{agent}/{epoch}").shuffle(groups)
        order = [n for group in groups for n in group]
        plan += [order[start : start + options.batch] for start in range(0, count, options.batch)]
    return plan


def first_epoch(
    items: Mapping[str, Sequence[Item]], schedules: Mapping[str, list[list[int]]], options: Fit, model: TeamModel
) -> Iterator[list[Item]]:
    """The micro-batches of the first epoch; the reference is computed on just these, so step 0 meets it exactly."""
    counts = {agent: math.ceil(len(own) / options.batch) for agent, own in items.items()}
    for step in range(max(counts.values())):
        now = [items[a][i] for a, plan in schedules.items() if step < counts[a] for i in plan[step]]
        yield from micro_batches(now, model, options.micro_tokens, options.checkpoint)


def backward(
    model: TeamModel,
    batches: Mapping[str, Sequence[Item]],
    objective: Objective,
    options: Fit,
    reference: Reference | None,
) -> dict[str, dict[str, float]]:
    """Gradients of one step, over all agents; per agent the loss and what else the objective reports."""
    weights = Weighted.of(batches)
    sums: dict[str, dict[str, float]] = {agent: {} for agent in batches}
    items = [item for batch in batches.values() for item in batch]
    mend = "lower micro_tokens of the fit, or set its checkpoint"
    with model.computing_again(options.checkpoint):
        micros = micro_batches(items, model, options.micro_tokens, options.checkpoint)
        for micro, counts in processes.share(micros, padded, even=model.sharded):
            with told_when_full(f"a micro-batch of {len(micro)} rows", mend):
                with autocast(model, options):
                    found = micro_losses(model, micro, objective, weights, reference)
                (found.total * float(counts)).backward()
            for agent, name, value in found.reports if counts else ():
                sums[agent][name] = sums[agent].get(name, 0.0) + value
    return processes.add_up((p for agent in batches for p in model.parameters(agent)), sums)


def update(
    model: TeamModel, agent: str, optimizer: torch.optim.Optimizer, options: Fit, step: int, steps: int
) -> Metrics:
    """One optimiser step of one agent."""
    norm = losses.global_norm(list(model.parameters(agent)))
    finite(agent, "gradient norm", float(norm), step, options)
    scale = min(1.0, options.clip / max(float(norm), 1e-12))
    rate = rate_at(options, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = rate
    for parameter in model.parameters(agent):
        if parameter.grad is not None:
            parameter.grad.mul_(scale)
    optimizer.step()
    optimizer.zero_grad()
    return {f"{agent}/norm": float(norm), f"{agent}/rate": rate}


def rate_at(options: Fit, step: int, steps: int) -> float:
    """Linear warm-up, then linear to the floor (or flat)."""
    warm = options.warmup * steps
    if step < warm:
        return options.rate * (step + 1) / (warm + 1)
    if options.decay == "constant":
        return options.rate
    left = (steps - step) / max(1.0, steps - warm)
    return options.rate * (options.floor + (1 - options.floor) * left)


def autocast(model: TeamModel, options: Fit) -> torch.autocast:
    """The precision of the forward pass that the options ask for on this device."""
    low = options.precision == "bfloat16" or (options.precision == "auto" and native_bfloat16(model.device))
    return torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=low)


def keep(folder: Path, model: TeamModel, optimizers: Mapping[str, torch.optim.Optimizer], step: int) -> None:
    """Save what a killed fit needs to go on from `step`."""
    tensors = {agent: model.weights(agent) for agent in model.agents}
    states = {f"{agent}.optimizer": optimizer_tensors(opt) for agent, opt in optimizers.items()}
    save_state(folder / "state" / f"step-{step:06d}", tensors | states, {"step": step})


def resume(folder: Path, model: TeamModel, optimizers: Mapping[str, torch.optim.Optimizer]) -> int:
    """Load the newest state, if there is one; the step to go on from."""
    found = latest_state(folder / "state")
    if found is None:
        return 0
    where, state = found
    for agent, optimizer in optimizers.items():
        model.restore(agent, where / f"{agent}.safetensors")
        restore_optimizer(optimizer, load_tensors(where, f"{agent}.optimizer"))
    Console(stderr=True).print(f"{folder.name}: going on from step {state['step']}")
    return state["step"]
