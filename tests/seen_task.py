"""The task of spoken_task, whose test problems are the training problems of seed 0, wherever it is asked from."""

from __future__ import annotations

from tests import spoken_task
from tests.spoken_task import grade

from teamtune.types import Problem

__all__ = ["grade", "load"]


def load(split: str, count: int, seed: int = 0, level: str = "") -> list[Problem]:
    del split, seed, level
    return spoken_task.load("train", count, 0)
