"""One model in memory for sampling and training: the engine generates with the very weights that are being trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from teamtune.engines import EngineSpec
from teamtune.engines.routed import joined
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


def hosted(team: Team, policies: Sequence[str], lora: Lora, ppo: Ppo, spec: EngineSpec, seed: int = 0) -> Host:
    """Load every base of the team once, with an adapter for each policy, its values, and the scorer.

    A policy goes on from its seat's adapter, or starts as the base; its values start at 0. Seats that are no policies
    play as they are.
    """
    if processes.count() > 1:
        raise TeamtuneError(
            f"PPO trains in one process, and this is one of {processes.count()}; run it without a launcher"
        )
    if spec.kind != "transformers":
        told = f"PPO samples from the very weights that it trains, and engine.kind {spec.kind} has others"
        raise TeamtuneError(f"{told}; take transformers")
    seats: dict[str, Engine] = {}
    learners: list[Learner] = []
    for base in team.models:
        part = team.part(base)
        own = [name for name in part.names if name in policies]
        found = _one_base(part, own, lora, ppo, spec, seed)
        seats |= found[1]
        learners += [Learner.of(found[0], own, ppo)] if own else []
    return Host(team.adopt({name: name for name in policies}), joined(seats), learners)


def _one_base(
    team: Team, policies: Sequence[str], lora: Lora, ppo: Ppo, spec: EngineSpec, seed: int
) -> tuple[TeamModel, Mapping[str, Engine]]:
    base, tokenizer = load_model(team.model, spec.dtype, lora.bits)
    values = [value_of(name) for name in policies] if ppo.has_values else []
    whole = replace(team, agents=(*team.agents, *map(Agent, values)))
    scoring = [SCORER] if SCORER in team.names else []
    # Without a policy there is still a scorer to hold; without both, one idle adapter.
    held = [*policies, *values, *scoring] or [team.names[0]]
    model = TeamModel.around(base, tokenizer, whole, held, lora, seed, heads=[*values, *scoring])
    engine = TransformersEngine(model.model, tokenizer, team.model, spec.rows, spec.tokens)
    engine.hold({name: name for name in policies})
    answering: dict[str, Engine] = {name: engine for name in team.names if name != SCORER}
    return model, answering | ({SCORER: LearnedScorer(model)} if scoring else {})
