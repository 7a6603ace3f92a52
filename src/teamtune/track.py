"""Metrics to a tracker as they are logged: TensorBoard, trackio or W&B. metrics.jsonl holds them in any case.

What a tracker keeps on this machine lies in the run folder: tensorboard/, trackio/ or wandb/. Whether W&B goes online
is its own affair: WANDB_MODE=offline keeps it here.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from teamtune.types import TeamtuneError

Track = Literal["none", "tensorboard", "trackio", "wandb"]
PROJECT = "teamtune"


class Tracker(Protocol):
    """Takes the numbers of one step of a stage."""

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def check_tracker(kind: Track) -> None:
    """Raises TeamtuneError where a tracker is not installed, before work begins."""
    if kind != "none" and find_spec(kind) is None:
        raise TeamtuneError(f"--track {kind}: {kind} is not installed; pip install {kind}, or teamtune[track]")


def open_tracker(kind: Track, folder: Path) -> Tracker | None:
    """The tracker of a run; None for none."""
    made = {"none": None, "tensorboard": TensorBoard, "trackio": Trackio, "wandb": Wandb}[kind]
    return None if made is None else made(folder)


class TensorBoard:
    """Event files. `tensorboard --logdir RUN/tensorboard` shows them."""

    def __init__(self, folder: Path):
        self.writer: Any = import_module("torch.utils.tensorboard").SummaryWriter(str(folder / "tensorboard"))

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(f"{stage}/{name}", value, step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class Trackio:
    """A local database. `TRACKIO_DIR=RUN/trackio trackio show` shows it."""

    def __init__(self, folder: Path):
        os.environ["TRACKIO_DIR"] = str((folder / "trackio").absolute())  # read where it is imported
        self.run: Any = import_module("trackio").init(PROJECT, name=folder.resolve().name, resume="allow", embed=False)

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log({f"{stage}/{name}": value for name, value in metrics.items()}, step=step)

    def close(self) -> None:
        self.run.finish()


class Wandb:
    """One W&B run for a run folder, gone on with where it was."""

    def __init__(self, folder: Path):
        (folder / "wandb").mkdir(parents=True, exist_ok=True)
        name = folder / "wandb" / "run-id"  # of the folder, not of its path, where another run may have been
        if not name.exists():
            name.write_text(secrets.token_hex(8))
        identity = name.read_text()
        self.run: Any = import_module("wandb").init(
            project=PROJECT, name=folder.resolve().name, dir=str(folder), id=identity, resume="allow"
        )
        self.stages: set[str] = set()

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        if stage not in self.stages:  # every stage counts its own steps
            self.run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            self.stages.add(stage)
        self.run.log({f"{stage}/step": step} | {f"{stage}/{name}": value for name, value in metrics.items()})

    def close(self) -> None:
        self.run.finish()
