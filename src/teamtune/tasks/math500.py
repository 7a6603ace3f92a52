"""MATH-500: 500 of MATH's test problems (Lightman et al., 2023); to test on, with `math` to train on.

A row as the hub has it (this one is invented):

    {"problem": "What is $1+\\frac{1}{2}$?", "solution": "...", "answer": "\\frac{3}{2}", "subject": "Prealgebra",
     "level": 1, "unique_id": "test/prealgebra/1.json"}
"""

from __future__ import annotations

from teamtune.grading.math import grade as grade
from teamtune.tasks.dataset import MATH_ENDING, Dataset, Item
from teamtune.types import Row


def read(row: Row) -> Item:
    subject = row["subject"].lower().replace(" & ", "_and_").replace(" ", "_")
    return Item(row["problem"].strip(), row["answer"], (), f"math500/{row['unique_id']}", str(row["level"]), subject)


DATASET = Dataset(
    "math500",
    "HuggingFaceH4/MATH-500",
    read,
    MATH_ENDING,
    splits={"test": "test"},
    sizes={"test": 500},
)
