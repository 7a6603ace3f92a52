"""Adapter folders in PEFT's layout: checked before they are read, loaded with errors that name the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from teamtune.types import TeamtuneError


def check_adapter(path: str) -> Path:
    """The adapter folder, if it is one."""
    folder = Path(path)
    if not (folder / "adapter_config.json").exists():
        raise TeamtuneError(f"no adapter in {path!r}: adapter_config.json is missing; train it, or mend the path")
    if not (folder / "adapter_model.safetensors").exists():
        raise TeamtuneError(f"adapter {path!r} has no adapter_model.safetensors; only safetensors are read")
    return folder


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
