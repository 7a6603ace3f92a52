"""A tree of turns through our vLLM engine beside vLLM's own `LLM.generate` on the same prompts: tokens per second.

    python bench/vllm.py [--model house] [--problems 16] [--width 3] [--repeats 3] [--adapters]   # vLLM's environment

Every line is a process of its own, so that no cache is warm from another, and the lines take turns:

waves, rolling     MALT's tree by our engine: all generators, then all verifiers, then all refiners; or each verifier as
                   soon as its generator has finished
no prefix cache    waves, every prompt read whole
raw                `LLM.generate` on the very prompts of the waves, role by role, in an engine of the same options, each
                   answer as long as it was there: what the same work takes without this library

With --adapters every role has one, of rank 16 and zeros, so that answers are the base's and the work is that of a
trained team. `cached` is the share of the prompts' ids that vLLM found in its cache. Opening the engine is not counted.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import tyro
from apart import last_line

# This file has the library's name, and must not be found in its place.
sys.path = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]

from teamtune.engines.spec import Vllm  # noqa: E402
from teamtune.engines.vllm import VllmEngine, arguments, library, lora_arguments  # noqa: E402
from teamtune.play import Live, rolling, waves  # noqa: E402
from teamtune.protocols.pipeline import pipeline, seats  # noqa: E402
from teamtune.tasks import TaskSpec  # noqa: E402
from teamtune.train.team import Lora, TeamModel  # noqa: E402
from teamtune.types import Ask, Row, Sampling, Team, user  # noqa: E402

Way = Literal["waves", "rolling", "no prefix cache", "raw"]
WAYS: tuple[Way, ...] = ("waves", "raw", "rolling", "no prefix cache")
RANK = 16


@dataclass(frozen=True)
class Bench:
    model: str = "house"
    task: str = "stories"
    problems: int = 16
    width: int = 3
    max_tokens: int = 256
    rows: int = 256
    step_tokens: int = 2048
    """that a step takes at most, in every line: what `LLM` takes by itself is twice as much on a CPU"""
    repeats: int = 3
    adapters: bool = False
    """an adapter for every role"""
    child: Way | None = None
    """what one process measures"""
    folder: Path = Path()
    """for a child: where the work of the waves is kept"""


def options(cfg: Bench) -> Vllm:
    return Vllm(prefix_caching=cfg.child != "no prefix cache", step_tokens=cfg.step_tokens)


def team_of(cfg: Bench) -> Team:
    team = Team(cfg.model, seats(Sampling(temperature=1.0, max_tokens=cfg.max_tokens)))
    return team.adopt({name: str(cfg.folder / name) for name in team.names} if cfg.adapters else {})


def make_adapters(cfg: Bench) -> None:
    team = team_of(replace(cfg, adapters=False))
    model = TeamModel.open(team, team.names, Lora(rank=RANK, alpha=2 * RANK))
    for name in team.names:
        model.save(name, cfg.folder / name)


def ours(cfg: Bench) -> Row:
    engine = VllmEngine(cfg.model, options(cfg), cfg.rows)
    team = team_of(cfg)
    engine.adopt(team)
    engine.generate([Ask(name, (user("Are you there?"),), "generate") for name in team.names], [0] * len(team.names))
    lives = [
        Live(problem, 0, partial(pipeline, width=cfg.width), team)
        for problem in TaskSpec(cfg.task, train=cfg.problems).load("train")
    ]
    engine.cached_tokens = 0
    began = time.monotonic()
    for _ in (rolling if cfg.child == "rolling" else waves)(lives, engine, 0):
        pass
    seconds = time.monotonic() - began
    turns = [turn for live in lives for turn in live.turns]
    work: dict[str, list[Row]] = {}
    for turn in turns:
        said = turn.completion
        one = {"prompt": list(said.prompt_ids or ()), "length": len(said.token_ids or ()), "agent": turn.ask.agent}
        work.setdefault(turn.ask.tag, []).append(one)
    (cfg.folder / f"{cfg.child}.json").write_text(json.dumps(list(work.values())))
    engine.close()
    return told(seconds, [one for own in work.values() for one in own], engine.cached_tokens)


def raw(cfg: Bench) -> Row:
    vllm: Any = library("vllm")
    on_cpu = library("vllm.platforms").current_platform.is_cpu()
    if on_cpu:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from teamtune.models import model_path

    given = arguments(model_path(cfg.model), options(cfg), cfg.rows, "auto", on_cpu)
    adapters = {agent.name: agent.adapter for agent in team_of(cfg).agents if agent.adapter}
    # As many as the engine opens for, which has one for the base.
    model = vllm.LLM(**given, **lora_arguments(RANK if adapters else 0, len(adapters) + 1))
    request: Any = library("vllm.lora.request").LoRARequest
    requests = {name: request(name, n, adapters[name]) for n, name in enumerate(adapters, start=1)}
    exactly = lambda n, seed: vllm.SamplingParams(  # noqa: E731
        temperature=1.0, max_tokens=n, ignore_eos=True, seed=seed, logprobs=0, detokenize=False
    )
    ask = lambda work: model.generate(  # noqa: E731
        [{"prompt_token_ids": one["prompt"]} for one in work],
        [exactly(one["length"], seed) for seed, one in enumerate(work)],
        use_tqdm=False,
        lora_request=[requests.get(one["agent"]) for one in work],
    )
    ask([{"prompt": [5, 6, 7], "length": 4, "agent": name} for name in [*requests] or [""]])
    waved = json.loads((cfg.folder / "waves.json").read_text())
    began = time.monotonic()
    found = [one for role in waved for one in ask(role)]
    seconds = time.monotonic() - began
    return told(seconds, [one for role in waved for one in role], sum(one.num_cached_tokens or 0 for one in found))


def told(seconds: float, work: list[Row], cached: int) -> Row:
    tokens, read = sum(one["length"] for one in work), sum(len(one["prompt"]) for one in work)
    return {
        "answers": len(work),
        "tokens": tokens,
        "seconds": seconds,
        "rate": tokens / seconds,
        "cached": cached / read,
    }


def main(cfg: Bench) -> None:
    if cfg.child:
        print(json.dumps(raw(cfg) if cfg.child == "raw" else ours(cfg)))
        return
    shared = [f"--{name}={getattr(cfg, name)}" for name in ("model", "task", "problems", "width", "rows")]
    shared += [
        f"--max-tokens={cfg.max_tokens}",
        f"--step-tokens={cfg.step_tokens}",
        *(["--adapters"] if cfg.adapters else []),
    ]
    found: dict[str, list[Row]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        if cfg.adapters:
            make_adapters(replace(cfg, folder=Path(folder)))
        for _ in range(cfg.repeats):
            for way in WAYS:
                found[way].append(last_line(__file__, ["--child", way, "--folder", folder, *shared]))
    mean = lambda rows, name: sum(row[name] for row in rows) / len(rows)  # noqa: E731
    for way, rows in found.items():
        rates = [round(row["rate"]) for row in rows]
        line = {"way": way, "answers": rows[0]["answers"], "tokens": rows[0]["tokens"], "tokens_per_s": rates}
        line |= {"over_raw": round(mean(rows, "rate") / mean(found["raw"], "rate"), 2)}
        print(json.dumps({**line, "cached": round(mean(rows, "cached"), 3)}), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Bench))
