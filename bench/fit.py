"""One joint fit of N agents beside N fits one after the other and N runs of TRL: time, peak memory, utilisation.

    python bench/fit.py [--agents 1 2 3 6] [--hidden 512] [--layers 8] [--rows 96] [--repeats 1]

The same rows for all: chats of 60 to 400 ids, the last third of each an answer, batches of 32, one epoch of SFT with
rank 16 on all linear layers of a random Llama; in bfloat16 where the machine has it. Every line is a process of its
own; with --repeats all ways take turns, and the last line of each has their mean and its error. Memory is the peak
less that of a process without a model. Utilisation counts four operations a parameter and real token (forward, and back
to the activations; a frozen base has no gradients of its own), against the best of some matrix products in the same
precision on the same threads.

joint: all agents at once (`train.fit`). sequential: the same fit for one agent after the other on one base in memory.
trl: a new SFTTrainer for every agent, in micro-batches of 8 rows, sorted by length as far as it does so itself.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
import time
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

import torch
import tyro
from apart import last_line, random_llama

from teamtune.machine import peak_flops
from teamtune.memory import forget_peak, keep_few_kernels, peak_megabytes
from teamtune.models import device as this_device
from teamtune.models import load_model, native_bfloat16, open_tokenizer
from teamtune.train.fit import Fit, fit_model
from teamtune.train.objective import Sft
from teamtune.train.team import Lora, TeamModel
from teamtune.types import Agent, Row, Team

Way = Literal["none", "joint", "sequential", "trl"]
BATCH = 32


@dataclass(frozen=True)
class Bench:
    agents: tuple[int, ...] = (1, 2, 3, 6)
    hidden: int = 512
    layers: int = 8
    rows: int = 96
    """of each agent"""
    ways: tuple[Way, ...] = ("joint", "sequential", "trl")
    repeats: int = 1
    vocabulary: int = 8192
    checkpoint: bool = False
    memory: bool = False
    """measure memory: blocks are given back as soon as they are freed, which takes time"""
    child: Way | None = None
    """what one process measures"""
    folder: Path = Path()


def make(cfg: Bench, folder: Path) -> int:
    """A random model with the house model's tokenizer; the parameters that a token meets."""
    tokenizer = open_tokenizer("house")
    model = random_llama(folder, tokenizer, cfg.hidden, 3 * cfg.hidden, cfg.layers, cfg.vocabulary)
    return sum(p.numel() for name, p in model.named_parameters() if "embed_tokens" not in name)


def rows_of(cfg: Bench, agent: str) -> list[Row]:
    rng, rows = random.Random(agent), []
    for _ in range(cfg.rows):
        length = rng.randint(60, 400)
        ids = [rng.randrange(5, cfg.vocabulary) for _ in range(length)]
        cut = 2 * length // 3
        rows.append({"agent": agent, "messages": [], "completion": "", "prompt_ids": ids[:cut], "token_ids": ids[cut:]})
    return rows


def names(count: int) -> list[str]:
    return [f"agent-{n}" for n in range(count)]


def ours(cfg: Bench, count: int, joint: bool) -> float:
    agents = names(count)
    base, tokenizer = load_model(str(cfg.folder))
    team = Team(str(cfg.folder), tuple(map(Agent, agents)))
    options = Fit(rate=1e-4, batch=BATCH, checkpoint=cfg.checkpoint)
    model = TeamModel.around(base, tokenizer, team, agents, Lora(rank=16, alpha=32))
    rows = {agent: rows_of(cfg, agent) for agent in agents}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        if joint:
            list(fit_model(Path(out), model, [row for own in rows.values() for row in own], Sft(), options))
        for agent in () if joint else agents:
            alone = TeamModel(model.model, tokenizer, [agent])
            list(fit_model(Path(out) / agent, alone, rows[agent], Sft(), options))
    return time.monotonic() - began


def trl(cfg: Bench, count: int) -> float:
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    spent = 0.0
    for agent in names(count):
        base, tokenizer = load_model(str(cfg.folder))
        model = get_peft_model(
            base, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        )
        rows = rows_of(cfg, agent)
        data = {
            "input_ids": [row["prompt_ids"] + row["token_ids"] for row in rows],
            "labels": [[-100] * len(row["prompt_ids"]) + row["token_ids"] for row in rows],
        }
        with tempfile.TemporaryDirectory() as out:
            own: dict[str, Any] = {"output_dir": out, "use_cpu": this_device().type == "cpu", "report_to": "none"}
            own |= {
                "bf16": native_bfloat16(this_device()),
                "gradient_checkpointing": cfg.checkpoint,
                "max_length": None,
            }
            own |= {"per_device_train_batch_size": 8, "gradient_accumulation_steps": BATCH // 8, "num_train_epochs": 1}
            own |= {"disable_tqdm": True, "save_strategy": "no", "learning_rate": 1e-4, "dataloader_pin_memory": False}
            trainer = SFTTrainer(
                model, args=SFTConfig(**own), train_dataset=Dataset.from_dict(data), processing_class=tokenizer
            )
            began = time.monotonic()
            trainer.train()
            spent += time.monotonic() - began
    return spent


def measure(cfg: Bench) -> dict[str, float]:
    count = cfg.agents[0]
    forget_peak()
    if cfg.child == "trl":
        seconds = trl(cfg, count)
    else:
        keep_few_kernels()  # as the command line does
        seconds = 0.0 if cfg.child == "none" else ours(cfg, count, cfg.child == "joint")
    return {"seconds": seconds, "mb": peak_megabytes() or 0.0}


def child(cfg: Bench, way: Way, count: int, folder: Path) -> dict[str, float]:
    shape = [f"--{name}={getattr(cfg, name)}" for name in ("hidden", "layers", "rows", "vocabulary")]
    shape += ["--checkpoint"] if cfg.checkpoint else []
    # Freed blocks go back at once, so that the peak is what was in use and not what glibc's heap had grown to.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**18), "MALLOC_TRIM_THRESHOLD_": str(2**17)}
    args = ["--child", way, "--agents", str(count), "--folder", str(folder), *shape]
    return last_line(__file__, args, env if cfg.memory else None)


def main(cfg: Bench) -> None:
    if cfg.child:
        print(json.dumps(measure(cfg)))
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        size, peak = make(cfg, folder), peak_flops()
        nothing = child(cfg, "none", 1, folder)["mb"]
        print(f"{size / 1e6:.1f} M parameters, {torch.get_num_threads()} threads, peak {peak / 1e9:.0f} GFLOP/s")
        for count in cfg.agents:
            tokens = sum(len(r["prompt_ids"]) + len(r["token_ids"]) for a in names(count) for r in rows_of(cfg, a))
            spent: dict[Way, list[float]] = {way: [] for way in cfg.ways}
            for way in cfg.ways * cfg.repeats:
                found = child(cfg, way, count, folder)
                spent[way].append(found["seconds"])
                used = 4 * size * tokens / found["seconds"] / peak
                told = {"agents": count, "way": way, "seconds": round(found["seconds"], 1)}
                told |= {"mb": round(found["mb"] - nothing), "ids_per_s": round(tokens / found["seconds"])}
                print(json.dumps({**told, "utilisation": round(used, 3)}), flush=True)
            for way, seconds in spent.items() if cfg.repeats > 1 else ():
                error = stdev(seconds) / sqrt(cfg.repeats)
                told = {"mean": round(fmean(seconds), 1), "error": round(error, 1), "repeats": cfg.repeats}
                print(json.dumps({"agents": count, "way": way, **told}), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Bench))
