"""Which engine to open, and how: plain options, without any engine."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal

from teamtune.types import BESIDE, TeamtuneError


@dataclass(frozen=True, slots=True)
class Vllm:
    """How vLLM runs. None of it decides what is sampled, so a run may go on with other values."""

    tensor_parallel: int = field(default=1, metadata=BESIDE)
    """GPUs that share the model"""
    memory: float = field(default=0.9, metadata=BESIDE)
    """share of a GPU's memory that weights and cache may take"""
    cache_gb: float = field(default=0.0, metadata=BESIDE)
    """of keys and values; 0 takes what the share of memory leaves, and 1 on a CPU"""
    context: int = field(default=0, metadata=BESIDE)
    """longest prompt and answer together; 0 is the model's own, which may ask for more memory than there is"""
    block: int = field(default=0, metadata=BESIDE)
    """ids in a block of the cache, which is what prompts share; 0 is vLLM's choice"""
    prefix_caching: bool = field(default=True, metadata=BESIDE)
    """read what prompts begin with alike once"""
    eager: bool = field(default=False, metadata=BESIDE)
    """compile nothing and capture no graphs: quicker to open, slower to run"""
    adapters: int = field(default=0, metadata=BESIDE)
    """most adapters in one batch; 0 is all of the team"""

    def __post_init__(self) -> None:
        if self.tensor_parallel < 1:
            raise TeamtuneError(f"engine.vllm.tensor_parallel is {self.tensor_parallel}; it must be 1 or above")
        if not 0 < self.memory <= 1:
            raise TeamtuneError(f"engine.vllm.memory is {self.memory}; it is a share and must lie in (0, 1]")
        for name in ("cache_gb", "context", "block", "adapters"):
            if not 0 <= getattr(self, name) < math.inf:
                raise TeamtuneError(
                    f"engine.vllm.{name} is {getattr(self, name)}; it must be above 0, or 0 for its own"
                )


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Which engine to open, and how. An option that the chosen kind does not read is an error."""

    kind: Literal["transformers", "vllm", "scripted"] = "transformers"
    rows: int = field(default=256, metadata=BESIDE)
    """most answers that are generated at once"""
    tokens: int = field(default=131_072, metadata=BESIDE)
    """transformers: most ids in a batch, prompts and answers at their longest together"""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: float32 on a CPU, bfloat16 on a GPU"""
    script: str = ""
    """scripted: "module:function", called with (ask, seed)"""
    vllm: Vllm = field(default=Vllm(), metadata=BESIDE)

    def __post_init__(self) -> None:
        for name in ("rows", "tokens"):
            if getattr(self, name) < 1:
                raise TeamtuneError(f"engine.{name} is {getattr(self, name)}; it must be 1 or above")
        for option in fields(self):
            given = getattr(self, option.name) != option.default
            if given and option.name not in READ[self.kind]:
                raise TeamtuneError(f"engine.{option.name} has no use with engine.kind {self.kind}; leave it out")


READ = {
    "transformers": ("kind", "rows", "tokens", "dtype"),
    "vllm": ("kind", "rows", "dtype", "vllm"),
    "scripted": ("kind", "script"),
}
"""The options that each kind of engine reads."""
