"""MMLU: four options, 57 subjects (Hendrycks et al., 2021), which Multiagent Finetuning uses.

A row as the hub has it (this one is invented):

    {"question": "2 + 2 = ?", "subject": "elementary_mathematics", "choices": ["3", "4", "5", "6"], "answer": 1}

Multiagent Finetuning draws 500 questions to finetune on and 500 others to test on; there is no training split of the
same subjects, so both come from the test split here, drawn apart.
"""

from __future__ import annotations

from teamtune.grading.choice import LETTERS
from teamtune.grading.choice import grade as grade
from teamtune.tasks.dataset import CHOICE_ENDING, Dataset, Item
from teamtune.types import Row


def read(row: Row) -> Item:
    return Item(row["question"], LETTERS[row["answer"]], tuple(row["choices"]), subject=row["subject"])


DATASET = Dataset(
    "mmlu",
    "cais/mmlu:all",
    read,
    CHOICE_ENDING,
    splits={"train": "test", "dev": "validation", "test": "test"},
    sizes={"validation": 1531, "test": 14042},
)
