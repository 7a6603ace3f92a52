"""Generated tokens per second: our engine beside a bare `model.generate`, same model, prompts and machine, in one run.

    python bench/rollout.py [--model house] [--problems 64] [--repeats 3]

Three kinds of asks, as a MALT tree has them: generators (width copies of each prompt), verifiers, refiners. The bare
side is `generate(do_sample=True)` on the same batches (the same rows in the same order, padded on the left), which is
what one would write by hand. Both sides sample at temperature 1; a side's rate is its own tokens by its own time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import tyro

from teamtune.engines.transformers import TransformersEngine, batched
from teamtune.memory import hold_freed_memory
from teamtune.models import load_model
from teamtune.play import Live, seed_of, waves
from teamtune.protocols.pipeline import pipeline, seats
from teamtune.tasks import TaskSpec
from teamtune.types import Ask, Sampling, Team


@dataclass(frozen=True)
class Bench:
    model: str = "house"
    task: str = "stories"
    problems: int = 64
    width: int = 3
    max_tokens: int = 256
    rows: int = 256
    repeats: int = 3


def asks_by_role(cfg: Bench, engine: TransformersEngine, team: Team) -> dict[str, list[Ask]]:
    """Real asks of every role: one tree per problem, played once."""
    protocol = partial(pipeline, width=cfg.width)
    lives = [Live(problem, 0, protocol, team) for problem in TaskSpec(cfg.task, train=cfg.problems).load("train")]
    for _ in waves(lives, engine, 0):
        pass
    asks: dict[str, list[Ask]] = {}
    for live in lives:
        for turn in live.turns:
            asks.setdefault(turn.ask.tag, []).append(turn.ask)
    return asks


def ours(engine: TransformersEngine, asks: Sequence[Ask], repeat: int) -> int:
    done = engine.generate(asks, [seed_of(repeat, "bench", 0, i) for i in range(len(asks))])
    return sum(len(completion.token_ids or ()) for completion in done)


def bare(cfg: Bench, engine: TransformersEngine, asks: Sequence[Ask]) -> int:
    tokens = 0
    requests = [engine._request(i, ask, 0) for i, ask in enumerate(asks)]
    for batch in batched(requests, cfg.rows):
        longest = max(len(request.prompt) for request in batch)
        ids = torch.tensor([[engine.pad] * (longest - len(r.prompt)) + list(r.prompt) for r in batch])
        mask = torch.tensor([[0] * (longest - len(r.prompt)) + [1] * len(r.prompt) for r in batch])
        with torch.inference_mode():
            out = engine.model.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=cfg.max_tokens,
                eos_token_id=engine.stops,
                pad_token_id=engine.pad,
            )
        for row in out[:, longest:].tolist():
            tokens += next((i + 1 for i, token in enumerate(row) if token in engine.stops), len(row))
    return tokens


def main(cfg: Bench) -> None:
    hold_freed_memory()  # as the command line does; it helps the bare side most
    model, tokenizer = load_model(cfg.model)
    team = Team(cfg.model, seats(Sampling(1.0, max_tokens=cfg.max_tokens)))
    engine = TransformersEngine(model, tokenizer, cfg.model, cfg.rows)
    engine.adopt(team)
    print(f"model {cfg.model}, {torch.get_num_threads()} threads, batches of {cfg.rows}")
    for role, asks in asks_by_role(cfg, engine, team).items():
        rates: dict[str, list[float]] = {"ours": [], "bare": []}
        for repeat in range(cfg.repeats):
            for side in rates:
                start = time.perf_counter()
                tokens = ours(engine, asks, repeat) if side == "ours" else bare(cfg, engine, asks)
                rates[side].append(tokens / (time.perf_counter() - start))
        best = {side: max(values) for side, values in rates.items()}
        line = {"role": role, "asks": len(asks), **{f"{k}_tokens_per_s": round(v) for k, v in best.items()}}
        print(json.dumps({**line, "ratio": round(best["ours"] / best["bare"], 2)}))


if __name__ == "__main__":
    main(tyro.cli(Bench))
