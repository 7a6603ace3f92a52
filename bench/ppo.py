"""Where the time of a PPO update goes, and the whole update beside the way the published code takes.

    python bench/ppo.py [--model house] [--problems 8] [--max-tokens 300]

Same model, problems and machine, in one run. "As published": for every turn and agent one `generate` with every answer
forced to its full length and all scores kept, then answer by answer a forward pass under the base and one for the
values, which read the question and the answer, and steps on four answers each, accumulated one by one. Both do the same
number of epochs over the answers.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from torch.nn import functional as F

from teamtune.credit.discussion import Rewards
from teamtune.engines import EngineSpec
from teamtune.engines.transformers import TransformersEngine
from teamtune.memory import hold_freed_memory, peak_megabytes
from teamtune.play import Live
from teamtune.protocols.discussion import Share, by_policy, discussion, seats
from teamtune.recipes.maporl_learn import rewards_in
from teamtune.tasks import TaskSpec
from teamtune.tasks.stages import problem_row
from teamtune.train.fit import Fit
from teamtune.train.host import Host, hosted
from teamtune.train.losses import policy, token_logprobs, value
from teamtune.train.policies import Ppo
from teamtune.train.ppo import batch, train
from teamtune.train.samples import value_of
from teamtune.train.team import Lora
from teamtune.train.update import opening
from teamtune.types import Completion, Sampling, Team


@dataclass(frozen=True)
class Bench:
    model: str = "house"
    task: str = "stories"
    problems: int = 8
    """of an update"""
    agents: int = 2
    turns: int = 3
    share: Share = "turn"
    """whose answers have a policy in common: those of a conversation are read as one row where they have"""
    epochs: int = 4
    max_tokens: int = 300
    updates: int = 2
    """ours; the first warms up and is not counted"""
    published: bool = True


def host(cfg: Bench, ppo: Ppo) -> tuple[Host, Any, list[Any]]:
    speakers = by_policy(cfg.share, cfg.agents, cfg.turns, frozen=True)
    team = Team(cfg.model, seats(speakers, Sampling(0.7, max_tokens=cfg.max_tokens)))
    policies = team.trainable
    problems = TaskSpec(cfg.task, train=cfg.problems * cfg.updates).load("train")
    return (
        hosted(team, policies, Lora(rank=8, alpha=16), ppo, EngineSpec()),
        partial(discussion, speakers=speakers),
        problems,
    )


def ours(cfg: Bench, ppo: Ppo) -> dict[str, float]:
    """Seconds of the parts of the last update, and tokens generated a second."""
    made, protocol, problems = host(cfg, ppo)
    task, rows = TaskSpec(cfg.task, train=len(problems)), [problem_row(one) for one in problems]
    rewarded = partial(rewards_in, problems=rows, task=task, rewards=Rewards())
    with tempfile.TemporaryDirectory() as folder:
        lines = list(train(Path(folder), problems, protocol, made, rewarded, ppo))
    last = lines[-1]
    parts = {key.removeprefix("seconds/"): float(last[key]) for key in last if key.startswith("seconds/")}
    lengths = [float(last[f"agent-{a + 1}-turn-{t + 1}/length"]) for a in range(cfg.agents) for t in range(cfg.turns)]
    tokens = cfg.problems * sum(lengths)
    return {**parts, "whole": sum(parts.values()), "tokens": tokens, "tokens/s": tokens / parts["generation"]}


def as_published(cfg: Bench, ppo: Ppo) -> dict[str, float]:
    """Seconds of one update done as the published code does it."""
    made, protocol, problems = host(cfg, ppo)
    engine, learner = made.engine, made.learners[0]
    assert isinstance(engine, TransformersEngine)
    engine.adopt(made.team)
    mine = batch(problems, cfg.updates - 1, ppo, 0)  # those of the update of ours that is counted
    lives = [Live(problem, 0, protocol, made.team) for problem in mine]
    parts: dict[str, float] = dict.fromkeys(("generation", "reference", "values", "update"), 0.0)
    samples: dict[tuple[int, str, int], list[Sample]] = {}
    clock = time.monotonic()
    for turn in range(cfg.turns):
        for agent in range(cfg.agents):
            asked = [live.owed()[0] for live in lives]
            name = asked[0][1].agent
            prompts = [engine.renderer.prompt(ask.messages) for _, ask in asked]
            policy_ = name if name in learner.policies else None
            answers, olds = forced(engine, policy_, prompts, cfg.max_tokens)
            for live, (index, _), ids in zip(lives, asked, answers, strict=True):
                live.give(index, Completion(engine.tokenizer.decode(ids, skip_special_tokens=True)))
            first = [opening(ask.messages, engine.renderer) for _, ask in asked]
            samples[turn, name, agent] = list(map(Sample, prompts, first, answers, olds))
    parts["generation"] = time.monotonic() - clock
    for (_, name, _), own in samples.items():
        if name in learner.policies:
            for part, spent in stepped(learner, name, own, ppo).items():
                parts[part] += spent
    tokens = float(sum(len(one.ids) for own in samples.values() for one in own))
    return {**parts, "whole": sum(parts.values()), "tokens": tokens, "tokens/s": tokens / parts["generation"]}


@dataclass(frozen=True)
class Sample:
    """An answer of the published way: what it was asked, its question alone, its ids, and how likely they were."""

    prompt: list[int]
    question: list[int]
    ids: list[int]
    old: torch.Tensor


@torch.no_grad()
def forced(
    engine: TransformersEngine, adapter: str | None, prompts: Sequence[list[int]], length: int
) -> tuple[list[list[int]], torch.Tensor]:
    """One `generate` over a batch, every answer of full length, scores kept; the ids and their log-probabilities."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[engine.pad] * (longest - len(one)) + one for one in prompts])
    room = getattr(engine.model.config, "max_position_embeddings", 1 << 30) - longest
    count = max(1, min(length, room))
    if adapter is not None:
        engine.model.set_adapter(adapter)
    made: dict[str, Any] = {"do_sample": True, "temperature": 0.7, "top_k": 0, "top_p": 1.0, "output_scores": True}
    made |= {"min_new_tokens": count, "max_new_tokens": count, "return_dict_in_generate": True}
    made["pad_token_id"] = engine.pad
    mask = (torch.arange(longest)[None, :] >= torch.tensor([longest - len(one) for one in prompts])[:, None]).long()
    if adapter is None:
        with engine.model.disable_adapter():
            out = engine.model.generate(input_ids=ids, attention_mask=mask, **made)
    else:
        out = engine.model.generate(input_ids=ids, attention_mask=mask, **made)
    olds = engine.model.compute_transition_scores(out.sequences, out.scores, normalize_logits=True)
    return out.sequences[:, longest:].tolist(), olds


