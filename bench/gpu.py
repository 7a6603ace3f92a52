"""What a large model takes on this machine: generation, joint fits and PPO updates of a random model of a real shape.

    python bench/gpu.py --model meta-llama/Llama-3.1-8B-Instruct     # a shape that `teamtune plan` knows, or a folder
    python bench/gpu.py --layers 2 --width 256                       # cut down, to try it on a CPU

Nothing is downloaded: weights are random, in bfloat16 on a GPU, ids too. Every line is a process of its own and prints
JSON. Utilisation is of the best of some matrix products here: a fit counts four operations a parameter and token (a
frozen base has no gradients of its own; what is computed again under --checkpoint counts once), `mfu6` six, as trainers
of whole models count. Generation is told in tokens a second; random answers never end, so all are `--answer` long.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from apart import last_line

from teamtune.engines import EngineSpec
from teamtune.engines.routed import joined
from teamtune.engines.transformers import TransformersEngine
from teamtune.machine import peak_flops
from teamtune.memory import forget_peak, peak_megabytes
from teamtune.models import device, native_bfloat16, open_tokenizer
from teamtune.protocols.discussion import by_policy, discussion, seats
from teamtune.shapes import config_of
from teamtune.train.fit import Fit, fit_model
from teamtune.train.host import Host, on_base
from teamtune.train.objective import Sft
from teamtune.train.policies import Learner, Ppo
from teamtune.train.ppo import train
from teamtune.train.team import Lora, TeamModel
from teamtune.types import Agent, Ask, Message, Problem, Row, Sampling, Team

Part = Literal["generation", "fit", "ppo"]


@dataclass(frozen=True)
class Bench:
    model: str = "meta-llama/Llama-3.1-8B-Instruct"
    layers: int = 0
    """0 takes the model's own"""
    width: int = 0
    """0 takes the model's own"""
    parts: tuple[Part, ...] = ("generation", "fit", "ppo")
    agents: tuple[int, ...] = (1, 6)
    """of the fits"""
    rows: int = 64
    """of each agent's fit, and answers of a generation"""
    prompt: int = 300
    answer: int = 300
    problems: int = 16
    """of a PPO update: two agents over three turns"""
    checkpoint: bool = False
    child: str = ""
    """what one process measures: a part and its agents"""


