"""Engines answer asks: `transformers` (embedded), `vllm` (in this process), `openai` (a server), `scripted`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

from teamtune.engines.spec import EngineSpec
from teamtune.play import Engine
from teamtune.types import SCORER, Ask, Team, TeamtuneError

__all__ = ["EngineSpec", "open_engine"]


def open_engine(spec: EngineSpec, team: Team, run: Path | None = None) -> Engine:
    """An engine for the team's seats, on as many base models as they have. Adapters come with `adopt`.

    run: where what is spent at servers is kept.
    """
    if spec.kind == "scripted":
        from teamtune.engines.scripted import Scripted

        return Scripted(found_script(spec.script))
    from teamtune.engines.routed import joined

    seats: dict[str, Engine] = {}
    for model in team.models:
        seats |= on_one_base(spec, team.part(model), run)
    return joined(seats)


def on_one_base(spec: EngineSpec, team: Team, run: Path | None) -> dict[str, Engine]:
    """The engines of a team's seats on one base: the scorer's, and that of all others. Embedded ones share the base."""
    others = [name for name in team.names if name != SCORER]
    seats: dict[str, Engine] = {}
    if spec.kind != "transformers" and others:
        seats, others = dict.fromkeys(others, beside(spec, team.model, run)), []
    if others or SCORER in team.names:
        seats |= embedded(spec, team, others)
    return seats


def beside(spec: EngineSpec, model: str, run: Path | None) -> Engine:
    """An engine that has its model for itself: vLLM's, or a server's."""
    if spec.kind == "vllm":
        from teamtune.engines.vllm import VllmEngine

        return VllmEngine(model, spec.vllm, spec.rows, spec.dtype)
    try:
        from teamtune.engines.openai import OpenaiEngine
    except ImportError as error:
        raise TeamtuneError(f"the openai engine lacks its client ({error}); pip install 'teamtune[openai]'") from error
    return OpenaiEngine(model, spec.openai, run)


def embedded(spec: EngineSpec, team: Team, others: Sequence[str]) -> dict[str, Engine]:
    """Engines on a base in memory: the scorer's, if the team has one, and that of the `others`."""
    from teamtune.engines.transformers import TransformersEngine
    from teamtune.models import load_model

    model, tokenizer = load_model(team.model, spec.dtype, team.bits)
    seats: dict[str, Engine] = {}
    if SCORER in team.names:
        from teamtune.scorer import LearnedScorer

        seats[SCORER] = scorer = LearnedScorer.beside(model, tokenizer, team[SCORER].adapter)
        model = scorer.model.model
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
