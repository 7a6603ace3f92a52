"""AMC 2023: forty competition problems with whole numbers as answers, to test on.

A row as the hub has it (this one is invented):

    {"id": 0, "question": "How many ... are there?", "answer": "27.0"}
"""

from __future__ import annotations

from teamtune.grading.math import grade as grade
from teamtune.tasks.dataset import MATH_ENDING, Dataset, Item
from teamtune.types import Row


def read(row: Row) -> Item:
    answer = str(row["answer"])
    return Item(row["question"].strip(), answer.removesuffix(".0"))


DATASET = Dataset(
    "amc23",
    "math-ai/amc23",
    read,
    MATH_ENDING,
    splits={"test": "test"},
    sizes={"test": 40},
)
