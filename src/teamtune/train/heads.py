"""Heads: numbers a token instead of a distribution, for a scorer and for the values that PPO learns."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from teamtune.types import TeamtuneError

HEAD, HEAD_FILE = "head.", "head.safetensors"
HINTS = 4
"""what `forward.surprises` tells of a token"""


class Head(torch.nn.Module):
    """A linear map from a token's state, and from hints if it takes any, to a number; it starts at 0 everywhere."""

    def __init__(self, width: int, hints: int = 0):
        super().__init__()
        self.hints = hints
        self.weight = torch.nn.Parameter(torch.zeros(width + hints))
        self.bias = torch.nn.Parameter(torch.zeros(()))

    @staticmethod
    def open(adapter: str | None, width: int, device: torch.device, hints: int = 0) -> Head:
        """The head beside an adapter, or a new one."""
        file = None if adapter is None else Path(adapter) / HEAD_FILE
        if file is None or not file.exists():
            return Head(width, hints).to(device)
        tensors = load_file(file)
        more = tensors["weight"].numel() - width if tensors.keys() == {"weight", "bias"} else -1
        if more not in (0, HINTS):
            raise TeamtuneError(f"{file} does not fit this model; was it trained on another base?")
        head = Head(width, more)
        head.load_state_dict(tensors)
        return head.to(device)
