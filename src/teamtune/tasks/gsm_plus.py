"""GSM-Plus: GSM8K's test questions, each changed in eight ways (Li et al., 2024).

A row as the hub has it (this one is invented):

    {"question": "A baker sells 12.5 loaves ...", "solution": "...", "answer": "50",
     "perturbation_type": "numerical substitution", "seed_question": "...", "seed_answer": "48"}

The change is the level. Questions made unanswerable have "None" as their answer. The full split is taken; problems to
train on and to test on are drawn apart from it, and so are the questions of GSM8K that they were made of.
"""

from __future__ import annotations

from teamtune.grading import label, number
from teamtune.tasks.dataset import Dataset, Item
from teamtune.types import Grade, Problem, Row

ENDING = "End with a line: Answer: <number>, or Answer: unanswerable"


def read(row: Row) -> Item:
    answer = str(row["answer"])
    unanswerable = answer.strip().lower() in ("none", "n/a", "")
    answer = "unanswerable" if unanswerable else answer
    return Item(row["question"], answer, level=row["perturbation_type"], group=row.get("seed_question") or "")


def grade(problem: Problem, text: str) -> Grade:
    """A number, or that there is none."""
    return (label if problem.answer == "unanswerable" else number).grade(problem, text)


DATASET = Dataset(
    "gsm_plus",
    "qintongli/GSM-Plus",
    read,
    ENDING,
    splits={"train": "test", "test": "test"},
    sizes={"test": 10_552},
)
