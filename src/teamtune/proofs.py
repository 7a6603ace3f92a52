"""Does an engine answer with the adapters that it was given? Each brings a proof along (train/proof.py)."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from teamtune.play import Engine
from teamtune.types import SCORER, Agent, Ask, Completion, Message, Sampling, Team, TeamtuneError

APART = 0.2
"""mean distance of two log-probabilities of a token, in nats, from which on two models are not the same"""
NOISE = 0.02
"""the same, as precisions and kernels alone may make it; above it, others' weights that are twice as near are wrong"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a seat is to answer to a fixed question: the ids, what rounding could put in the place of each with its
    log-probability, the log-probabilities of the ids, and those that others' weights give them."""

    question: str
    ids: Sequence[int]
    near: Sequence[Mapping[str, float]]
    logprobs: Sequence[float]
    others: Sequence[Sequence[float]]


def check_adapters(engine: Engine, team: Team, elsewhere: Collection[str] = (), exact: bool = True) -> dict[str, float]:
    """Ask every seat whose adapter has a proof, and the seats of the bare base beside them, all in one batch; for those
    that could be held to what they should answer, the mean distance of a token's log-probability from training's, in
    nats. There are engines that answer the base with the last adapter's weights.

    elsewhere: seats whose weights are a server's own, of which nothing is known. exact: the engine holds the base in as
    many bits as training did; otherwise answers may differ, and must only not be nearer to others' weights. Raises
    TeamtuneError where an answer is not that of the seat's weights. An engine that tells no ids and log-probabilities
    cannot be held to anything.
    """
    wanted = {name: one for name, one in wanted_of(team).items() if name not in elsewhere}
    if not wanted:
        return {}
    greedy = [replace(team[n], system="", sampling=Sampling(0.0, max_tokens=len(w.ids))) for n, w in wanted.items()]
    engine.adopt(replace(team, agents=tuple(greedy)))
    asks = [Ask(name, (Message("user", one.question),), "proof") for name, one in wanted.items()]
    done = engine.generate(asks, [0] * len(asks))
    gaps = {seat: held(one, wanted[seat], team[seat], exact) for seat, one in zip(wanted, done, strict=True)}
    return {seat: gap for seat, gap in gaps.items() if gap is not None}


def wanted_of(team: Team) -> dict[str, Wanted]:
    """What the seats with a proof are to answer, and those without an adapter, where another seat's proof tells it."""
    proofs = {agent.name: found for agent in team.agents if (found := proof_of(agent)) is not None}
    wanted = {n: Wanted(p["question"], p["ids"], p["near"], p["logprobs"], [p["base"]]) for n, p in proofs.items()}
    for agent in team.agents:
        same = [p for name, p in proofs.items() if team.model_of(team[name]) == team.model_of(agent)]
        if same and agent.adapter is None and agent.name != SCORER:
            bare, others = same[0]["bare"], [proof["bare"]["adapter"] for proof in same]
            wanted[agent.name] = Wanted(same[0]["question"], bare["ids"], bare["near"], bare["logprobs"], others)
    return wanted


def proof_of(agent: Agent) -> dict[str, Any] | None:
    """The proof beside a seat's adapter; adapters from elsewhere have none, and those of older versions less."""
    file = None if agent.adapter is None else Path(agent.adapter) / "proof.json"
    found = None if file is None or not file.exists() else json.loads(file.read_bytes())
    return found if found is not None and "bare" in found else None


def held(done: Completion, want: Wanted, agent: Agent, exact: bool = True) -> float | None:
    """How far an answer's log-probabilities are from what is wanted, mean over tokens; None where it cannot be held to
    that. Raises TeamtuneError where it is another model's."""
    if not done.token_ids or done.logprobs is None:
        return None
    same = next((i for i, (a, b) in enumerate(zip(done.token_ids, want.ids, strict=False)) if a != b), None)
    upto = min(len(done.token_ids), len(want.ids)) if same is None else same
    beside = None if same is None else want.near[same].get(str(done.token_ids[same]))
    another = same is not None and beside is None
    expected = [*want.logprobs[:upto], *([] if beside is None else [beside])]
    own = distance(done.logprobs[: len(expected)], expected)
    nearest = min((distance(done.logprobs[:upto], other) for other in want.others), default=own)
    nearer = NOISE < distance(done.logprobs[:upto], want.logprobs) > 2 * nearest
    if nearer or (exact and (another or own > APART)):
        weights = "the base's weights" if agent.adapter is None else f"adapter {agent.adapter!r}"
        whose = "an adapter's" if agent.adapter is None else "the base's"
        told = f"{own:.2f} a token apart, and {nearest:.2f} from {whose}"
        told = f"token {same} is another one" if another else told
        raise TeamtuneError(
            f"the engine does not answer {agent.name} with {weights} as training does ({told}); it holds other "
            "weights, or none: teamtune doctor with the same engine options tells more"
        )
    return own if expected else None


def distance(some: Sequence[float], others: Sequence[float]) -> float:
    """Mean distance of log-probabilities, as far as `some` go; 0 where there are none."""
    return sum(abs(a - b) for a, b in zip(some, others, strict=False)) / max(1, len(some))
