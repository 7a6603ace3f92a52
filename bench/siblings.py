"""What it saves to read siblings as one row: a fit on preference pairs with and without, on the same rows.

    python bench/siblings.py [--prompts 50 150 300] [--answer 100] [--pairs 24]

DPO with rank 16 on all linear layers of a random Llama (as bench/fit.py takes it), one epoch, answers of `--answer`
ids give or take a third. Both ways alternate, `--repeat` times; the least time of each counts.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from apart import random_llama

from teamtune.memory import hold_freed_memory
from teamtune.models import load_model, open_tokenizer
from teamtune.train.fit import Fit, fit_model
from teamtune.train.objective import Preference
from teamtune.train.team import Lora, TeamModel
from teamtune.types import Agent, Row, Team


@dataclass(frozen=True)
class Bench:
    prompts: tuple[int, ...] = (50, 150, 300)
    """ids of a prompt, give or take a third"""
    answer: int = 100
    pairs: int = 24
    hidden: int = 512
    layers: int = 8
    vocabulary: int = 8192
    repeat: int = 2


def pairs_of(cfg: Bench, prompt: int) -> list[Row]:
    rng = random.Random(prompt)

    def ids(about: int) -> list[int]:
        return [rng.randrange(5, cfg.vocabulary) for _ in range(rng.randint(2 * about // 3, 4 * about // 3))]

    told = {"agent": "agent", "messages": [], "chosen": "", "rejected": ""}
    sides = ("prompt_ids", prompt), ("chosen_ids", cfg.answer), ("rejected_ids", cfg.answer)
    return [{**told, **{name: ids(about) for name, about in sides}} for _ in range(cfg.pairs)]


def seconds(model: TeamModel, rows: Sequence[Row]) -> float:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        list(fit_model(Path(out), model, rows, Preference(), Fit(rate=1e-5, batch=16)))
    return time.monotonic() - began


def main(cfg: Bench) -> None:
    hold_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        random_llama(Path(folder), open_tokenizer("house"), cfg.hidden, 3 * cfg.hidden, cfg.layers, cfg.vocabulary)
        base, tokenizer = load_model(folder)
        model = TeamModel.around(base, tokenizer, Team(folder, (Agent("agent"),)), ["agent"], Lora(rank=16, alpha=32))
        for prompt in cfg.prompts:
            rows, least = pairs_of(cfg, prompt), {True: float("inf"), False: float("inf")}
            for _ in range(cfg.repeat):
                for joined in (False, True):
                    model.takes_siblings = joined
                    least[joined] = min(least[joined], seconds(model, rows))
            told = {"prompt": prompt, "answer": cfg.answer, "pairs": cfg.pairs}
            spent = {"apart_s": round(least[False], 2), "joined_s": round(least[True], 2)}
            print(json.dumps(told | spent | {"times_as_fast": round(least[False] / least[True], 2)}), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Bench))
