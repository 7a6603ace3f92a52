"""StrategyQA: yes or no, by facts that must be put together (Geva et al., 2021).

A row as the hub has it (this one is invented):

    {"qid": "q1", "term": "Iron", "description": "...", "question": "Would an iron bar float on water?",
     "answer": false, "facts": "..."}
"""

from __future__ import annotations

from teamtune.grading.label import grade as grade
from teamtune.tasks.dataset import Dataset, Item
from teamtune.types import Row


def read(row: Row) -> Item:
    return Item(row["question"], "yes" if row["answer"] else "no", id=f"strategy_qa/{row['qid']}")


DATASET = Dataset(
    "strategy_qa",
    "ChilleD/StrategyQA",
    read,
    "End with a line: Answer: <yes or no>",
    splits={"train": "train", "test": "test"},
    sizes={"train": 1603, "test": 687},
)
