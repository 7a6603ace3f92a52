"""Does an engine answer with the adapters that it was given? Each brings a proof along (train/proof.py)."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from teamtune.play import Engine
from teamtune.types import SCORER, Agent, Ask, Completion, Message, Sampling, Team, TeamtuneError
from teamtune.warn import warn

APART = 0.2
"""mean distance of two log-probabilities of a token, in nats, from which on two models are not the same"""
NOISE = 0.02
"""the same, as precisions and kernels alone may make it; above it, others' weights that are twice as near are wrong"""
EXACT = 1e-4
"""the same in float32 throughout; above it, others' weights that are FAR times as near are wrong"""
FAR = 10.0
BEST = 2
"""answers by which own weights and others are told apart: those that the two give the most different numbers"""
BASE = "the base's"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a seat is to answer to a fixed question: the ids, what rounding could put in the place of each with its
    log-probability, the log-probabilities of the ids, and those that others' weights give to the first of them."""

    question: str
    ids: Sequence[int]
    near: Sequence[Mapping[str, float]]
    logprobs: Sequence[float]
    others: Mapping[str, Sequence[float]]


def check_adapters(
    engine: Engine, team: Team, elsewhere: Collection[str] = (), exact: bool = True, warns: bool = False
) -> dict[str, float]:
    """Ask every seat whose adapter has a proof, and the seats of the bare base beside them, all in one batch; for those
    that could be held to what they should answer, the mean distance of a token's log-probability from training's, in
    nats. There are engines that answer the base with the last adapter's weights.

    elsewhere: seats whose weights are a server's own, of which nothing is known. exact: the engine holds the base in as
    many bits as training did; otherwise answers may differ, and must only not be nearer to others' weights. warns: say
    so where an engine tells no ids and log-probabilities, and cannot be held to anything, or where its own rounding
    hides whose weights it has. Raises TeamtuneError where an answer is not that of the seat's weights.
    """
    wanted = {name: found for name, found in wanted_of(team).items() if name not in elsewhere}
    if not wanted:
        return {}
    longest = max(len(one.ids) for found in wanted.values() for one in found)
    greedy = [replace(team[name], system="", sampling=Sampling(0.0, max_tokens=longest)) for name in wanted]
    engine.adopt(replace(team, agents=tuple(greedy)))
    asks = [Ask(name, (Message("user", one.question),), "proof") for name, found in wanted.items() for one in found]
    done = iter(engine.generate(asks, [0] * len(asks)))
    told = {name: [(next(done), one) for one in found] for name, found in wanted.items()}
    told = {name: [(one, want) for one, want in own if one.token_ids and one.logprobs] for name, own in told.items()}
    gaps = {name: gap for name, own in told.items() if (gap := held(own, team[name], exact)) is not None}
    if warns:
        warn_of({name: own for name, own in told.items() if team[name].adapter is not None})
    return gaps


def wanted_of(team: Team) -> dict[str, list[Wanted]]:
    """What the seats with a proof are to answer, and those without an adapter, where another seat's proof tells it."""
    proofs = {agent.name: found for agent in team.agents if (found := proof_of(agent))}
    wanted: dict[str, list[Wanted]] = {}
    for agent in team.agents:
        beside = {n: p for n, p in proofs.items() if team.model_of(team[n]) == team.model_of(agent)}
        if agent.name in proofs:
            whose = {f"{name}'s": found for name, found in beside.items() if team[name].adapter != agent.adapter}
            own = [(one, {BASE: one["base"]} | given_by(whose, one)) for one in proofs[agent.name]]
        elif beside and agent.adapter is None and agent.name != SCORER:
            bare = [one["bare"] | {"question": one["question"]} for one in next(iter(beside.values()))]
            own = [(one, {f"{n}'s": told for n, p in beside.items() if (told := under(p, one))}) for one in bare]
        else:
            continue
        wanted[agent.name] = [
            Wanted(one["question"], one["ids"], one["near"], one["logprobs"], others) for one, others in own
        ]
    return wanted


def proof_of(agent: Agent) -> list[dict[str, Any]]:
    """The proof beside a seat's adapter, question by question; adapters from elsewhere have none, those of older
    versions one question, or less."""
    file = None if agent.adapter is None else Path(agent.adapter) / "proof.json"
    found = {} if file is None or not file.exists() else json.loads(file.read_bytes())
    return found.get("answers", [found] if "bare" in found else [])


def given_by(proofs: Mapping[str, Sequence[Mapping[str, Any]]], to: Mapping[str, Any]) -> dict[str, list[float]]:
    """The log-probabilities that other proofs' weights give to the first ids of an answer: as far as they would give
    the same one, and the first that they would not, where it is near."""
    found: dict[str, list[float]] = {}
    for name, proof in proofs.items():
        for one in (one for one in proof if one["question"] == to["question"]):
            same = alike(one["ids"], to["ids"])
            next_ = one["near"][same].get(str(to["ids"][same])) if same < min(len(one["ids"]), len(to["ids"])) else None
            found[name] = [*one["logprobs"][:same], *([] if next_ is None else [next_])]
    return {name: told for name, told in found.items() if told != to["logprobs"]}


