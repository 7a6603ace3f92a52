"""Graders and data sets on real benchmarks and recorded outputs. Skipped where these are not on the machine."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from teamtune.grading import fitting, math, number
from teamtune.grading.audit import audit, confusion, graded_rows, judged, read_verdicts
from teamtune.tasks import DATASETS, TaskSpec, find
from teamtune.tasks.pool import places, read_pool
from teamtune.tasks.source import rows_of
from teamtune.types import Problem, TeamtuneError

DATA = Path(os.environ.get("TEAMTUNE_DATA", Path(__file__).parents[2] / "shared" / "data"))
VERDICTS = Path(__file__).parents[1] / "docs" / "results" / "grader-verdicts.jsonl"

pytestmark = [
    pytest.mark.skipif(not (DATA / "graded").is_dir(), reason=f"no benchmark data in {DATA}"),
    pytest.mark.timeout(600),
]

LOCAL = [
    ("gsm8k", "train"),
    ("gsm8k", "test"),
    ("math", "train"),
    ("math", "test"),
    ("math500", "test"),
    ("commonsense_qa", "train"),
    ("arc", "train"),
    ("arc", "test"),
    ("mmlu", "dev"),
    ("mmlu", "test"),
    ("anli", "dev"),
    ("bbh", "test"),
    ("svamp", "test"),
    ("aqua", "test"),
    ("strategy_qa", "train"),
    ("aime", "test"),
    ("amc23", "test"),
]


@pytest.fixture(autouse=True)
def data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAMTUNE_DATA", str(DATA))


def pool(task: str, split: str) -> list[Problem]:
    data = find(task).DATASET
    here = [place for place in places(data, split) if Path(place.source).is_dir()]
    return read_pool(data, split, levels=[place.part for place in here if place.part])


@pytest.mark.parametrize(("task", "split"), LOCAL)
def test_every_gold_answer_is_right_and_another_ones_is_wrong(task: str, split: str) -> None:
    problems, grade = pool(task, split), find(task).grade
    assert len(problems) >= 30
    for problem in problems:
        assert grade(problem, f"Answer: {problem.answer}").score == 1, problem
    form = "\\boxed{{{}}}" if task in ("math", "math500") else "Answer: {}"
    checked = problems[:1500]
    equal = [
        (one.answer, other.answer)
        for one, other in zip(checked, [*checked[7:], *checked[:7]], strict=True)
        if one.answer.strip("()") != other.answer.strip("()") and grade(one, form.format(other.answer)).score
    ]
    truly = {("K=8", "8"), ("2", "2 \\text{ pieces}")}
    assert set(equal) <= truly


@pytest.mark.parametrize("file", ["math/train", "math/test", "math500/test", "aime24/test"])
def test_worked_solutions_of_mathematics_end_in_the_gold_answer(file: str) -> None:
    rows = [raw.row or {} for raw in rows_of(str(DATA / f"{file}.jsonl.gz"))]
    for row in rows:
        if row["solution"]:
            graded = math.grade(Problem(row["id"], row["question"], row["answer"]), row["solution"])
            assert graded.score == 1, (row["id"], graded)


def test_worked_solutions_of_gsm8k_end_in_the_gold_answer() -> None:
    rows = [raw.row or {} for split in ("train", "test") for raw in rows_of(str(DATA / f"gsm8k/{split}.jsonl.gz"))]
    for row in rows:
        problem = Problem(row["id"], row["question"], row["answer"])
        assert number.grade(problem, f"{row['solution']}\n#### {row['answer']}").score == 1
    # Without the mark, the last sentence may go on with other numbers.
    unmarked = [number.grade(Problem("p", "?", row["answer"]), row["solution"]).score for row in rows]
    assert sum(unmarked) / len(rows) > 0.985


def test_graders_agree_with_the_labels_but_where_a_reader_says_why_not() -> None:
    rows = [row for file in sorted((DATA / "graded").glob("*.jsonl.gz")) for row in graded_rows(file)]
    graders = {name: find(name).grade for name in ("gsm8k", "math", "bbh")}
    graders |= {"mr_gsm8k": number.grade, "addsub": number.grade}
    done = audit(rows, graders, fitting.grade)
    verdicts = read_verdicts(VERDICTS)
    unread = [row for row in done.disagreements if row["id"] not in verdicts]
    assert not unread, unread[:3]
    ours = Counter(row["dataset"] for row in done.disagreements if verdicts[row["id"]]["whose"] == "ours")
    size = Counter(row["dataset"] for row in rows)
    assert ours["math"] / size["math"] < 0.003
    assert ours.total() == ours["math"]
    assert judged(done.disagreements, verdicts)["unread"] == 0
    assert sum(row["n"] for row in confusion(done.rows, "file")) == len(rows) == 10_577
    assert all(row["rule"] and row["reason"] for row in done.rows)


def test_subsets_are_the_same_each_time_and_apart() -> None:
    spec = TaskSpec("gsm8k", train=300, test=200)
    train, test = spec.load("train"), spec.load("test")
    assert [p.id for p in TaskSpec("gsm8k", train=100, test=200).load("train")] == [p.id for p in train[:100]]
    assert {p.id for p in TaskSpec("gsm8k", train=300, data_seed=1).load("train")} != {p.id for p in train}
    assert all(p.id.startswith("gsm8k/test") for p in test) and all(p.id.startswith("gsm8k/train") for p in train)
    dev = TaskSpec("gsm8k", train=300, test=200, held_out="dev").load("test")
    assert not {p.id for p in dev} & {p.id for p in train} and all(p.id.startswith("gsm8k/train") for p in dev)


def test_one_pool_is_drawn_apart() -> None:
    spec = TaskSpec("mmlu", train=500, test=500, subjects=("business_ethics", "formal_logic", "virology"))
    with pytest.raises(TeamtuneError, match=r"mmlu train has .* 1000 are asked for .500 to train on and 500 apart"):
        spec.load("train")
    spec = TaskSpec("mmlu", train=150, test=150, subjects=("business_ethics", "formal_logic", "virology"))
    train, test = ({p.id for p in spec.load(split)} for split in ("train", "test"))
    assert len(train) == len(test) == 150 and not train & test


def test_levels_and_subjects() -> None:
    problems = TaskSpec("math", levels=("1", "2"), subjects=("algebra",), test=50).load("test")
    assert {p.meta["level"] for p in problems} == {"1", "2"} and {p.meta["subject"] for p in problems} == {"algebra"}
    easy = TaskSpec("arc", levels=("easy",), test=20).load("test")
    assert all(p.id.startswith("arc_easy") for p in easy)
    with pytest.raises(TeamtuneError, match="math test has no level '9'; its levels are 1, 2, 3, 4, 5"):
        TaskSpec("math", levels=("9",)).load("test")


def test_every_data_set_names_a_place() -> None:
    for name in DATASETS:
        data = find(name).DATASET
        assert data.hub or all(part.hub for part in data.parts)
        assert "test" in {split for part in data.parts for split in {**data.splits, **part.splits}}
