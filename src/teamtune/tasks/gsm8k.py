"""GSM8K: grade-school word problems (Cobbe et al., 2021), which MALT and MAPoRL train on.

A row as the hub has it (this one is invented):

    {"question": "A baker sells 12 loaves at $4 each. How much is that?",
     "answer": "She gets 12 * 4 = $<<12*4=48>>48.\\n#### 48"}
"""

from __future__ import annotations

from teamtune.grading.number import grade as grade
from teamtune.tasks.dataset import NUMBER_ENDING, Dataset, Item
from teamtune.types import Row


def read(row: Row) -> Item:
    return Item(row["question"].strip(), row["answer"].rsplit("####", 1)[1].strip().replace(",", ""))


DATASET = Dataset(
    "gsm8k",
    "openai/gsm8k:main",
    read,
    NUMBER_ENDING,
    splits={"train": "train", "test": "test"},
    sizes={"train": 7473, "test": 1319},
)
