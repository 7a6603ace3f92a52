"""GSM-Symbolic: GSM8K's questions with names and numbers drawn anew; parts main, p1 and p2 (Mirzadeh et al., 2024).

A row as the hub has it (this one is invented):

    {"id": 0, "instance": 3, "question": "A baker sells 17 loaves at $3 each. ...", "answer": "...\\n#### 51",
     "original_id": 12}

One split; problems to train on and to test on are drawn apart from it, and so are the questions of GSM8K that they were
made of.
"""

from __future__ import annotations

from teamtune.grading.number import grade as grade
from teamtune.tasks.dataset import NUMBER_ENDING, Dataset, Item, Part
from teamtune.tasks.gsm8k import read as read_gsm8k
from teamtune.types import Row


def read(row: Row) -> Item:
    item = read_gsm8k(row)
    # Its own numbers are those of templates, which every part begins anew: problems are named by part and row.
    return Item(item.question, item.answer, group=str(row.get("original_id", "")))


DATASET = Dataset(
    "gsm_symbolic",
    "apple/GSM-Symbolic",
    read,
    NUMBER_ENDING,
    splits={"train": "test", "test": "test"},
    sizes={"test": 12_500},
    parts=tuple(Part(name, name) for name in ("main", "p1", "p2")),
)
