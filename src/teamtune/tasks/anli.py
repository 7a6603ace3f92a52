"""ANLI: does a premise entail a hypothesis? Rounds r1 to r3 (Nie et al., 2020); MAPoRL uses r3.

A row as the hub has it (this one is invented):

    {"uid": "u1", "premise": "The cat sleeps.", "hypothesis": "The cat is awake.", "label": 2, "reason": "..."}

The data are for non-commercial use (CC BY-NC 4.0).
"""

from __future__ import annotations

from teamtune.grading import choice, label
from teamtune.grading.choice import LETTERS
from teamtune.tasks.dataset import CHOICE_ENDING, Dataset, Item, Part
from teamtune.types import Grade, Problem, Row

LABELS = ("entailment", "neutral", "contradiction")


def read(row: Row) -> Item:
    question = f"Premise: {row['premise']}\nHypothesis: {row['hypothesis']}"
    return Item(question, LETTERS[row["label"]], LABELS, row["uid"])


def grade(problem: Problem, text: str) -> Grade:
    """By the option's letter or text; where none is named, by what else says a label ("it contradicts the premise")."""
    by_letter = choice.grade(problem, text)
    if by_letter.parsed is not None:
        return by_letter
    said, rule = label.extract(text, label.family(LABELS[0]) or {})
    letter = LETTERS[LABELS.index(said)] if said in LABELS else None
    return Grade(
        letter, float(letter is not None and letter == problem.answer), rule, f"{said} against {problem.answer}"
    )


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
