"""Does one hint decide alone what a scorer with `scoring.surprise` says?

    python bench/hints.py RUN ...        # finished runs of `teamtune scorer train` with scoring.surprise

The head's weights on the hints, and how much the hints vary at the last tokens of the answers that it learned from. A
weight of thousands on one that hardly varies is a scorer that takes any answer with another end for surely right, or
surely wrong, which test answers never show: so the right ones of those answers (the first 100) are scored as they are,
cut in the middle, and with another last digit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from safetensors.torch import load_file

from teamtune.evaluate import estimate
from teamtune.scorer import LearnedScorer
from teamtune.store import read_table
from teamtune.train.fit import items_of
from teamtune.train.forward import batch_of, surprises
from teamtune.train.heads import HEAD_FILE, HINTS
from teamtune.train.objective import Scoring
from teamtune.types import SCORER, Ask, Message, Row, assistant


@dataclass(frozen=True)
class Bench:
    runs: tyro.conf.Positional[tuple[Path, ...]]
    model: str = "house"
    answers: int = 100


CHANGES: dict[str, Callable[[str], str]] = {
    "as they are": lambda text: text,
    "cut in the middle": lambda text: text[: len(text) // 2],
    "another last digit": lambda text: text[:-1] + str((int(text[-1]) + 1) % 10),
}


def spreads(scorer: LearnedScorer, rows: Sequence[Row]) -> list[float]:
    """The standard deviation of every hint at the last tokens."""
    found = []
    for item in items_of(rows, scorer.model, Scoring(surprise=True))[SCORER]:
        found.append(surprises(scorer.model, *batch_of(scorer.model, [item.data.example]))[0, len(item) - 1])  # type: ignore[union-attr]
    return torch.stack(found).std(0, correction=0).tolist()


def asked(row: Row, text: str) -> Ask:
    messages = [Message(message["role"], message["content"]) for message in row["messages"]]
    return Ask(SCORER, (*messages, assistant(text)), "score-1")


def main(cfg: Bench) -> None:
    for run in cfg.runs:
        folder = run / "scorer" / "fit" / SCORER
        rows = read_table(run / "scorer" / "rows").rows()
        scorer = LearnedScorer.open(cfg.model, str(folder), "float32")
        weights = load_file(folder / HEAD_FILE)["weight"][-HINTS:].tolist()
        print(f"{run.name}: weights {[round(one, 2) for one in weights]}", end=", ")
        print(f"spreads {[float(f'{one:.2g}') for one in spreads(scorer, rows)]} over {len(rows)} answers")
        right = [row for row in rows if row["right"] and row["completion"][-1:].isdecimal()][: cfg.answers]
        for name, change in CHANGES.items():
            scores = scorer([asked(row, change(row["completion"])) for row in right])
            mean, sure = estimate(scores), sum(one > 0.99 for one in scores)
            print(f"  {name}: mean score {mean.mean:.3f} ± {mean.se:.3f}, {sure} of {len(scores)} above 0.99")


if __name__ == "__main__":
    main(tyro.cli(Bench))
