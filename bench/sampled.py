"""Does an engine sample what the model says? Over sampled tokens, the log-probability plus the entropy of the model's
own distribution is 0 in the mean; how many of its errors is it away?

    python bench/sampled.py --kind transformers            # house model, 1,000 dev problems, 5 answers to each
    python bench/sampled.py --kind vllm                     # in the environment of vLLM
    python bench/sampled.py --turns runs/a/test/base/turns  # what an untrained team said in a run, seat by seat

The model's distribution is that of training (float32, temperature 1, no cache), at every place of every answer; by the
central limit theorem the sum over so many tokens is normal, with the variance that the distributions have. Beyond three
errors something is wrong: a sampler that cuts tails, other weights, seeds that repeat. `gap`: the mean distance of the
engine's own log-probabilities from the model's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

# A file beside this one has vLLM's name, and must not be found in its place.
sys.path = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]

from teamtune.engines import EngineSpec, open_engine  # noqa: E402
from teamtune.engines.spec import Vllm  # noqa: E402
from teamtune.play import seed_of  # noqa: E402
from teamtune.protocols.pipeline import GENERATOR, generate  # noqa: E402
from teamtune.store import read_table  # noqa: E402
from teamtune.tasks import find  # noqa: E402
from teamtune.train.examples import Example  # noqa: E402
from teamtune.train.forward import batch_of  # noqa: E402
from teamtune.train.team import Lora, TeamModel  # noqa: E402
from teamtune.types import Agent, Ask, Completion, Message, Sampling, Team  # noqa: E402

SEED = 88_000_000
"""of problems and answers"""


@dataclass(frozen=True)
class Bench:
    kind: Literal["transformers", "vllm"] = "transformers"
    model: str = "house"
    task: str = "arithmetic"
    problems: int = 1000
    answers: int = 5
    max_tokens: int = 256
    turns: str = ""
    """take a run's Turn table of untrained seats, sampled at temperature 1 from whole distributions; asks nothing"""
    at_once: int = 64
    """answers that the model looks at in one pass"""


def answered(cfg: Bench, team: Team) -> list[Completion]:
    """The engine's answers, each with a seed of its own."""
    spec = EngineSpec(cfg.kind, vllm=Vllm(cache_gb=1.0) if cfg.kind == "vllm" else Vllm())
    problems = find(cfg.task).load("dev", cfg.problems, SEED)
    places = [(problem, take) for problem in problems for take in range(cfg.answers)]
    asks = [Ask("generator", (Message("system", GENERATOR), *generate(problem)), "generate") for problem, _ in places]
    with closing(open_engine(spec, team)) as engine:
        engine.adopt(team)
        return engine.generate(asks, [seed_of(SEED, problem.id, take, 0) for problem, take in places])


@torch.no_grad()
def looked(model: TeamModel, some: Sequence[Completion]) -> tuple[float, float, float, int]:
    """Of some answers' tokens: the sum of log-probability plus entropy, its variance, the sum of distances of the
    engine's log-probabilities, and their number."""
    ids, mask = batch_of(model, [Example(list(one.prompt_ids or ()), list(one.token_ids or ())) for one in some])
    mask = mask[:, 1:]  # what a place says of the next token
    states = model.states(ids, ["generator"] * len(some))[:, :-1][mask]
    likely = model.logits(states).double().log_softmax(-1)
    own = likely.gather(-1, ids[:, 1:][mask][:, None])[:, 0]
    weights = likely.exp()
    entropy = -(weights * likely).sum(-1)
    variance = (weights * likely.square()).sum(-1) - entropy.square()
    told = torch.tensor([one for done in some for one in done.logprobs or ()], dtype=torch.float64)
    return float((own + entropy).sum()), float(variance.sum()), float((own - told).abs().sum()), len(own)


def recorded(folder: Path) -> dict[str, list[Completion]]:
    """The answers of a Turn table by seat."""
    found: dict[str, list[Completion]] = {}
    for row in read_table(folder).rows():
        one = Completion(row["text"], row["finish"], row["prompt_ids"], row["token_ids"], row["logprobs"])
        found.setdefault(row["agent"], []).append(one)
    return found


def main(cfg: Bench) -> None:
    team = Team(cfg.model, (Agent("generator", "", Sampling(1.0, max_tokens=cfg.max_tokens)),))
    seats = recorded(Path(cfg.turns)) if cfg.turns else {cfg.kind: answered(cfg, team)}
    model = TeamModel.open(team, ["generator"], Lora(rank=1, alpha=1), dtype="float32")
    for seat, answers in seats.items():
        done = sorted((one for one in answers if one.token_ids), key=lambda one: len(one.token_ids or ()))
        parts = [looked(model, done[start : start + cfg.at_once]) for start in range(0, len(done), cfg.at_once)]
        total, variance, gap, tokens = (sum(column) for column in zip(*parts, strict=True))
        found = {"errors away": round(total / variance**0.5, 2), "gap": round(gap / tokens, 7)}
        print(json.dumps({"sampled": seat, "answers": len(done), "tokens": tokens, **found}), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Bench))
