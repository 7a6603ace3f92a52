"""Answers read without gold: what the gold answer is changes nothing, and equal answers get one text."""

from __future__ import annotations

from typing import Any

import pytest

from teamtune.tasks import TaskSpec
from teamtune.tasks.parse import blinded, parse_turns
from teamtune.tasks.stages import problem_row
from teamtune.types import Problem, Row

CASES = {
    "gsm8k": (["18", "-3", "1/3", "2,000"], ["Answer: 18", "so it is\nAnswer: 18.0", "Answer: 7", "no idea"]),
    "math": (
        ["5", r"\frac{1}{2}", "x+1", r"\sqrt{2}", "(1, 2)"],
        [r"\boxed{\frac{1}{2}}", r"\boxed{0.5}", r"\boxed{x+1}", r"\boxed{1+x}", r"\boxed{7}", "none"],
    ),
    "commonsense_qa": (["A", "C", "E"], ["Answer: B", "Answer: (B)", "Answer: D", "who knows"]),
    "strategy_qa": (["yes", "no"], ["Answer: yes", "Answer: yes.", "Answer: no", "Answer: maybe"]),
    "anli": (
        ["entailment", "neutral", "contradiction"],
        ["Answer: neutral", "Final answer: Neutral", "Answer: entailment", "hm"],
    ),
}


def tables(golds: list[str], texts: list[str], **meta: Any) -> tuple[list[Row], list[Row]]:
    """One problem a gold answer, and every text as an answer to each."""
    problems = [problem_row(Problem(f"p{i}", "Which?", gold, meta=meta)) for i, gold in enumerate(golds)]
    turns = [
        {"problem": row["id"], "take": 0, "turn": n, "agent": "a", "text": text}
        for row in problems
        for n, text in enumerate(texts)
    ]
    return turns, problems


@pytest.mark.parametrize("task", CASES)
def test_what_is_read_does_not_depend_on_gold(task: str) -> None:
    golds, texts = CASES[task]
    meta = {"choices": ["red", "blue", "green", "pink", "grey"]} if task == "commonsense_qa" else {}
    found: list[list[str | None]] = []
    for gold in golds:
        turns, problems = tables([gold], texts, **meta)
        found.append([row["parsed"] for row in parse_turns(turns, problems, TaskSpec(task)).rows])
    assert all(one == found[0] for one in found), dict(zip(golds, found, strict=True))
    assert found[0][0] == found[0][1], "equal answers are one"
    assert found[0][-1] is None


def test_an_unanswerable_question_is_read_like_the_others() -> None:
    texts = ["Answer: yes", "Answer: no", "Answer: unanswerable"]
    turns, problems = tables(["yes", "unanswerable"], texts)
    found = list(parse_turns(turns, problems, TaskSpec("strategy_qa")).rows)
    assert [row["parsed"] for row in found[:3]] == [row["parsed"] for row in found[3:]] == ["yes", "no", "unanswerable"]


def test_different_wrong_answers_stay_apart_and_equal_ones_do_not() -> None:
    texts = [r"\boxed{\frac{\sqrt{2}}{2}}", r"\boxed{\frac{1}{\sqrt{2}}}", r"\boxed{x+1}", r"\boxed{1+x}"]
    turns, problems = tables(["5"], texts)
    a, b, c, d = (row["parsed"] for row in parse_turns(turns, problems, TaskSpec("math")).rows)
    assert a == b and c == d and a != c


def test_nothing_of_a_problem_that_might_tell_its_answer_reaches_a_grader() -> None:
    shown = blinded(
        Problem("p", "?", "42", meta={"solution": "... = 42", "choices": ["1"], "columns": {}, "level": "2"})
    )
    assert shown.answer == "A" and shown.meta == {"choices": ["1"], "level": "2"}


def test_unreadable_answers_are_counted() -> None:
    turns, problems = tables(["18"], ["nothing here"])
    assert parse_turns(turns, problems, TaskSpec("gsm8k")).counts == {"a: no answer found": 1}
