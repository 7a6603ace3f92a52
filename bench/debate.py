"""Problems per minute of a debate with summaries: waves beside one problem at a time at batch size one.

    python bench/debate.py [--model house] [--problems 96] [--alone 4]

Same model, prompts and machine, in one run. The published code of Multiagent Finetuning takes a problem after the other
and an answer after the other, each by `generate` with the scores of all tokens kept; that is "generate, one at a time".
"ours, one at a time" is the same order of work with this library's decoding loop. Then the cost of waves as problems,
agents and rounds grow: the slope of log(cost) over log(count), 1 where cost is linear. Calls are linear in each; with
agents and rounds prompts grow too, since every summary reads all other agents and a conversation keeps its rounds.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import log
from pathlib import Path
from typing import Literal

import torch
import tyro
from maft_memory import Bench as Shape
from maft_memory import make

from teamtune.engines import EngineSpec, open_engine
from teamtune.engines.transformers import TransformersEngine
from teamtune.memory import hold_freed_memory
from teamtune.play import Live, seed_of, waves
from teamtune.protocols import exchange
from teamtune.protocols.exchange import by_roles
from teamtune.tasks import TaskSpec
from teamtune.types import Ask, Completion, Sampling, Team


@dataclass(frozen=True)
class Bench:
    model: str = "house"
    task: str = "arithmetic"
    problems: int = 96
    """in waves"""
    alone: int = 4
    """one at a time"""
    agents: int = 3
    rounds: int = 2
    max_tokens: int = 320
    slopes: bool = True
    shape: str = ""
    """width x layers of a random Llama to take instead of the model: 768x12"""


def lives(cfg: Bench, problems: int, agents: int, rounds: int) -> tuple[list[Live], Team]:
    speakers = by_roles(agents, rounds)
    names = [name for group in speakers for name in group]
    team = Team(cfg.model, exchange.seats(names, Sampling(1.0, top_p=0.9, max_tokens=cfg.max_tokens)))
    protocol = partial(exchange.exchange, speakers=speakers)
    return [Live(p, 0, protocol, team) for p in TaskSpec(cfg.task, train=problems).load("train")], team


def one_at_a_time(some: Sequence[Live], answer: Callable[[Ask, int], Completion]) -> None:
    for live in some:
        while live.answer is None:
            index, ask = live.owed()[0]
            live.give(index, answer(ask, seed_of(0, live.problem.id, live.take, index)))


def generated(engine: TransformersEngine, ask: Ask, seed: int) -> Completion:
    """An answer by `generate` at batch size one, scores kept."""
    request = engine._request(0, ask, seed)
    sampling = request.sampling
    with torch.inference_mode():
        out = engine.model.generate(
            input_ids=torch.tensor([request.prompt], device=engine.model.device),
            do_sample=True,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=0,
            max_new_tokens=request.limit,
            eos_token_id=engine.stops,
            pad_token_id=engine.pad,
            output_scores=True,
            return_dict_in_generate=True,
        )
    ids = out.sequences[0, len(request.prompt) :].tolist()
    ended = ids[-1] in engine.stops
    text = engine.renderer.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=True)
    return Completion(text, "stop" if ended else "length", tuple(request.prompt), tuple(ids))


@dataclass(frozen=True)
class Spent:
    seconds: float
    calls: int
    tokens: int
    """read and written"""


Way = Literal["waves", "ours, one at a time", "generate, one at a time"]


def spent(cfg: Bench, engine: TransformersEngine, problems: int, agents: int, rounds: int, way: Way = "waves") -> Spent:
    some, team = lives(cfg, problems, agents, rounds)
    engine.adopt(team)
    start = time.perf_counter()
    if way == "waves":
        for _ in waves(some, engine, 0):
            pass
    elif way == "ours, one at a time":
        one_at_a_time(some, lambda ask, seed: engine.generate([ask], [seed])[0])
    else:
        one_at_a_time(some, partial(generated, engine))
    turns = [turn.completion for live in some for turn in live.turns]
    tokens = sum(len(one.prompt_ids or ()) + len(one.token_ids or ()) for one in turns)
    return Spent(time.perf_counter() - start, len(turns), tokens)


def slope(counts: Sequence[int], times: Sequence[float]) -> float:
    """Of the least-squares line through log(seconds) over log(count)."""
    xs, ys = [log(count) for count in counts], [log(one) for one in times]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def main(cfg: Bench) -> None:
    hold_freed_memory()
    if cfg.shape:
        hidden, layers = map(int, cfg.shape.split("x"))
        with tempfile.TemporaryDirectory() as place:
            size = make(Shape(hidden=hidden, layers=layers), Path(place))
            print(f"a random Llama of {size / 1e6:.1f} M parameters")
            bench(replace(cfg, model=place))
    else:
        bench(cfg)


def bench(cfg: Bench) -> None:
    _, team = lives(cfg, 1, cfg.agents, cfg.rounds)
    engine = open_engine(EngineSpec(), team)
    assert isinstance(engine, TransformersEngine)
    spent(cfg, engine, 2, cfg.agents, cfg.rounds)  # warm up
    print(f"model {cfg.model}, {torch.get_num_threads()} threads, {cfg.agents} agents, {cfg.rounds} rounds")
    ways: dict[Way, int] = {
        "waves": cfg.problems,
        "ours, one at a time": cfg.alone,
        "generate, one at a time": cfg.alone,
    }
    rates = {w: 60 * n / spent(cfg, engine, n, cfg.agents, cfg.rounds, w).seconds for w, n in ways.items()}
    for way, rate in rates.items():
        told = {"problems_per_minute": round(rate, 1), "waves_over_it": round(rates["waves"] / rate, 1)}
        print(json.dumps({"way": way, **told}), flush=True)
    # Small batches are the dearer ones, so the smallest is as large as what a run sends.
    least = cfg.problems
    grown = {
        "problems": ([least, 2 * least, 4 * least], lambda n: (n, cfg.agents, cfg.rounds)),
        "agents": ([2, 4, 8], lambda n: (least, n, cfg.rounds)),
        "rounds": ([2, 4, 8], lambda n: (least, cfg.agents, n)),
    }
    for name, (counts, shape) in grown.items() if cfg.slopes else ():
        costs = [spent(cfg, engine, *shape(count)) for count in counts]
        line = {str(count): round(one.seconds, 1) for count, one in zip(counts, costs, strict=True)}
        slopes = {
            of: round(slope(counts, [getattr(one, of) for one in costs]), 2) for of in ("seconds", "calls", "tokens")
        }
        print(json.dumps({name: line, "slopes": slopes}), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Bench))
