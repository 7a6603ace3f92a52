"""Train the house model from scratch on its generated corpus.

    python -m teamtune.house build --out house-model

A Llama of about two million parameters, in bf16 autocast, with Muon on the matrices inside the blocks and AdamW on the
rest. Killed and started again with the same command it goes on from its last saved state.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from teamtune.house import tokenizer as tokenizers
from teamtune.house.corpus import document
from teamtune.house.data import batches
from teamtune.jsonl import Log
from teamtune.train.state import latest_state, load_tensors, optimizer_tensors, restore_optimizer, save_state
from teamtune.types import TeamtuneError

TOKENIZER_DOCUMENTS = range(10**9, 10**9 + 20_000)


@dataclass(frozen=True, slots=True)
class Build:
    """Options of a build; the defaults are those of the shipped model."""

    steps: int = 6500
    tokens: int = 8_192
    """ids a step, padding included"""
    longest: int = 800
    """documents with more ids than this are left out"""
    vocabulary: int = 1024
    width: int = 160
    layers: int = 6
    heads: int = 5
    inner: int = 448
    rate: float = 4e-3
    warmup: int = 100
    seed: int = 0
    muon: bool = True
    save_every: int = 200
    compile: bool = True


def new_model(cfg: Build, tokenizer: Any) -> LlamaForCausalLM:
    """The untrained model; its weights follow from the seed."""
    torch.manual_seed(cfg.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=cfg.width,
            intermediate_size=cfg.inner,
            num_hidden_layers=cfg.layers,
            num_attention_heads=cfg.heads,
            num_key_value_heads=cfg.heads,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def optimizers(cfg: Build, model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks and AdamW for the rest, or AdamW for all."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    rest = [p for name, p in model.named_parameters() if not (p.ndim == 2 and "layers" in name)]
    adamw = torch.optim.AdamW(
        rest if cfg.muon else model.parameters(), lr=cfg.rate, betas=(0.9, 0.95), weight_decay=0.01
    )
    if not cfg.muon:
        return [adamw]
    muon = torch.optim.Muon(matrices, lr=cfg.rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    return [muon, adamw]


def rate_at(cfg: Build, step: int) -> float:
    """Linear warm-up, flat to 40 % of the way, then linear to zero."""
    if step < cfg.warmup:
        return cfg.rate * (step + 1) / cfg.warmup
    flat = 0.4 * cfg.steps
    return cfg.rate * min(1.0, (cfg.steps - step) / (cfg.steps - flat))


def build(out: Path, cfg: Build) -> None:
    """Train and write the model folder `out`/model, with the training curve in `out`/metrics.jsonl."""
    out.mkdir(parents=True, exist_ok=True)
    options = out / "build.json"
    if options.exists() and json.loads(options.read_text()) != asdict(cfg):
        raise TeamtuneError(f"{out} holds a build with other options; choose another --out or the old options")
    options.write_text(json.dumps(asdict(cfg)))
    texts = (m.content for i in TOKENIZER_DOCUMENTS for m in document(cfg.seed, i).messages)
    tokenizer = tokenizers.train(texts, cfg.vocabulary)
    model = new_model(cfg, tokenizer)
    opts = optimizers(cfg, model)
    done = _resume(out, model, opts)
    _train(out, cfg, tokenizer, model, opts, done)
    model.bfloat16().save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")


def _resume(out: Path, model: LlamaForCausalLM, opts: list[torch.optim.Optimizer]) -> int:
    found = latest_state(out / "state")
    if found is None:
        return 0
    folder, state = found
    model.load_state_dict(load_tensors(folder, "model"), strict=False)
    model.tie_weights()
    for k, opt in enumerate(opts):
        restore_optimizer(opt, load_tensors(folder, f"optimizer-{k}"))
    Console(stderr=True).print(f"house build: going on from step {state['step']}")
    return state["step"]


def _train(
    out: Path,
    cfg: Build,
    tokenizer: PreTrainedTokenizerFast,
    model: LlamaForCausalLM,
    opts: list[torch.optim.Optimizer],
    done: int,
) -> None:
    forward = torch.compile(model, dynamic=True) if cfg.compile else model
    stream = batches(tokenizer, cfg.seed, cfg.tokens, cfg.longest)
    for _ in range(done):
        next(stream)
    curve = out / "metrics.jsonl"
    before = [line for line in Log(curve).read() if line["step"] < done]  # steps that a killed build took twice
    start, seen = time.monotonic(), 0
    with open(curve, "w") as log:
        log.writelines(json.dumps(line) + "\n" for line in before)
        for step in range(done, cfg.steps):
            ids, labels = next(stream)
            for opt in opts:
                for group in opt.param_groups:
                    group["lr"] = rate_at(cfg, step)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = forward(input_ids=ids, labels=labels, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for opt in opts:
                opt.step()
                opt.zero_grad()
            seen += ids.numel()
            if step % 10 == 0:
                line = {"step": step, "loss": loss.item(), "tokens": (step + 1) * cfg.tokens}
                log.write(json.dumps({**line, "tokens_per_s": seen / (time.monotonic() - start)}) + "\n")
                log.flush()
            if (step + 1) % cfg.save_every == 0 or step + 1 == cfg.steps:
                weights = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}
                groups = {f"optimizer-{k}": optimizer_tensors(opt) for k, opt in enumerate(opts)}
                save_state(out / "state" / f"step-{step + 1:06d}", {"model": weights, **groups}, {"step": step + 1})
