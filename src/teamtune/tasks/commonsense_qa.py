"""CommonsenseQA: five options, everyday knowledge (Talmor et al., 2019), which MALT trains on.

A row as the hub has it (this one is invented):

    {"id": "a1", "question": "Where do you keep milk?", "question_concept": "milk",
     "choices": {"label": ["A", "B", "C", "D", "E"], "text": ["shoe", "fridge", "roof", "sea", "book"]},
     "answerKey": "B"}

The test split has no public answers, so ours is the hub's validation split, as is usual.
"""

from __future__ import annotations

from teamtune.grading.choice import grade as grade
from teamtune.tasks.dataset import CHOICE_ENDING, Dataset, Item
from teamtune.types import Row


def read(row: Row) -> Item:
    concept = row.get("question_concept", "")
    return Item(row["question"], row["answerKey"], tuple(row["choices"]["text"]), row["id"], subject=concept)


DATASET = Dataset(
    "commonsense_qa",
    "tau/commonsense_qa",
    read,
    CHOICE_ENDING,
    splits={"train": "train", "test": "validation"},
    sizes={"train": 9741, "validation": 1221},
)
