"""Data from anywhere: sources, columns, wrong files, graders by name, and the commands about them."""

from __future__ import annotations

import gzip
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from teamtune.cli import main
from teamtune.grading import find_grader
from teamtune.tasks import DATASETS, MADE, TaskSpec, find, grade_turns, problem_rows, splits
from teamtune.tasks.dataset import Columns, common, problem_of
from teamtune.tasks.find import plain
from teamtune.tasks.parse import parse_turns
from teamtune.tasks.source import LONGEST, rows_of
from teamtune.types import Grade, Problem, TeamtuneError

ROWS = [{"id": f"q{i}", "question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(40)]


def jsonl(rows: Sequence[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def worked(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The rows as GSM8K has them."""
    return [{"question": row["question"], "answer": f"Add them.\n#### {row['answer']}"} for row in rows]


def csv_text(rows: Sequence[dict[str, str]]) -> bytes:
    return "\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]).encode()


def parquet(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(ROWS), path)


def saved(path: Path) -> None:
    import datasets

    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(str(path))


KINDS: dict[str, Callable[[Path], object]] = {
    "a.jsonl": lambda path: path.write_bytes(jsonl(ROWS)),
    "a.ndjson": lambda path: path.write_bytes(jsonl(ROWS)),
    "a.json": lambda path: path.write_text(json.dumps(ROWS)),
    "b.json": lambda path: path.write_bytes(jsonl(ROWS)),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(jsonl(ROWS))),
    "a.csv": lambda path: path.write_bytes(b"\xef\xbb\xbf" + csv_text(ROWS)),
    "a.csv.gz": lambda path: path.write_bytes(gzip.compress(csv_text(ROWS))),
    "a.tsv": lambda path: path.write_bytes(csv_text(ROWS).replace(b",", b"\t")),
    "a.parquet": parquet,
    "a-folder": saved,
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_the_same_problems(tmp_path: Path, name: str) -> None:
    KINDS[name](tmp_path / name)
    raws = list(rows_of(str(tmp_path / name), "train"))
    assert [raw.row for raw in raws] == ROWS
    assert raws[2].place.endswith(" row 3")


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(jsonl(ROWS))))
    spec = TaskSpec("data", data="-", grader="number", train=20, test=20)
    first = spec.load("train")
    assert spec.load("train") == first, "what was piped in is kept"
    assert {p.id for p in first} | {p.id for p in spec.load("test")} == {row["id"] for row in ROWS}


def test_a_folder_of_splits(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(jsonl(ROWS[:30]))
    (tmp_path / "test.jsonl.gz").write_bytes(gzip.compress(jsonl(ROWS[30:])))
    spec = TaskSpec("data", data=str(tmp_path), grader="number", train=30, test=10)
    assert len(spec.load("train")) == 30 and len(spec.load("test")) == 10
    with pytest.raises(TeamtuneError, match="has 10 problems; 11 are asked for, take fewer"):
        TaskSpec("data", data=str(tmp_path), grader="number", train=30, test=11).load("test")


def test_one_file_is_one_pool(tmp_path: Path) -> None:
    (tmp_path / "all.jsonl").write_bytes(jsonl(ROWS))
    spec = TaskSpec("data", data=str(tmp_path / "all.jsonl"), grader="number", train=25, test=15)
    train, test = ([p.id for p in spec.load(split)] for split in ("train", "test"))
    assert not set(train) & set(test) and len(train) == 25 and len(test) == 15
    with pytest.raises(TeamtuneError, match=r"41 are asked for \(26 to train on and 15 apart from them\)"):
        TaskSpec("data", data=str(tmp_path / "all.jsonl"), grader="number", train=26, test=15).load("train")


def test_rows_without_ids_are_drawn_apart_too(tmp_path: Path) -> None:
    (tmp_path / "all.jsonl").write_bytes(jsonl([{k: row[k] for k in ("question", "answer")} for row in ROWS]))
    spec = TaskSpec("data", data=str(tmp_path / "all.jsonl"), grader="number", train=25, test=15)
    train, test = ({p.question for p in spec.load(split)} for split in ("train", "test"))
    assert not train & test and len(train | test) == 40


def test_test_problems_from_elsewhere_and_leaks(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(ROWS[:20]))
    same = [{**ROWS[0], "id": "other", "question": "what is 0 + 0"}, *ROWS[20:29]]
    (tmp_path / "b.jsonl").write_bytes(jsonl(same))
    options: dict[str, Any] = {
        "data": str(tmp_path / "a.jsonl"),
        "test_data": str(tmp_path / "b.jsonl"),
        "grader": "number",
    }
    from teamtune.tasks import splits

    with pytest.raises(TeamtuneError, match=r"1 of 10 test problems are in the training set too, problem .other."):
        splits(TaskSpec("data", train=20, test=10, **options))
    _, test = splits(TaskSpec("data", train=20, test=10, allow_leaks=True, **options))
    assert test.leaks == 1


def test_a_grader_that_does_not_know_the_right_answers_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from teamtune.tasks import splits

    (tmp_path / "a.jsonl").write_bytes(jsonl(ROWS))
    options: dict[str, Any] = {"data": str(tmp_path / "a.jsonl"), "train": 20, "test": 10}
    splits(TaskSpec("data", grader="number", **options))
    assert capsys.readouterr().err == ""
    splits(TaskSpec("data", grader="regex:Total is (.*)", **options))
    told = " ".join(capsys.readouterr().err.split())
    assert "the grader does not take the answer" in told and "nor those of the next 2 problems" in told


@pytest.mark.parametrize("name", MADE)
def test_the_graders_of_our_tasks_know_the_right_answers(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from teamtune.tasks import splits

    splits(TaskSpec(name, train=3, test=3))
    assert capsys.readouterr().err == ""


def test_a_further_task_has_its_own_data_and_its_own_number_of_problems(tmp_path: Path) -> None:
    from teamtune.tasks import elsewhere

    (tmp_path / "test.jsonl").write_bytes(jsonl(worked(ROWS)))
    task = TaskSpec("arithmetic", train=5, test=100)
    found = elsewhere(task, f"gsm8k={tmp_path}")
    assert found.place == "gsm8k" and len(found.task.load("test")) == 40, "all that there are"
    assert len(elsewhere(TaskSpec("arithmetic", train=5, test=15), f"gsm8k={tmp_path}").task.load("test")) == 15
    assert elsewhere(task, "arithmetic:4").task.test == 100
    with pytest.raises(TeamtuneError, match="makes its own problems"):
        elsewhere(task, f"stories={tmp_path}")


def test_a_further_task_is_checked_against_what_is_trained_on(tmp_path: Path) -> None:
    from teamtune.tasks import elsewhere

    for name, some in (("train", ROWS), ("test", worked(ROWS))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "test.jsonl").write_bytes(jsonl(some))
    task = TaskSpec("data", data=str(tmp_path / "train" / "test.jsonl"), grader="number", train=30, test=10)
    with pytest.raises(TeamtuneError, match=r"[1-9]\d* of 10 test problems are in the training set too"):
        elsewhere(task, f"gsm8k={tmp_path / 'test'}")
    allowed = replace(task, allow_leaks=True)
    assert elsewhere(allowed, f"gsm8k={tmp_path / 'test'}").leaks > 0


def test_columns_by_name(tmp_path: Path) -> None:
    rows = [{"nr": 7, "text": "2 + 2?", "right": 4.0, "opts": "3|4", "how": "easy"}]
    (tmp_path / "a.jsonl").write_bytes(jsonl(rows))
    columns = Columns("text", "right", "opts", "nr", "how")
    item = common(rows[0], columns)
    assert (item.question, item.answer, item.choices, item.id, item.level) == ("2 + 2?", "4", ("3", "4"), "7", "easy")
    assert problem_of(item, "", "x").question == "2 + 2?\n(A) 3\n(B) 4"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"q": "?", "a": "1"}, "no question column .looked for question, problem, .* there are q, a"),
        ({"question": "?"}, "no answer column"),
        ({"question": " ", "answer": "1"}, "the question is empty"),
        ({"question": "?", "answer": None}, "the answer is empty"),
        ({"question": "?", "answer": float("nan")}, "the answer is nan"),
        ({"question": "?", "answer": [1]}, "the answer is a list, not a text"),
        ({"question": "?", "answer": "1", "choices": [[1], [2]]}, "the choices are no list of texts"),
        ({"question": "?", "answer": "1", "choices": ["red"]}, "1 choices; there must be 2 to 26"),
        ({"question": "?", "answer": "1", "choices": "red;blue"}, "1 choices; there must be 2 to 26"),
        ({"question": "?", "answer": "1", "choices": '["red", "blue"'}, "the choices are no JSON list"),
        ({"question": "?", "answer": "1", "choices": ["x"] * 27}, "27 choices"),
        ({"question": "?", "answer": "NaN"}, "the answer is 'NaN', which is none"),
        ({"question": "a \ud800", "answer": "1"}, "half of a character"),
    ],
)
def test_rows_that_cannot_be_used(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        common(row)


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    whole = gzip.compress(jsonl(ROWS))
    files: dict[str, tuple[bytes, str]] = {
        "cut.jsonl.gz": (whole[: len(whole) // 2], "the file is cut short (truncated gzip); get it again"),
        "no.jsonl.gz": (b"not gzip", "the file is no valid gzip"),
        "latin.jsonl": (jsonl(ROWS[:2]) + '{"question": "é"}\n'.encode("latin-1"), "row 3: not valid UTF-8 at byte"),
        "broken.jsonl": (b'{"question": "?", "answer": "1"}\n{"question": \n', "row 2: not valid JSON"),
        "list.jsonl": (b'["a"]\n', "row 1: a list, not an object"),
        "empty.jsonl": (b"", "there are no rows"),
        "ids.jsonl": (jsonl([ROWS[0], ROWS[0]]), "the id 'q0' is that of ids.jsonl row 1 too"),
        "nan.jsonl": (b'{"question": "?", "answer": NaN}\n', "row 1: the answer is nan"),
        "long.csv": (
            b"question,answer\n" + b"x" * (LONGEST + 10) + b",1\n",
            "row 1: not valid CSV: the line is longer than",
        ),
        "long.jsonl": (b'{"question": "' + b"x" * (LONGEST + 10) + b'"}\n' + jsonl(ROWS), "row 1: the line is longer"),
        "missing.csv": (b"question,reply\n?,1\n", "row 1: no answer column"),
        "wide.csv": (b"question,answer\na,b,c\n", "row 1: more fields than the header's 2; quote its commas"),
        "short.csv": (b"question,answer\na\n", "row 1: fewer fields than the header"),
        "latin.csv": ("question,answer\né,1\n".encode("latin-1"), "not valid UTF-8"),
        "no.parquet": (b"not parquet", "not valid Parquet"),
        "none.json": (b"[1", "not valid JSON"),
        "letter.jsonl": (jsonl([{**ROWS[0], "answer": "C", "choices": ["a", "b"]}]), "'C' is none of the 2 choices"),
        "twins.jsonl": (jsonl([{**ROWS[0], "answer": "A", "choices": ["a", "A"]}]), "two choices are the same"),
    }
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return {name: (folder / name, message) for name, (_, message) in files.items()}


def test_wrong_files_are_told_in_one_sentence_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, (path, message) in bad_files(tmp_path).items():
        with pytest.raises(SystemExit) as stopped:
            main(["validate-data", str(path)])
        out, err = capsys.readouterr()
        assert stopped.value.code == 2, name
        assert message in out, (name, out)
        assert err.count("\n") == 1 and "errors; mend or drop these rows" in err
        spec = TaskSpec("data", data=str(path), grader="number", train=1, test=1)
        if "choices" not in message:
            with pytest.raises(TeamtuneError):
                spec.load("train")


def test_a_good_file_has_no_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl([*ROWS, {**ROWS[0], "id": "again"}]))
    main(["validate-data", str(tmp_path / "a.jsonl"), "--grader", "number"])
    out = capsys.readouterr().out
    assert "note: 1 rows repeat the question of another row" in out and "41 rows, 0 errors" in out


def test_validation_asks_the_grader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl([ROWS[0], {**ROWS[1], "answer": "many"}]))
    with pytest.raises(SystemExit):
        main(["validate-data", str(tmp_path / "a.jsonl"), "--grader", "number"])
    assert "a.jsonl row 2: the grader does not take the answer 'many' for right" in capsys.readouterr().out


def test_questions_alone_are_looked_at_where_they_are_to_have_no_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl([{"question": "How many?"}, {"question": "And now?", "answer": ""}]))
    main(["validate-data", str(path), "--unlabelled"])
    assert "2 rows, 0 errors" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["validate-data", str(path)])
    assert "2 rows, 2 errors" in capsys.readouterr().out
    path.write_bytes(jsonl([{"question": "How many?"}, {"question": ""}]))
    with pytest.raises(SystemExit):
        main(["validate-data", str(path), "--unlabelled"])
    assert "a.jsonl row 2" in capsys.readouterr().out
    for option in ("--task gsm8k", "--grader number", "--answer-column a"):
        with pytest.raises(SystemExit, match="2"):
            main(["validate-data", str(path), "--unlabelled", *option.split()])
        assert f"{option.split()[0]} goes by answers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.csv", "no data at 'nowhere.csv'; check the path"),
        ("./nowhere", "no data at './nowhere'"),
        ("a/b/c", "no data at 'a/b/c'"),
    ],
)
def test_data_that_are_not_there(source: str, message: str) -> None:
    with pytest.raises(TeamtuneError, match=message):
        rows_of(source)


def test_a_file_of_an_unknown_kind(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"")
    with pytest.raises(TeamtuneError, match=r"is of no kind that can be read; the kinds are .jsonl"):
        rows_of(str(tmp_path / "a.xlsx"))


def test_the_hub_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def offline(*_: object, **__: object) -> object:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    monkeypatch.delenv("TEAMTUNE_DATA", raising=False)
    with pytest.raises(TeamtuneError, match=r"data set 'openai/gsm8k:main', split 'train', cannot be had from the hub"):
        TaskSpec("gsm8k").load("train")


HUB_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "gsm8k": ({"question": "1 + 1?", "answer": "Easy.\n#### 1,002"}, "1002"),
    "math": (
        {"problem": "1 + 1?", "level": "Level 2", "type": "Counting & Probability", "solution": "\\boxed{2}"},
        "2",
    ),
    "math500": (
        {"problem": "?", "solution": "", "answer": "2", "subject": "Algebra", "level": 1, "unique_id": "test/a/1.json"},
        "2",
    ),
    "commonsense_qa": (
        {
            "id": "1",
            "question": "?",
            "question_concept": "x",
            "choices": {"label": list("ABCDE"), "text": ["shoe", "roof", "sea", "tin", "box"]},
            "answerKey": "B",
        },
        "B",
    ),
    "arc": (
        {"id": "1", "question": "?", "choices": {"label": list("123"), "text": ["x", "y", "z"]}, "answerKey": "2"},
        "B",
    ),
    "mmlu": ({"question": "?", "subject": "law", "choices": ["w", "x", "y", "z"], "answer": 3}, "D"),
    "anli": ({"uid": "1", "premise": "a", "hypothesis": "b", "label": 2, "reason": ""}, "C"),
    "bbh": ({"input": "not True is", "target": "False"}, "False"),
    "svamp": (
        {"ID": "c-1", "Body": "A box.", "Question": "How many?", "Equation": "", "Answer": "16.0", "Type": "Sum"},
        "16",
    ),
    "aqua": ({"question": "?", "options": ["A)1", "B)2", "C)3"], "rationale": "", "correct": "C"}, "C"),
    "strategy_qa": ({"qid": "1", "question": "?", "answer": False, "facts": ""}, "no"),
    "aime": ({"id": 1, "problem": "?", "solution": "", "answer": "073"}, "73"),
    "amc23": ({"id": 0, "question": "?", "answer": "27.0"}, "27"),
    "gsm_symbolic": ({"id": 0, "instance": 1, "question": "?", "answer": "So.\n#### 51", "original_id": 3}, "51"),
    "gsm_plus": ({"question": "?", "answer": "None", "perturbation_type": "critical thinking"}, "unanswerable"),
}


def test_questions_of_one_template_stand_in_one_split_alone(tmp_path: Path) -> None:
    """As the hub has them: every part numbers its templates anew, and every template stands there 50 times."""
    for part in ("main", "p1", "p2"):
        folder = tmp_path / f"gsm_symbolic_{part}"
        folder.mkdir()
        rows = [
            {"id": t, "instance": i, "question": f"{part} {t} with {i}?", "answer": f"So.\n#### {i}", "original_id": t}
            for t in range(10)
            for i in range(5)
        ]
        (folder / "test.jsonl").write_bytes(jsonl(rows))
    task = TaskSpec("gsm_symbolic", data=str(tmp_path), train=40, test=20)
    train, test = task.load("train"), task.load("test")
    assert len(train) == 40 and len(test) == 20 and len({problem.id for problem in [*train, *test]}) == 60
    groups = [{problem.meta["group"] for problem in own} for own in (train, test)]
    assert not groups[0] & groups[1] and len(groups[0]) > 3, "many templates, none in both"
    assert len({problem.meta["level"] for problem in train}) == 3
    with pytest.raises(TeamtuneError, match="problems; 140 are asked for"):
        replace(task, train=40, test=140).load("test")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Answer: C", "C"),
        ("Answer: contradiction", "C"),
        ("Answer: it contradicts the premise", "C"),
        ("Answer: true", "A"),
    ],
)
def test_inference_labels_are_said_in_many_ways(text: str, letter: str) -> None:
    task = find("anli")
    problem = problem_of(task.DATASET.read(HUB_ROWS["anli"][0]), task.DATASET.ending, "x")
    assert task.grade(problem, text).parsed == letter


@pytest.mark.parametrize("name", DATASETS)
def test_a_row_of_the_hub_reads_and_its_gold_answer_is_right(name: str) -> None:
    row, answer = HUB_ROWS[name]
    task = find(name)
    problem = problem_of(task.DATASET.read(row), task.DATASET.ending, "x")
    assert problem.answer == answer and problem.ending
    assert task.grade(problem, f"Answer: {answer}").score == 1
    assert task.grade(problem, "Answer: 12345").score == 0


# Graders by name


def reward(completions: list[str], answer: list[str], **_: Any) -> list[float | None]:
    return [None if "?" in c else float(a in c) for c, a in zip(completions, answer, strict=True)]


async def slow_reward(completions: list[list[dict[str, str]]], answer: list[str], **_: Any) -> list[float]:
    return [float(a in c[0]["content"]) for c, a in zip(completions, answer, strict=True)]


def own(problem: Problem, text: str) -> bool:
    return problem.answer in text


def own_grade(problem: Problem, text: str) -> Grade:
    return Grade("x", 1.0)


def raises(problem: Problem, text: str) -> float:
    raise KeyError("oh")


def wild(problem: Problem, text: str) -> float:
    return 7.0


@pytest.mark.parametrize(
    ("name", "text", "score"),
    [
        ("number", "Answer: 12", 1),
        ("exact", "Answer: 12", 1),
        ("boxed", "\\boxed{12}", 1),
        ("boxed", "Answer: 12", 0),
        ("math", "\\boxed{24/2}", 1),
        ("fitting", "Answer: 12", 1),
        ("regex:RESULT (\\d+)", "RESULT 11, RESULT 12", 1),
        ("regex:RESULT (\\d+)", "RESULT 12, RESULT 11", 0),
        ("regex:(a|a)*b", "a" * 60, 0),
        ("tests.test_data:reward", "it is 12", 1),
        ("tests.test_data:reward", "?", 0),
        ("tests.test_data:slow_reward", "it is 12", 1),
        ("tests.test_data:own", "it is 12", 1),
        ("tests.test_data:own_grade", "", 1),
    ],
)
def test_graders_by_name(name: str, text: str, score: float) -> None:
    assert find_grader(name)(Problem("p", "?", "12"), text).score == score


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "unknown grader ''; there are number, choice"),
        ("numbers", "unknown grader 'numbers'"),
        ("regex:(", "is no valid pattern"),
        ("no.such:f", "no function 'f' in module 'no.such' to grade with"),
        ("tests.test_data:nothing", "no function 'nothing'"),
        ("tests.test_data:ROWS", "is a list, not a function"),
    ],
)
def test_graders_that_are_none(name: str, message: str) -> None:
    with pytest.raises(TeamtuneError, match=message):
        find_grader(name)


@pytest.mark.parametrize(("name", "message"), [("raises", "failed: KeyError"), ("wild", "gave 7.0; it must give")])
def test_a_grader_that_fails_is_an_error_and_not_a_wrong_answer(name: str, message: str) -> None:
    with pytest.raises(TeamtuneError, match=message):
        find_grader(f"tests.test_data:{name}")(Problem("p", "?", "12"), "x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "data"}, "--task data needs --data"),
        ({"task": "data", "data": "x.csv"}, "--task data needs --grader: number, choice"),
        ({"task": "gsm8k", "grader": "number"}, "--grader is for --task data, not for gsm8k"),
        ({"task": "gsm8k", "answer_column": "a"}, "--answer-column is for --task data"),
        ({"task": "stories", "data": "x.csv"}, "stories makes its own problems"),
        ({"task": "arithmetic", "levels": ("1",)}, "arithmetic makes its own problems"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TeamtuneError, match=message):
        TaskSpec(**options)


def test_tasks_are_listed_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["tasks"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("arithmetic", *DATASETS))
    (tmp_path / "a.jsonl").write_bytes(jsonl(ROWS))
    main(["tasks", "--task", "data", "--data", str(tmp_path / "a.jsonl"), "--grader", "number", "--limit", "3"])
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(shown) == 3 and all(row["id"].startswith("q") for row in shown)


def test_an_audit_lists_every_disagreement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {
            "id": f"m/{i}",
            "question": "?",
            "gold": "4",
            "response": f"Answer: {said}",
            "label": label,
            "dataset": "gsm8k",
        }
        for i, (said, label) in enumerate([("4", True), ("5", False), ("4", False), ("5", True)])
    ]
    file, verdicts, out = tmp_path / "a.jsonl", tmp_path / "v.jsonl", tmp_path / "o.jsonl"
    file.write_bytes(jsonl(rows))
    verdicts.write_bytes(jsonl([{"id": "m/2", "whose": "label", "why": "it is right"}]))
    main(["audit-grader", str(file), "--verdicts", str(verdicts), "--out", str(out)])
    told = capsys.readouterr().out
    assert "m/2: label False, ours True; marked; 4 against 4 [label: it is right]" in told
    assert "4 responses, 2 disagreements (50.00 %; mistakes of: label 1, unread 1)" in told
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["m/2", "m/3"]
    file.write_bytes(jsonl([{"id": "m/0", "question": "?"}]))
    with pytest.raises(SystemExit):
        main(["audit-grader", str(file)])
    assert "a.jsonl row 1: no gold; it needs id, question, gold, response, label" in capsys.readouterr().err


def test_a_trl_grader_gets_the_other_columns_of_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{**row, "solution": "add", "made": 3} for row in ROWS]
    (tmp_path / "a.jsonl").write_bytes(jsonl(rows))
    (tmp_path / "columns_grader.py").write_text(
        "def g(completions, answer, solution, made, **more):\n"
        "    assert made == [3] and solution == ['add'], (made, solution)\n"
        "    return [float(a in c) for c, a in zip(completions, answer)]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    task = TaskSpec("data", data=str(tmp_path / "a.jsonl"), grader="columns_grader:g", train=3, test=3)
    problem = task.load("test")[0]
    assert task.grade("test")(problem, f"it is {problem.answer}").score == 1


def test_graders_that_give_what_numpy_gives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "numpy_grader.py").write_text(
        "import numpy as np\ndef g(completions, **_):\n    return np.ones(len(completions), dtype=np.float32)\n"
        "def one(problem, text):\n    return np.float32(1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("g", "one"):
        assert find_grader(f"numpy_grader:{name}")(Problem("p", "?", "1"), "1").score == 1


def test_an_async_grader_inside_a_loop_that_runs() -> None:
    import asyncio

    async def notebook() -> float:
        return find_grader(f"{__name__}:slow_reward")(Problem("p", "?", "1"), "1").score

    assert asyncio.run(notebook()) == 1


@pytest.mark.parametrize(
    ("program", "said"),
    [("def f(:", "cannot be imported: SyntaxError"), ("1 / 0", "cannot be imported: ZeroDivisionError")],
)
def test_graders_whose_module_is_broken(
    program: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"broken_{len(program)}"
    (tmp_path / f"{name}.py").write_text(program)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(TeamtuneError, match=said):
        find_grader(f"{name}:f")
    with pytest.raises(TeamtuneError, match="no function"):
        find_grader(".x:y")


@pytest.mark.parametrize(
    ("value", "choices"),
    [
        (["red", "blue"], ("red", "blue")),
        ({"label": ["A", "B"], "text": ["red", "blue"]}, ("red", "blue")),
        ('["red", "blue"]', ("red", "blue")),
        ("red | blue", ("red", "blue")),
        ([1, 2.5], ("1", "2.5")),
        (None, ()),
        ("", ()),
    ],
)
def test_options_come_in_several_forms(value: Any, choices: tuple[str, ...]) -> None:
    assert common({"question": "?", "answer": "1", "choices": value}).choices == choices


def test_standard_input_may_be_lines_a_list_or_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    from teamtune.tasks import source

    rows = [{"question": "a", "answer": "1"}, {"question": "b", "answer": "2"}]
    for data in (jsonl(rows), json.dumps(rows).encode(), csv_text(rows)):
        monkeypatch.setattr(source, "_piped", lambda data=data: data)
        assert [raw.row for raw in rows_of("-")] == rows
    monkeypatch.setattr(source, "_piped", lambda: b"[{]")
    assert "not valid JSON" in next(iter(rows_of("-"))).error


def test_json_that_is_packed_and_cut_short(tmp_path: Path) -> None:
    whole = gzip.compress(json.dumps(ROWS).encode())
    (tmp_path / "cut.json.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "none.json.gz").write_bytes(b"plain text")
    for name in ("cut.json.gz", "none.json.gz"):
        assert list(rows_of(str(tmp_path / name)))[-1].error


def test_a_saved_data_set_without_splits_is_one_pool(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    task = TaskSpec("data", data=str(tmp_path / "saved"), grader="number", train=20, test=20)
    assert not {p.id for p in task.load("train")} & {p.id for p in task.load("test")}
    (tmp_path / "saved" / "state.json").write_text("{")
    with pytest.raises(TeamtuneError, match="cannot be read"):
        task.load("train")


def test_ones_own_data_to_test_a_built_in_task_on(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(ROWS))
    task = TaskSpec("arithmetic", test_task="data", test_data=str(tmp_path / "a.jsonl"), grader="number", test=5)
    assert len(task.load("test")) == 5
    with pytest.raises(TeamtuneError, match="--test-task data needs --test-data"):
        TaskSpec("arithmetic", test_task="data", grader="number")


def test_levels_are_found_whatever_their_case_and_column(tmp_path: Path) -> None:
    rows = [{**row, "level": "R1" if i % 2 else "R2", "subject": "sums"} for i, row in enumerate(ROWS)]
    (tmp_path / "a.jsonl").write_bytes(jsonl(rows))
    data = {"data": str(tmp_path / "a.jsonl"), "grader": "number", "train": 5, "test": 5}
    assert {p.meta["level"] for p in TaskSpec("data", levels=("r1",), **data).load("test")} == {"R1"}
    assert len(TaskSpec("data", levels=("Sums",), **data).load("test")) == 5


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Is 5 < 3?", "Is 5 > 3?", False),
        ("What is x^2?", "What is x_2?", False),
        ("What is 5 - 3?", "What is 5 \N{MINUS SIGN} 3?", True),
        ("Pick.\n(A) red\n(B) blue", "Pick.\n(A) blue\n(B) red", True),
        ("Caf\u00e9?", "Cafe\u0301?", True),
    ],
)
def test_what_counts_as_the_same_question(one: str, other: str, same: bool) -> None:
    assert (plain(one) == plain(other)) is same


def test_an_audit_refuses_labels_that_are_no_truth_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"id": "m", "question": "?", "gold": "1", "response": "Answer: 1", "label": "true"}
    (tmp_path / "a.jsonl").write_bytes(jsonl([row]))
    for arguments, said in (
        ([str(tmp_path / "a.jsonl")], "the label is 'true'; it must be true or false"),
        ([], "no file to audit"),
        ([str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "no" / "x")], "there is no such folder"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["audit-grader", *arguments])
        assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("row", [{}, {"answer": ""}, {"answer": None}, {"answer": "7"}])
def test_training_questions_need_no_answers_where_none_is_asked_for(row: dict[str, Any], tmp_path: Path) -> None:
    asked = [{"question": f"What is {i} + 1?"} for i in range(4)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(one | row) + "\n" for one in asked[:2]))
    (tmp_path / "test.jsonl").write_text("".join(json.dumps({**one, "answer": "9"}) + "\n" for one in asked[2:]))
    spec = TaskSpec("data", data=str(tmp_path), grader="number", train=2, test=2, unlabelled=True)
    train, _ = splits(spec)
    assert [problem.answer for problem in spec.load("train")] == ["", ""]
    assert [problem.answer for problem in spec.load("test")] == ["9", "9"]
    table = list(problem_rows(spec, "train", train.digest).rows)
    turns = [
        {"problem": table[0]["id"], "take": 0, "turn": n, "agent": "a", "tag": "round-1", "text": text}
        for n, text in enumerate(["Answer: 8", "So it is 8.0. Answer: 8.0", "who knows"])
    ]
    assert [one["parsed"] for one in parse_turns(turns, table, spec).rows] == ["8", "8", None]
    with pytest.raises(TeamtuneError, match=r"has no answer to grade by; --unlabelled is for maft alone"):
        grade_turns(turns, table, spec, "train")
    if row.get("answer") != "7":
        with pytest.raises(TeamtuneError, match=r"no answer column|the answer is empty"):
            replace(spec, unlabelled=False).load("train")


def test_where_questions_alone_are_of_no_use(tmp_path: Path) -> None:
    (tmp_path / "all.jsonl").write_text('{"question": "1 + 1?"}\n{"question": "1 + 2?"}\n')
    one_pool = TaskSpec("data", data=str(tmp_path / "all.jsonl"), grader="number", train=1, test=1, unlabelled=True)
    with pytest.raises(TeamtuneError, match="--unlabelled needs test problems with answers apart from the others"):
        one_pool.load("train")
    with pytest.raises(TeamtuneError, match="--grader fitting goes by the gold answer's kind"):
        replace(one_pool, grader="fitting")
    with pytest.raises(TeamtuneError, match="--unlabelled is for --task data, not for arithmetic"):
        TaskSpec(unlabelled=True)


@pytest.mark.parametrize("recipe", [["malt"], ["maporl"], ["scorer", "train"]])
def test_who_learns_from_gold_answers_needs_them(
    recipe: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "all.jsonl").write_text('{"question": "1 + 1?"}\n')
    own = ["--task", "data", "--data", str(tmp_path / "all.jsonl"), "--grader", "number", "--unlabelled"]
    with pytest.raises(SystemExit, match="2"):
        main([*recipe, *own, "--out", str(tmp_path / "run")])
    assert "--unlabelled is for maft, and" in capsys.readouterr().err and not (tmp_path / "run").exists()
