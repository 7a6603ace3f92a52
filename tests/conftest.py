"""A tiny model made once a session: two layers, byte-level tokenizer, chat template; nothing is downloaded."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import install_import_hook

# Test files run beside each other, and so do the commands that they start; each keeps to one core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# So that a run can name the task `tests.easy_task`.
sys.path.insert(0, str(Path(__file__).parent.parent))

# Shape annotations (all stand in these modules) are checked while the tests run, and costs nothing elsewhere.
install_import_hook(["teamtune.train", "teamtune.engines.sampling", "teamtune.house.data"], "beartype.beartype")


# Files that take minutes begin first, so that no worker is left with one at the end (the others keep their order).
LONG = ["test_malt.py", "test_maporl.py", "test_maft.py", "test_studies.py", "test_processes.py", "test_docs.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_collection_finish() -> None:
    """What the imports made stays for good: the hundreds of collections between stages need not walk through it."""
    gc.collect()
    gc.freeze()


def make_model(folder: Path, seed: int = 0) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    from teamtune.house import tokenizer as house

    tokenizer: Any = house.train(["You are the generator. Solve 12 + 3 * 4 = 24. Answer: 24"] * 3, 300)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,  # vLLM on a CPU has no narrower ones
        max_position_embeddings=1024,
        initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of the tiny model."""
    torch.set_num_threads(1)
    return str(make_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="session")
def brief(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a tiny model that ends about one answer in ten at every token: its generation config lists many stops."""
    from transformers import GenerationConfig

    torch.set_num_threads(1)
    path = make_model(tmp_path_factory.mktemp("brief"))
    GenerationConfig(eos_token_id=[1, *range(230, 260)], pad_token_id=0).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="session")
def wide(brief: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a tiny model whose layers' widths are multiples of 64, as 4 bits want them."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    path = str(tmp_path_factory.mktemp("wide"))
    shape: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256, "initializer_range": 0.05}
    LlamaForCausalLM(LlamaConfig.from_pretrained(brief, **shape)).save_pretrained(path)
    AutoTokenizer.from_pretrained(brief).save_pretrained(path)
    return path
