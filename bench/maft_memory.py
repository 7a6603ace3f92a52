"""Peak memory of a team that answers: one frozen base with an adapter an agent, beside a full copy an agent.

    python bench/maft_memory.py [--agents 1 2 6 10] [--hidden 768] [--layers 12]

Multiagent Finetuning's authors needed 120 to 240 GB for six agents. Every line is a process of its own, on a random
Llama of the given shape made for the occasion (float32 on a CPU, bfloat16 on a GPU): it loads the team, lets every
agent answer once in one batch (adapters) or one after the other (copies), and reports its peak memory less that of a
process that has loaded the same libraries and no model. Memory of the GPU where there is one, else of the process.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from apart import last_line, random_llama

from teamtune.memory import forget_peak, peak_megabytes


@dataclass(frozen=True)
class Bench:
    agents: tuple[int, ...] = (1, 2, 6, 10)
    hidden: int = 768
    layers: int = 12
    rank: int = 16
    child: str = ""
    """none, adapters or copies: what one process measures"""
    folder: Path = Path()
    """the model, for a child"""


def make(cfg: Bench, folder: Path) -> int:
    """A random model and its tokenizer; the number of its parameters."""
    from teamtune.house import tokenizer as house

    tokenizer: Any = house.train(["You are one of several agents. Solve 12 + 3 * 4 = 24. Answer: 24"] * 3, 300)
    sizes = (cfg.hidden, 4 * cfg.hidden, cfg.layers, len(tokenizer))
    model = random_llama(folder, tokenizer, *sizes, max_position_embeddings=1024)
    return sum(parameter.numel() for parameter in model.parameters())


def measure(cfg: Bench) -> float | None:
    """What a child does: load, answer, tell the peak."""
    from teamtune.engines import EngineSpec, open_engine
    from teamtune.train.team import Lora, TeamModel
    from teamtune.types import Agent, Ask, Sampling, Team, user

    count = cfg.agents[0]
    seats = tuple(Agent(f"agent-{i}", "", Sampling(max_tokens=8)) for i in range(count))
    team, path = Team(str(cfg.folder), seats), cfg.folder / "adapters"
    if cfg.child == "adapters" and not (path / f"agent-{count - 1}").exists():
        model = TeamModel.open(team, team.names, Lora(rank=cfg.rank))
        for name in team.names:
            model.save(name, path / name)
        return None
    forget_peak()
    asks = [Ask(seat.name, (user("What is 12 + 3 * 4?"),), "round-1") for seat in seats]
    if cfg.child == "adapters":
        team = team.adopt({name: str(path / name) for name in team.names})
        engine = open_engine(EngineSpec(), team)
        engine.adopt(team)
        engine.generate(asks, list(range(count)))
    elif cfg.child == "copies":
        engines = [open_engine(EngineSpec(), team) for _ in seats]
        for one, ask in zip(engines, asks, strict=True):
            one.adopt(team)
            one.generate([ask], [0])
    return peak_megabytes()


def child(cfg: Bench, kind: str, count: int, folder: Path) -> float:
    shape = ["--hidden", str(cfg.hidden), "--layers", str(cfg.layers), "--rank", str(cfg.rank)]
    args = ["--child", kind, "--agents", str(count), "--folder", str(folder), *shape]
    found = None
    while found is None:  # the first call makes the adapters, so that this does not count
        found = last_line(__file__, args)
    return float(found)


def main(cfg: Bench) -> None:
    if cfg.child:
        print(json.dumps(measure(cfg)))
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        size = make(cfg, folder)
        nothing = child(cfg, "none", 1, folder)
        print(f"{size / 1e6:.1f} M parameters, rank {cfg.rank}; a process without a model takes {nothing:.0f} MB")
        for count in cfg.agents:
            told = {kind: child(cfg, kind, count, folder) - nothing for kind in ("adapters", "copies")}
            line = {"agents": count, **{f"{kind}_mb": round(value) for kind, value in told.items()}}
            print(json.dumps({**line, "copies_over_adapters": round(told["copies"] / told["adapters"], 1)}), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Bench))
