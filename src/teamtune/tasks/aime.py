"""AIME: thirty competition problems a year with answers from 0 to 999; parts 24 and 25, to test on.

A row as the hub has it (this one is invented):

    {"id": 60, "problem": "Find the number of ...", "solution": "...", "answer": "204"}
"""

from __future__ import annotations

from teamtune.grading.math import grade as grade
from teamtune.tasks.dataset import MATH_ENDING, Dataset, Item, Part
from teamtune.types import Row


def read(row: Row) -> Item:
    return Item(row["problem"].strip(), str(int(row["answer"])))


DATASET = Dataset(
    "aime",
    "",
    read,
    MATH_ENDING,
    splits={},
    sizes={"test": 60},
    parts=(
        Part("24", splits={"test": "train"}, hub="HuggingFaceH4/aime_2024"),
        Part("25", splits={"test": "test"}, hub="math-ai/aime25"),
    ),
)
