"""Adapter folders in PEFT's layout: checked before they are read, loaded with errors that name the folder."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch

from teamtune.models import check_weights
from teamtune.types import TeamtuneError


def check_adapter(path: str) -> Path:
    """The adapter folder, if it is one."""
    folder = Path(path)
    if not (folder / "adapter_config.json").exists():
        raise TeamtuneError(f"no adapter in {path!r}: adapter_config.json is missing; train it, or mend the path")
    if not (folder / "adapter_model.safetensors").exists():
        raise TeamtuneError(f"adapter {path!r} has no adapter_model.safetensors; only safetensors are read")
    check_weights(folder / "adapter_model.safetensors")
    return folder


BASE = "__base__"  # PEFT's name for "no adapter" in a mixed batch


@torch.no_grad()
def mixes(model: Any, name: str) -> bool:
    """Whether rows with and without the adapter can share a forward pass, tried on two rows of two tokens.

    PEFT routes rows by their place in the batch; a model that flattens its batch on the way (OPT) cannot be routed.
    """
    ids = torch.zeros(2, 2, dtype=torch.long, device=model.device)
    try:
        model(input_ids=ids, use_cache=False, adapter_names=[name, BASE])
    except ValueError as error:
        if "adapter_names" not in str(error):
            raise
        _unhook(model)
        return False
    return True


def _unhook(model: Any) -> None:
    """Remove the hooks that route rows: PEFT leaves them behind where a forward pass fails."""
    for module in model.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, partial) and "adapter_names" in hook.keywords:
                del module._forward_pre_hooks[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)


def attach(model: Any, path: str, name: str, trainable: bool = False) -> Any:
    """The PEFT model with one more adapter; a plain model becomes a PEFT model."""
    from peft import PeftModel
    from safetensors import SafetensorError

    folder = check_adapter(path)
    try:
        if isinstance(model, PeftModel):
            model.load_adapter(str(folder), adapter_name=name, is_trainable=trainable)
            return model
        return PeftModel.from_pretrained(model, str(folder), adapter_name=name, is_trainable=trainable)
    except (RuntimeError, ValueError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise TeamtuneError(
            f"adapter {path!r} does not fit this model; was it trained on another base? {reason}"
        ) from error


def rank_of(path: str) -> int:
    """The rank of a LoRA folder."""
    return int(json.loads((check_adapter(path) / "adapter_config.json").read_bytes())["r"])


def zero_adapter(like: Path, folder: Path) -> str:
    """An adapter of the same shape that changes nothing: every B is zero."""
    from safetensors.torch import load_file, save_file

    shutil.copy(like / "adapter_config.json", folder)
    tensors = load_file(like / "adapter_model.safetensors")
    emptied = {name: one.zero_() if "lora_B" in name else one for name, one in tensors.items()}
    save_file(emptied, folder / "adapter_model.safetensors")
    return str(folder)
