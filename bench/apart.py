"""For benches that measure every line in a process of its own: a random Llama on disk, and what a child said last."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def random_llama(
    folder: Path, tokenizer: Any, hidden: int, inner: int, layers: int, vocabulary: int, **more: Any
) -> Any:
    """A random model with heads of 64, saved to the folder with its tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape: Any = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
    shape |= {"num_attention_heads": hidden // 64, "num_key_value_heads": hidden // 64}
    shape |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    model: Any = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **shape, **more))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def last_line(script: str, args: Sequence[str], env: Mapping[str, str] | None = None) -> Any:
    """The JSON that a child process of the script prints last."""
    done = subprocess.run([sys.executable, script, *args], capture_output=True, text=True, env=env)
    if done.returncode:
        raise SystemExit(f"{' '.join(args)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
