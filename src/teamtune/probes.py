"""Does an engine do what it is asked, with the weights that it is given? Small experiments that find out.

Each probe plays a few asks and returns what it saw in a sentence; it raises TeamtuneError where something is wrong.

    engine = open_engine(EngineSpec(), team)
    generates(engine, "base")           # "5 of 6 answers ended by themselves; one seed, one answer"
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

import torch

from teamtune.engines import EngineSpec, open_engine
from teamtune.memory import give_back_freed_memory
from teamtune.play import Engine
from teamtune.proofs import APART
from teamtune.train.examples import Example
from teamtune.train.fit import Fit, fit
from teamtune.train.forward import batch_of, logprobs
from teamtune.train.objective import Sft
from teamtune.train.team import Lora, TeamModel
from teamtune.types import Agent, Ask, Completion, Message, Row, Sampling, Team, TeamtuneError

QUESTIONS = ("What is 2 + 3?", "Tom has 4 boxes of 6 pens. How many pens has he?", "Say something about the sea.")
BASE, TRAINED = "base", "trained"
Bits = Literal[16, 4]


def asks_of(seat: str) -> list[Ask]:
    return [Ask(seat, (Message("user", text),), "probe") for text in QUESTIONS]


def generates(engine: Engine, seat: str, seeded: bool = True) -> str:
    """Answers come, end, and are the same for the same seed; an engine that is not `seeded` may give others."""
    asks = asks_of(seat)
    first, again, other = (engine.generate(asks, [seed] * len(asks)) for seed in (0, 0, 1))
    if not any(done.text.strip() for done in first):
        raise TeamtuneError(f"{seat} says nothing to any of {len(asks)} questions; is it an instruct model?")
    same = [done.text for done in first] == [done.text for done in again]
    if seeded and not same:
        raise TeamtuneError(f"{seat} says something else under the same seed; runs cannot be repeated on this engine")
    ended = sum(done.finish == "stop" for done in (*first, *other))
    if not ended:
        raise TeamtuneError(
            f"{seat} ended none of {2 * len(asks)} answers by itself; check the stop token of its chat template and "
            "max_tokens"
        )
    told = "one seed, one answer" if same else "another answer to the same seed, so that runs cannot be repeated"
    return f"{ended} of {2 * len(asks)} answers ended by themselves; {told}"


def agrees(done: Sequence[Completion], model: TeamModel, seat: str, apart: float = APART) -> str:
    """The engine's log-probabilities of its answers are those of training, where `seat` is an adapter."""
    gap, tokens = distance(done, model, seat)
    if gap > apart:
        raise TeamtuneError(
            f"log-probabilities of {seat} are {gap:.3f} a token apart between engine and training, over {apart}; the "
            "engine may hold other weights, or a lower precision"
        )
    return f"log-probabilities {gap:.4f} a token apart from training's, over {tokens} tokens"


@torch.no_grad()
def distance(done: Sequence[Completion], model: TeamModel, seat: str) -> tuple[float, int]:
    """(mean distance of log-probabilities of a token, tokens) between an engine's answers and the model's."""
    total, tokens = 0.0, 0
    for one in done:
        if not one.token_ids or one.logprobs is None or one.prompt_ids is None:
            continue
        ids, mask = batch_of(model, [Example(list(one.prompt_ids), list(one.token_ids))])
        mine = logprobs(model, ids, [seat], mask)[mask]
        told = torch.tensor(one.logprobs, device=mine.device)
        total, tokens = total + float((mine - told).abs().sum()), tokens + len(told)
    if not tokens:
        raise TeamtuneError(f"the engine gives no log-probabilities for {seat}; PPO needs them, SFT and DPO do not")
    return total / tokens, tokens


def learns(folder: Path, model: str, bits: Bits = 16) -> tuple[Team, str]:
    """A few steps of finetuning, which leave an adapter in `folder`; the team of the base and of what was trained."""
    seats = tuple(Agent(name, "", Sampling(1.0, max_tokens=48)) for name in (BASE, TRAINED))
    lora, options = Lora(rank=4, alpha=8, bits=bits), Fit(1e-2, 8, batch=3)
    base = Team(model, seats, bits=bits)
    lines = fit(folder, taught(), base, [TRAINED], lora, Sft(), options)
    losses = [float(line[f"{TRAINED}/loss"]) for line in lines]
    if not losses[-1] < losses[0]:
        raise TeamtuneError(f"the loss went from {losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)} steps, not down")
    return base.adopt(
        {TRAINED: str(folder / TRAINED)}
    ), f"{len(losses)} steps, loss {losses[0]:.2f} to {losses[-1]:.2f}"


def taught() -> list[Row]:
    """Rows that teach what no base says."""
    return [
        {
            **{
                "agent": TRAINED,
                "problem": f"p{n}",
                "take": 0,
                "turn": 0,
                "completion": "The sea has 7 violins.",
            },
            **{"messages": [{"role": "user", "content": text}], "prompt_ids": None, "token_ids": None},
        }
        for n, text in enumerate(QUESTIONS)
    ]


def mixed(engine: Engine, team: Team) -> list[Completion]:
    """Answers of the base and an adapter in turn, asked in one batch: there are engines that answer the base with the
    last adapter's weights then."""
    engine.adopt(team)
    asks = [ask for pair in zip(asks_of(BASE), asks_of(TRAINED), strict=True) for ask in pair]
    return engine.generate(asks, [0] * len(asks))


def routed(done: Sequence[Completion], team: Team) -> str:
    """Each answer of `mixed` is that of its own weights, as training computes them."""
    model = TeamModel.open(team, [TRAINED, BASE], Lora(rank=1, alpha=1, bits=team.bits))
    base, trained = done[::2], done[1::2]
    told = [agrees(base, model, BASE), agrees(trained, model, TRAINED)]
    crossed = distance(trained, model, BASE)[0]
    if crossed <= APART:
        raise TeamtuneError(
            f"answers of an adapter are {crossed:.3f} a token apart from the base's: it is not live in this engine"
        )
    return f"base: {told[0]}; adapter beside it: {told[1]}, and {crossed:.2f} from the base's"


def probe_server(model: str, spec: EngineSpec) -> str:
    """What a server does that nobody trains with: it answers."""
    team = Team(model, (Agent(BASE, "", Sampling(1.0, max_tokens=48)),))
    with closing(open_engine(spec, team)) as engine:
        engine.adopt(team)
        return generates(engine, BASE, seeded=False)


def probe_model(folder: Path, model: str, spec: EngineSpec, bits: Bits = 16) -> list[tuple[str, str]]:
    """All probes of a model on an engine, (what, what was seen); stops with TeamtuneError at the first that fails.

    bits: of the base where it trains. Engine and training have the memory one after the other.
    """
    team, learned = learns(folder, model, bits)
    give_back_freed_memory()
    with closing(open_engine(spec, team)) as engine:
        engine.adopt(team)
        generated, done = generates(engine, BASE), mixed(engine, team)
    give_back_freed_memory()
    return [("training", learned), ("generation", generated), ("adapters", routed(done, team))]
