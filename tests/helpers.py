"""What several test modules need: random adapters, and the log-probabilities of a plain forward pass."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from teamtune.engines.spec import Vllm
from teamtune.types import Ask, Message, Team

SMALL = Vllm(cache_gb=0.1, block=32)

REPOSITORY = Path(__file__).parent.parent


def surroundings() -> dict[str, str]:
    """The environment of a subprocess: the package under test and `tests.easy_task` can be imported, on one thread."""
    import teamtune.types

    source = Path(teamtune.types.__file__).parent.parent
    paths = [str(source), str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}


def base_of(path: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def tokenizer_of(path: str) -> Any:
    return AutoTokenizer.from_pretrained(path)


def random_adapter(path: str, folder: Path, seed: int, scale: float = 0.3, rank: int = 4) -> str:
    """A LoRA folder, made by PEFT alone, in which every tensor is random (B is zero in a new adapter)."""
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    model: Any = get_peft_model(base_of(path), config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    model.save_pretrained(str(folder))
    return str(folder)


def plain_model(path: str, adapter: str | None) -> Any:
    """The base, or the base with one adapter, loaded without any of our code."""
    base = base_of(path)
    return base if adapter is None else PeftModel.from_pretrained(base, adapter).eval()


@torch.no_grad()
def plain_logprobs(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """log p of each id of `answer` after `prompt`: one unpadded sequence, no cache, no mask."""
    ids = torch.tensor([[*prompt, *answer]])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(-1).gather(-1, ids[0, len(prompt) :, None]).squeeze(-1)


def opened_vllm(path: str, team: Team, options: Vllm = SMALL) -> Any:
    from teamtune.engines.vllm import VllmEngine

    engine = VllmEngine(path, options)
    engine.adopt(team)
    return engine


def long_ask(seat: str, number: int) -> Ask:
    """Asks that begin alike, over several blocks of the cache."""
    return Ask(seat, (Message("system", "Add and multiply. " * 20), Message("user", f"{number} * 3?")), "test")
