"""AQuA: algebraic word problems with five options (Ling et al., 2017).

A row as the hub has it (this one is invented):

    {"question": "A car goes 60 km in an hour. How far in two?", "options": ["A)60", "B)90", "C)120", "D)150", "E)180"],
     "rationale": "...", "correct": "C"}
"""

from __future__ import annotations

import re

from teamtune.grading.choice import grade as grade
from teamtune.tasks.dataset import CHOICE_ENDING, Dataset, Item
from teamtune.types import Row


def read(row: Row) -> Item:
    return Item(row["question"], row["correct"], tuple(re.sub(r"^[A-E]\)\s*", "", text) for text in row["options"]))


DATASET = Dataset(
    "aqua",
    "deepmind/aqua_rat:raw",
    read,
    CHOICE_ENDING,
    splits={"train": "train", "dev": "validation", "test": "test"},
    sizes={"train": 97_467, "validation": 254, "test": 254},
)