def stepped(learner: Any, name: str, own: list[Sample], ppo: Ppo) -> dict[str, float]:
    """Reference, values and steps of one policy, answer by answer."""
    model = learner.model
    spent: dict[str, float] = dict.fromkeys(("reference", "values", "update"), 0.0)
    looks = []
    for one in own:
        row, mask = beside(one.prompt, one.ids)
        asked, answered = beside(one.question, one.ids)
        old = F.pad(one.old, (len(one.prompt), 0))[None]
        clock = time.monotonic()
        with torch.no_grad():
            token_logprobs(model.base(row) / 0.7, row)
            spent["reference"] += time.monotonic() - clock
            clock = time.monotonic()
            worth = F.pad(model.values(asked, [value_of(name)])[:, :-1], (1, 0))
            spent["values"] += time.monotonic() - clock
        looks.append((row, mask, old, asked, answered, worth))
    clock = time.monotonic()
    for _ in range(ppo.fit.epochs):
        for number, (row, mask, old, asked, answered, worth) in enumerate(looks):
            now = token_logprobs(model(row, [name]) / 0.7, row)
            cost = policy(now, old, mask, torch.ones_like(old), 0.2).sum()
            values = F.pad(model.values(asked, [value_of(name)])[:, :-1], (1, 0))
            (cost + 0.1 * value(values, worth, torch.ones_like(worth), answered, 0.2).sum()).backward()
            if number % 4 == 3 or number == len(looks) - 1:
                for agent in (name, value_of(name)):
                    learner.optimizers[agent].step()
                    learner.optimizers[agent].zero_grad()
    spent["update"] += time.monotonic() - clock
    return spent


def beside(prompt: list[int], ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(row, which of it is the answer), each [1, len]."""
    row = torch.tensor([prompt + ids])
    return row, (torch.arange(row.shape[1]) >= len(prompt))[None]


def main(cfg: Bench) -> None:
    hold_freed_memory()
    fit = Fit(rate=1e-5, epochs=cfg.epochs, batch=32)
    ppo = Ppo(updates=cfg.updates, problems=cfg.problems, fit=fit, save_every=1000)
    found = {"ours": ours(cfg, ppo)}
    if cfg.published:
        found["as published"] = as_published(cfg, replace(ppo, updates=1))
    for name, parts in found.items():
        print(f"{name:>13}", " ".join(f"{part} {spent:.1f}" for part, spent in parts.items()))
    if cfg.published:
        print(f"the whole update: {found['as published']['whole'] / found['ours']['whole']:.1f} times as fast")
    print(json.dumps({"options": cfg.__dict__, "seconds": found, "peak_mb": peak_megabytes()}))


if __name__ == "__main__":
    main(tyro.cli(Bench))
