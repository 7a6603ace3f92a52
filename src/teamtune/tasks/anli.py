"""ANLI: does a premise entail a hypothesis? Rounds r1 to r3 (Nie et al., 2020); MAPoRL uses r3.

A row as the hub has it (this one is invented):

    {"uid": "u1", "premise": "The cat sleeps.", "hypothesis": "The cat is awake.", "label": 2, "reason": "..."}

The data are for non-commercial use (CC BY-NC 4.0).
"""

from __future__ import annotations

from teamtune.grading.choice import LETTERS
from teamtune.grading.choice import grade as grade
from teamtune.tasks.dataset import CHOICE_ENDING, Dataset, Item, Part
from teamtune.types import Row

LABELS = ("entailment", "neutral", "contradiction")


def read(row: Row) -> Item:
    question = f"Premise: {row['premise']}\nHypothesis: {row['hypothesis']}"
    return Item(question, LETTERS[row["label"]], LABELS, row["uid"])


DATASET = Dataset(
    "anli",
    "facebook/anli",
    read,
    CHOICE_ENDING,
    splits={},
    sizes={"train": 162_865, "dev": 3200, "test": 3200},
    parts=tuple(
        Part(name, splits={split: f"{split}_{name}" for split in ("train", "dev", "test")})
        for name in ("r1", "r2", "r3")
    ),
)