def base_of(cfg: Bench) -> Any:
    """The random model, on this machine's device."""
    from transformers import AutoModelForCausalLM

    config = config_of(cfg.model)
    config.num_hidden_layers = cfg.layers or config.num_hidden_layers
    if cfg.width:
        heads = max(1, cfg.width // 64)
        config.update({"hidden_size": cfg.width, "intermediate_size": 3 * cfg.width, "head_dim": 64})
        config.update({"num_attention_heads": heads, "num_key_value_heads": heads})
    dtype = torch.bfloat16 if native_bfloat16(device()) and device().type == "cuda" else torch.float32
    with device():
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def parameters_of(model: Any) -> int:
    """Those that a token meets: without the embeddings that it is looked up in."""
    return sum(p.numel() for n, p in model.named_parameters() if "embed_tokens" not in n and "lora_" not in n)


def ids(count: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(10, 1000) for _ in range(count)]


def generation(cfg: Bench, count: int) -> dict[str, float]:
    """Tokens a second of the embedded engine, prompts included in the time."""
    tokenizer, model = open_tokenizer("house"), base_of(cfg)
    engine = TransformersEngine(model, tokenizer, cfg.model, cfg.rows)
    engine.adopt(Team(cfg.model, (Agent("one", sampling=Sampling(1.0, max_tokens=cfg.answer)),)))
    asks = [Ask("one", (Message("user", tokenizer.decode(ids(cfg.prompt, n))),), "ask") for n in range(cfg.rows)]
    engine.generate(asks[:2], [0, 1])
    began = time.monotonic()
    done = engine.generate(asks, list(range(len(asks))))
    spent = time.monotonic() - began
    written = sum(len(one.token_ids or ()) for one in done)
    return {"seconds": spent, "tokens_per_s": written / spent}


def fits(cfg: Bench, count: int) -> dict[str, float]:
    """Two steps of SFT for every agent, after one that warms up."""
    agents = [f"agent-{n}" for n in range(count)]
    base = base_of(cfg)
    size = parameters_of(base)
    team = Team(cfg.model, tuple(map(Agent, agents)))
    model = TeamModel.around(base, open_tokenizer("house"), team, agents, Lora())
    options = Fit(rate=1e-5, batch=cfg.rows // 2, checkpoint=cfg.checkpoint)

    def rows(number: int) -> list[Row]:
        told = {"messages": [], "completion": ""}
        sides = [(ids(cfg.prompt, n), ids(cfg.answer, n + 1)) for n in range(number)]
        return [{"agent": a, **told, "prompt_ids": p, "token_ids": t} for a in agents for p, t in sides]

    with tempfile.TemporaryDirectory() as out:
        list(fit_model(Path(out) / "warm", model, rows(cfg.rows // 2), Sft(), options))
        began = time.monotonic()
        list(fit_model(Path(out) / "run", model, rows(cfg.rows), Sft(), options))
        spent = time.monotonic() - began
    tokens = count * cfg.rows * (cfg.prompt + cfg.answer)
    share = size * tokens / spent / peak_flops()
    return {"seconds": spent, "ids_per_s": tokens / spent, "utilisation": 4 * share, "mfu6": 6 * share}


def updates(cfg: Bench, count: int) -> dict[str, float]:
    """Seconds of the parts of a PPO update, after one that warms up."""
    speakers = by_policy("turn", 2, 3, frozen=True)
    team = Team(cfg.model, seats(speakers, Sampling(1.0, max_tokens=cfg.answer)))
    policies = team.trainable
    ppo = Ppo(updates=2, problems=cfg.problems, fit=Fit(rate=1e-5, epochs=1, checkpoint=cfg.checkpoint), save_every=9)
    tokenizer, spec = open_tokenizer("house"), EngineSpec(rows=cfg.rows)
    model, engines = on_base(base_of(cfg), tokenizer, team, policies, Lora(rank=8, alpha=16), ppo, spec)
    learners = [Learner.of(model, policies, ppo)]
    host = Host(team.adopt({name: name for name in policies}), joined(engines), learners, apart=False)
    problems = [Problem(f"p{n}", tokenizer.decode(ids(cfg.prompt, n)), "1", "End.") for n in range(2 * cfg.problems)]
    with tempfile.TemporaryDirectory() as out:
        lines = list(train(Path(out), problems, partial(discussion, speakers=speakers), host, rewarded, ppo))
    parts = {k.removeprefix("seconds/"): float(v) for k, v in lines[-1].items() if k.startswith("seconds/")}
    written = float(lines[-1]["generated_tokens"])
    return {**parts, "seconds": sum(parts.values()), "tokens_per_s": written / parts["generation"]}


def rewarded(rows: Sequence[Row]) -> list[Row]:
    """Rewards of no meaning."""
    told = {"score": 0.0, "graded": False, "right": False, "penalty": "", "base": 0.0, "incentive": 0.0}
    found: list[Row] = []
    for row in rows:
        turn = {name: row[name] for name in ("problem", "take", "turn", "agent", "tag")}
        before = [one for one in found if all(one[name] == row[name] for name in ("problem", "take", "tag"))]
        number = int(row["tag"].removeprefix("turn-"))
        found.append({**turn, **told, "place": len(before), "number": number, "reward": len(row["text"]) % 7 / 7})
    return found


def main(cfg: Bench) -> None:
    if cfg.child:
        part, _, count = cfg.child.partition("-")
        forget_peak()
        found = {"generation": generation, "fit": fits, "ppo": updates}[part](cfg, int(count))
        print(json.dumps({key: round(value, 3) for key, value in found.items()} | {"peak_mb": peak_megabytes()}))
        return
    print(f"{cfg.model}, {device()}, peak {peak_flops() / 1e12:.2f} TFLOP/s", flush=True)
    own = asdict(cfg) | {"parts": None, "agents": None, "child": None}
    args = [f"--{name}={value}" for name, value in own.items() if value and name != "checkpoint"]
    args += ["--checkpoint"] if cfg.checkpoint else []
    for part in cfg.parts:
        for count in cfg.agents if part == "fit" else (1,):
            print(
                json.dumps(
                    {"part": part, "agents": count, **last_line(__file__, ["--child", f"{part}-{count}", *args])}
                )
            )


if __name__ == "__main__":
    main(tyro.cli(Bench))