def under(proof: Sequence[Mapping[str, Any]], bare: Mapping[str, Any]) -> list[float]:
    """The log-probabilities that a proof's adapter gives to an answer of the base."""
    same = (one["bare"] for one in proof if one["question"] == bare["question"] and one["bare"]["ids"] == bare["ids"])
    return next((one["adapter"] for one in same), [])


def alike(some: Sequence[int], others: Sequence[int]) -> int:
    """How many ids two answers begin with alike."""
    pairs = enumerate(zip(some, others, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(some), len(others)))


Answers = Sequence[tuple[Completion, Wanted]]


def held(done: Answers, agent: Agent, exact: bool = True) -> float | None:
    """How far answers' log-probabilities are from what is wanted, mean over tokens; None where they cannot be held to
    that. Raises TeamtuneError where they are another model's."""
    pairs, another = expected(done)
    own = mean(pairs)
    whose, (mine, theirs) = nearest(done)
    nearer = (mine > NOISE and mine > 2 * theirs) or (mine > EXACT and mine > FAR * theirs)
    if nearer or (exact and (another or own > APART)):
        weights = "the base's weights" if agent.adapter is None else f"adapter {agent.adapter!r}"
        told = f"{own:.3g} a token apart" if not nearer else f"{mine:.3g} a token apart, and {theirs:.3g} from {whose}"
        told = another if another and not nearer else told
        raise TeamtuneError(
            f"the engine does not answer {agent.name} with {weights} as training does ({told}); it holds other "
            "weights, or none: teamtune doctor with the same engine options tells more"
        )
    return own if pairs else None


def expected(done: Answers) -> tuple[list[tuple[float, float]], str]:
    """(the engine's, the wanted) log-probability of tokens, as far as answers are as wanted or nearly so; and what is
    said where a token is another one altogether."""
    pairs: list[tuple[float, float]] = []
    another = ""
    for one, want in done:
        assert one.token_ids is not None and one.logprobs is not None
        same = alike(one.token_ids, want.ids)
        told = list(want.logprobs[:same])
        if same < min(len(one.token_ids), len(want.ids)):
            beside = want.near[same].get(str(one.token_ids[same]))
            another = f"token {same} is another one" if beside is None else another
            told += [] if beside is None else [beside]
        pairs += zip(one.logprobs, told, strict=False)
    return pairs, another


def nearest(done: Answers) -> tuple[str, tuple[float, float]]:
    """Whose weights, other than the seat's own, answers are nearest to beside its own: the mean distances of a token
    from own and from those."""
    found = {name: between(done, name) for _, want in done for name in want.others}
    found = {name: told for name, told in found.items() if told is not None}
    relative = lambda one: one[1][1] / max(one[1][0], 1e-12)  # noqa: E731
    return min(found.items(), key=relative, default=("", (0.0, 0.0)))


def between(done: Answers, name: str) -> tuple[float, float] | None:
    """Mean distances of answers from a seat's own weights and from another's, on the few where these differ most."""
    triples: list[list[tuple[float, float, float]]] = []
    for one, want in done:
        same = alike(one.token_ids or (), want.ids)
        rows = zip(one.logprobs or (), want.logprobs[:same], want.others.get(name, ()), strict=False)
        triples.append(list(rows))
    triples.sort(key=lambda rows: -sum(abs(own - other) for _, own, other in rows))
    tokens = [row for rows in triples[:BEST] for row in rows]
    if not tokens:
        return None
    return mean([(told, own) for told, own, _ in tokens]), mean([(told, other) for told, _, other in tokens])


def warn_of(done: Mapping[str, Answers]) -> None:
    """Say of which seats with an adapter it is not known whether the engine holds it."""
    silent = [name for name, own in done.items() if not own]
    if silent:
        warn(
            f"the engine tells no ids and log-probabilities of {', '.join(silent)}, so nobody knows whether it answers "
            "with their adapters; a vLLM server tells with --engine.openai.ids --engine.openai.logprobs"
        )
    found = {name: nearest(own) for name, own in done.items()}
    hidden = {name: one for name, one in found.items() if one[0] and one[1][1] <= 2 * one[1][0]}
    if hidden:
        each = (f"{name} {mine:.2g}, and {theirs:.2g} from {whose}" for name, (whose, (mine, theirs)) in hidden.items())
        warn(
            "the engine's rounding, or how little they learned, hides with whose weights seats answer (nats a token "
            f"from their own: {'; '.join(each)}); an engine in float32 tells"
        )


def mean(pairs: Sequence[tuple[float, float]]) -> float:
    """Mean distance of log-probabilities; 0 where there are none."""
    return sum(abs(a - b) for a, b in pairs) / max(1, len(pairs))
