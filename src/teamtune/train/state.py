"""Training state as safetensors: model, optimiser and step, written whole or not at all.

    step-000250/  model.safetensors  optimizer.safetensors  state.json {"step": 250, ...}

No pickle is ever read. A folder without state.json is unfinished and ignored.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state, flat: "3/exp_avg" is the first moment of its fourth parameter."""
    flat: dict[str, Tensor] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            flat[f"{index}/{name}"] = torch.as_tensor(value).detach().clone().contiguous()
    return flat


def restore_optimizer(optimizer: torch.optim.Optimizer, flat: Mapping[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`; learning rates stay as they are set now."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def save_state(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    """Write `{name: tensors}` as NAME.safetensors files and `state` as state.json, then drop older states beside it."""
    draft = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for name, group in tensors.items():
        save_file(
            {key: value.detach().contiguous().clone() for key, value in group.items()},
            draft / f"{name}.safetensors",
        )
    with open(draft / "state.json", "w") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(draft, folder)
    for old in folder.parent.glob("step-*"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)


def latest_state(parent: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole state under `parent`, with its state.json; None where there is none."""
    whole = sorted(
        path for path in parent.glob("step-*") if not path.name.endswith(".tmp") and (path / "state.json").exists()
    )
    if not whole:
        return None
    return whole[-1], json.loads((whole[-1] / "state.json").read_text())


def load_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """The tensors saved under a name in a state folder."""
    return load_file(folder / f"{name}.safetensors")
