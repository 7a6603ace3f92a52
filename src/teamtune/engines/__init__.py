"""Engines answer asks: `transformers` (embedded), `scripted` (from a function)."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Literal

from teamtune.play import Engine
from teamtune.types import Team, TeamtuneError


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Which engine to open, and how."""

    kind: Literal["transformers", "scripted"] = "transformers"
    rows: int = 256
    """largest batch of the transformers engine"""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: float32 on a CPU, bfloat16 on a GPU"""
    script: str = ""
    """for the scripted engine: "module:function", called with (ask, seed)"""


def open_engine(spec: EngineSpec, team: Team) -> Engine:
    """An engine for the team's base model. Adapters come with `adopt`."""
    if spec.kind == "scripted":
        from teamtune.engines.scripted import Scripted

        module, _, name = spec.script.partition(":")
        if not name:
            raise TeamtuneError(f"the scripted engine needs script='module:function', not {spec.script!r}")
        return Scripted(getattr(importlib.import_module(module), name))
    from teamtune.engines.transformers import TransformersEngine
    from teamtune.models import load_model

    model, tokenizer = load_model(team.model, spec.dtype)
    return TransformersEngine(model, tokenizer, team.model, spec.rows)
