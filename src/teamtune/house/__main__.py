"""`python -m teamtune.house build`: make the house model again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from teamtune.house.build import Build, build

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
DEFAULT = Build()


@app.command("build")
def build_(
    out: Annotated[Path, typer.Option(help="folder for the model, its training curve and the state to resume from")],
    steps: int = DEFAULT.steps,
    width: int = DEFAULT.width,
    layers: int = DEFAULT.layers,
    heads: int = DEFAULT.heads,
    inner: int = DEFAULT.inner,
    rate: float = DEFAULT.rate,
    seed: int = DEFAULT.seed,
    muon: bool = DEFAULT.muon,
    compile: bool = DEFAULT.compile,
) -> None:
    """Train the model from scratch on its generated corpus."""
    build(
        out,
        Build(
            steps=steps,
            width=width,
            layers=layers,
            heads=heads,
            inner=inner,
            rate=rate,
            seed=seed,
            muon=muon,
            compile=compile,
        ),
    )


@app.callback()
def main() -> None:
    """The house model: its corpus, its training, its measures."""


if __name__ == "__main__":
    app()
