"""`python -m teamtune.house build | measure | corpus | overlap`: make the house model again, and measure it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tyro
from rich.console import Console

from teamtune.house.build import Build
from teamtune.house.build import build as run_build
from teamtune.house.corpus import EARLY
from teamtune.memory import hold_freed_memory, keep_few_kernels
from teamtune.types import TeamtuneError

DEFAULT_LEVELS: dict[str, tuple[str, ...]] = {"arithmetic": ("paper",), "stories": ("3",)}
ALL_LEVELS: dict[str, tuple[str, ...]] = {
    "arithmetic": ("paper", "1", "2", "3", "4", "5"),
    "stories": ("1", "2", "3", "4", "5", "6"),
}


def build(out: Path, cfg: Build = Build()) -> None:
    """Train the model from scratch on its generated corpus.

    out: folder for the model, its training curve and the state that a killed build resumes from
    """
    run_build(out, cfg)


def measure(model: str = "house", problems: int = 500, temperature: float = 1.0, all_levels: bool = False) -> None:
    """Measure every role by itself, one JSON line a measure."""
    from teamtune.house.measure import measure as measured

    for row in measured(model, problems, temperature, ALL_LEVELS if all_levels else DEFAULT_LEVELS):
        print(json.dumps(row), flush=True)


def corpus(documents: int = 12_000, first: int = EARLY, model: str = "house", longest: int = Build().longest) -> None:
    """The corpus by kind of document, one JSON line a kind; by default documents after the early drills."""
    from teamtune.house.measure import corpus_table
    from teamtune.models import load_model

    for row in corpus_table(load_model(model)[1], range(first, first + documents), longest):
        print(json.dumps(row), flush=True)


def overlap(documents: int = 270_000, problems: int = 1000) -> None:
    """How much of the tasks' test sets the corpus holds, one JSON line a level."""
    from teamtune.house.measure import overlap as overlapping

    for row in overlapping(documents, problems):
        print(json.dumps(row), flush=True)


def main() -> None:
    hold_freed_memory()
    keep_few_kernels()
    try:
        tyro.extras.subcommand_cli_from_dict(
            {"build": build, "measure": measure, "corpus": corpus, "overlap": overlap}, prog="python -m teamtune.house"
        )
    except TeamtuneError as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
