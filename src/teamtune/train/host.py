"""What PPO samples from and what it trains. Embedded, both are one model in memory: the engine generates with the very
weights that are being trained. vLLM and servers have weights of their own and are given every update's adapters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from teamtune.engines import EngineSpec, beside
from teamtune.engines.routed import joined
from teamtune.engines.spec import check_ppo
from teamtune.engines.transformers import TransformersEngine
from teamtune.models import load_model
from teamtune.play import Engine
from teamtune.scorer import LearnedScorer
from teamtune.train import processes
from teamtune.train.policies import Learner, Ppo
from teamtune.train.samples import value_of
from teamtune.train.team import Lora, TeamModel
from teamtune.types import SCORER, Agent, Team, TeamtuneError


@dataclass(frozen=True, slots=True)
class Host:
    """The team as it is sampled from, the engine, and what learns."""

    team: Team
    engine: Engine
    learners: list[Learner]
    apart: bool
    """the engine has weights of its own, and takes adapters as folders"""
    elsewhere: tuple[str, ...] = ()
    """seats whose weights are a server's own"""


def hosted(
    team: Team,
    policies: Sequence[str],
    lora: Lora,
    ppo: Ppo,
    spec: EngineSpec,
    seed: int = 0,
    run: Path | None = None,
) -> Host:
    """Load every base of the team once, with an adapter for each policy, its values, and the scorer.

    A policy goes on from its seat's adapter, or starts as the base; its values start at 0. Seats that are no policies
    play as they are. run: where what is spent at servers is kept.
    """
    if processes.count() > 1:
        raise TeamtuneError(
            f"PPO trains in one process, and this is one of {processes.count()}; run it without a launcher"
        )
    check_ppo(spec, policies)
    seats: dict[str, Engine] = {}
    learners: list[Learner] = []
    for base in team.models:
        part = team.part(base)
        own = [name for name in part.names if name in policies]
        loaded = load_model(part.model, spec.dtype, lora.bits)
        found = on_base(*loaded, part, own, lora, ppo, spec, seed, run)
        seats |= found[1]
        learners += [Learner.of(found[0], own, ppo)] if own else []
    apart = spec.kind != "transformers"
    shown = team if apart else team.adopt({name: name for name in policies})
    return Host(shown, joined(seats), learners, apart, spec.elsewhere)


def on_base(
    base: Any,
    tokenizer: Any,
    team: Team,
    policies: Sequence[str],
    lora: Lora,
    ppo: Ppo,
    spec: EngineSpec,
    seed: int = 0,
    run: Path | None = None,
) -> tuple[TeamModel, Mapping[str, Engine]]:
    """The model of all that learns on a base that is in memory, and the engines of the team's seats on it."""
    values = [value_of(name) for name in policies] if ppo.has_values else []
    whole = replace(team, agents=(*team.agents, *map(Agent, values)))
    scoring = [SCORER] if SCORER in team.names else []
    # Without a policy there is still a scorer to hold; without both, one idle adapter.
    held = [*policies, *values, *scoring] or [team.names[0]]
    model = TeamModel.around(base, tokenizer, whole, held, lora, seed, heads=[*values, *scoring])
    engine: Engine
    if spec.kind == "transformers":
        engine = TransformersEngine(model.model, tokenizer, team.model, spec.rows, spec.tokens)
        engine.hold({name: name for name in policies})
    else:
        engine = beside(spec, team.model, run)
    answering: dict[str, Engine] = {name: engine for name in team.names if name != SCORER}
    return model, answering | ({SCORER: LearnedScorer(model)} if scoring else {})
