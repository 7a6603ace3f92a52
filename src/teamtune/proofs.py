"""Does an engine answer with the adapters that it was given? Each brings a proof along (train/proof.py)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from teamtune.play import Engine
from teamtune.types import Agent, Ask, Completion, Message, Sampling, Team, TeamtuneError

APART = 0.2
"""mean distance of two log-probabilities of a token, in nats, from which on two models are not the same"""
SURE = -0.7
"""log-probability of a token that no other can be as likely as"""


def check_adapters(engine: Engine, team: Team) -> int:
    """Ask every seat whose adapter has a proof, all in one batch; how many were held to theirs.

    Raises TeamtuneError where an answer is not that of the seat's adapter. An engine that tells no ids and
    log-probabilities cannot be held to anything.
    """
    proofs = {agent.name: found for agent in team.agents if (found := proof_of(agent)) is not None}
    if not proofs:
        return 0
    greedy = [replace(team[n], system="", sampling=Sampling(0.0, max_tokens=len(p["ids"]))) for n, p in proofs.items()]
    engine.adopt(replace(team, agents=tuple(greedy)))
    asks = [Ask(name, (Message("user", proof["question"]),), "proof") for name, proof in proofs.items()]
    done = engine.generate(asks, [0] * len(asks))
    return sum(held(one, proofs[ask.agent], team[ask.agent]) for ask, one in zip(asks, done, strict=True))


def proof_of(agent: Agent) -> dict[str, Any] | None:
    """The proof beside a seat's adapter; adapters from elsewhere have none."""
    file = None if agent.adapter is None else Path(agent.adapter) / "proof.json"
    return None if file is None or not file.exists() else json.loads(file.read_bytes())


def held(done: Completion, proof: dict[str, Any], agent: Agent) -> bool:
    """Whether an answer could be held to the proof. Raises TeamtuneError where it is another model's."""
    if not done.token_ids or done.logprobs is None:
        return False
    same = next((i for i, (a, b) in enumerate(zip(done.token_ids, proof["ids"], strict=False)) if a != b), None)
    upto = min(len(done.token_ids), len(proof["ids"])) if same is None else same
    other = same is not None and proof["logprobs"][same] > SURE
    own, base = (distance(done.logprobs[:upto], proof[name]) for name in ("logprobs", "base"))
    if other or own > APART or (own > 0.01 and base < own):
        told = f"token {same} is another one" if other else f"{own:.2f} a token apart, and {base:.2f} from the base's"
        raise TeamtuneError(
            f"the engine does not answer {agent.name} with adapter {agent.adapter!r} as training does ({told}); it "
            "holds other weights, or none: teamtune doctor with the same engine options tells more"
        )
    return upto > 0


def distance(some: Sequence[float], others: Sequence[float]) -> float:
    """Mean distance of log-probabilities, as far as `some` go; 0 where there are none."""
    return sum(abs(a - b) for a, b in zip(some, others, strict=False)) / max(1, len(some))
