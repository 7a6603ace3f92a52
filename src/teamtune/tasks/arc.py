"""ARC: grade-school science with three to five options, levels easy and challenge (Clark et al., 2018).

A row as the hub has it (this one is invented):

    {"id": "X_1", "question": "What melts ice?", "choices": {"text": ["heat", "cold", "salted milk", "air"],
     "label": ["A", "B", "C", "D"]}, "answerKey": "A"}
"""

from __future__ import annotations

from teamtune.grading.choice import LETTERS
from teamtune.grading.choice import grade as grade
from teamtune.tasks.dataset import CHOICE_ENDING, Dataset, Item, Part
from teamtune.types import Row


def read(row: Row) -> Item:
    # Some rows number their options.
    letter = LETTERS[row["choices"]["label"].index(row["answerKey"])]
    return Item(row["question"], letter, tuple(row["choices"]["text"]), row["id"])


DATASET = Dataset(
    "arc",
    "allenai/ai2_arc",
    read,
    CHOICE_ENDING,
    splits={"train": "train", "dev": "validation", "test": "test"},
    sizes={"train": 2251 + 1119, "validation": 570 + 299, "test": 2376 + 1172},
    parts=(Part("easy", "ARC-Easy"), Part("challenge", "ARC-Challenge")),
)
