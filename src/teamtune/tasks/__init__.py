"""Tasks: one file each. Those made on the fly have `load(split, count, seed, level)`, data sets have a `DATASET`; all
have `grade(problem, text)`.

A name is looked up by import: "gsm8k" is `teamtune.tasks.gsm8k`, "my_package.my_task" is your own module, and "data" is
whatever --data names, graded by --grader.
"""

from teamtune.tasks.find import BUILT_IN, DATASETS, MADE, check_apart, find, plain
from teamtune.tasks.spec import TaskSpec
from teamtune.tasks.stages import (
    Split,
    all_elsewhere,
    digest,
    elsewhere,
    grade_turns,
    held_out_split,
    parted,
    problem_rows,
    problems_in,
    splits,
)

__all__ = [
    "BUILT_IN",
    "DATASETS",
    "MADE",
    "Split",
    "TaskSpec",
    "all_elsewhere",
    "check_apart",
    "digest",
    "elsewhere",
    "find",
    "grade_turns",
    "held_out_split",
    "parted",
    "plain",
    "problem_rows",
    "problems_in",
    "splits",
]
