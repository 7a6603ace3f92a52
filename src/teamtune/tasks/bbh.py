"""BIG-Bench Hard: 27 tasks that language models found hard (Suzgun et al., 2022).

A row as the hub has it (this one is invented):

    {"input": "not ( True ) is", "target": "False"}

Every task is a part. Its answers are letters, labels, numbers or texts, and the gold answer's shape says which. There
is one split, so problems to train on and to test on are drawn apart from it.
"""

from __future__ import annotations

from teamtune.grading.fitting import grade as grade
from teamtune.tasks.dataset import Dataset, Item, Part
from teamtune.types import Row

TASKS = (
    "boolean_expressions causal_judgement date_understanding disambiguation_qa dyck_languages formal_fallacies "
    "geometric_shapes hyperbaton logical_deduction_five_objects logical_deduction_seven_objects "
    "logical_deduction_three_objects movie_recommendation multistep_arithmetic_two navigate object_counting "
    "penguins_in_a_table reasoning_about_colored_objects ruin_names salient_translation_error_detection snarks "
    "sports_understanding temporal_sequences tracking_shuffled_objects_five_objects "
    "tracking_shuffled_objects_seven_objects tracking_shuffled_objects_three_objects web_of_lies word_sorting"
).split()
ENDING = "End with a line: Answer: <answer>"


def read(row: Row) -> Item:
    return Item(row["input"].strip(), row["target"].strip())


DATASET = Dataset(
    "bbh",
    "lukaemon/bbh",
    read,
    ENDING,
    splits={"train": "test", "test": "test"},
    sizes={"test": 6511},
    parts=tuple(Part(task, task) for task in TASKS),
)
