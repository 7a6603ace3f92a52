"""SVAMP: one-step word problems with changed wording (Patel et al., 2021).

A row as the hub has it (this one is invented):

    {"ID": "chal-0", "Body": "A box holds 8 pens.", "Question": "How many do 2 boxes hold?",
     "Equation": "( 8.0 * 2.0 )", "Answer": "16", "Type": "Multiplication"}
"""

from __future__ import annotations

from teamtune.grading.number import grade as grade
from teamtune.tasks.dataset import NUMBER_ENDING, Dataset, Item
from teamtune.types import Row


def read(row: Row) -> Item:
    question = f"{row['Body'].strip().rstrip('.')}. {row['Question'].strip()}"
    answer = float(row["Answer"])
    shown = str(int(answer)) if answer.is_integer() else str(answer)
    return Item(question, shown, id=f"svamp/{row['ID']}", subject=row["Type"])


DATASET = Dataset(
    "svamp",
    "ChilleD/SVAMP",
    read,
    NUMBER_ENDING,
    splits={"train": "train", "test": "test"},
    sizes={"train": 700, "test": 300},
)
