"""Engines answer asks: `transformers` (embedded), `scripted` (from a function)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from teamtune.play import Engine
from teamtune.types import SCORER, Ask, Team, TeamtuneError


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Which engine to open, and how."""

    kind: Literal["transformers", "scripted"] = "transformers"
    rows: int = 256
    """largest batch of the transformers engine"""
    tokens: int = 131_072
    """most ids in a batch, prompts and answers at their longest together"""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: float32 on a CPU, bfloat16 on a GPU"""
    script: str = ""
    """for the scripted engine: "module:function", called with (ask, seed)"""

    def __post_init__(self) -> None:
        for name in ("rows", "tokens"):
            if getattr(self, name) < 1:
                raise TeamtuneError(f"engine.{name} is {getattr(self, name)}; it must be 1 or above")


def open_engine(spec: EngineSpec, team: Team) -> Engine:
    """An engine for the team's seats, on as many base models as they have. Adapters come with `adopt`."""
    if spec.kind == "scripted":
        from teamtune.engines.scripted import Scripted

        return Scripted(found_script(spec.script))
    from teamtune.engines.routed import joined

    seats: dict[str, Engine] = {}
    for model in team.models:
        seats |= on_one_base(spec, team.part(model))
    return joined(seats)


def on_one_base(spec: EngineSpec, team: Team) -> dict[str, Engine]:
    """The engines of a team's seats on one base in memory: the scorer's, and that of all others."""
    from teamtune.engines.transformers import TransformersEngine
    from teamtune.models import load_model

    model, tokenizer = load_model(team.model, spec.dtype)
    seats: dict[str, Engine] = {}
    if SCORER in team.names:
        from teamtune.scorer import LearnedScorer

        seats[SCORER] = scorer = LearnedScorer.beside(model, tokenizer, team[SCORER].adapter)
        model = scorer.model.model
    others = [name for name in team.names if name != SCORER]
    if others:
        seats |= dict.fromkeys(others, TransformersEngine(model, tokenizer, team.model, spec.rows, spec.tokens))
    return seats


def found_script(script: str) -> Callable[[Ask, int], str]:
    """The function that "module:function" names."""
    module, _, name = script.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise TeamtuneError(
            f"no function at {script!r} for the scripted engine ({error}); give module:function"
        ) from error
