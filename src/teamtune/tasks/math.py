"""MATH: competition problems of seven subjects and five levels (Hendrycks et al., 2021), which MALT trains on.

A row as the hub has it (this one is invented):

    {"problem": "What is $1+\\frac{1}{2}$?", "level": "Level 1", "type": "Prealgebra",
     "solution": "We add: $\\boxed{\\frac{3}{2}}$."}

Its original place on the hub was taken down; the copy taken here has a part for every subject.
"""

from __future__ import annotations

from teamtune.grading.extract import boxed
from teamtune.grading.math import grade as grade
from teamtune.tasks.dataset import MATH_ENDING, Dataset, Item, Part
from teamtune.types import Row

SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)


def read(row: Row) -> Item:
    answer = boxed(row["solution"])
    if answer is None:
        raise ValueError("the solution has no \\boxed answer")
    subject = row["type"].lower().replace(" & ", "_and_").replace(" ", "_")
    return Item(row["problem"].strip(), answer[0], level=row["level"].removeprefix("Level "), subject=subject)


DATASET = Dataset(
    "math",
    "EleutherAI/hendrycks_math",
    read,
    MATH_ENDING,
    splits={"train": "train", "test": "test"},
    sizes={"train": 7500, "test": 5000},
    parts=tuple(Part(config=subject) for subject in SUBJECTS),
)
