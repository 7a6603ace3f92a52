"""Answers as they are read where no gold answer may be looked at: for votes that label training data.

One row:

    {"problem": "gsm8k/train/17", "take": 0, "turn": 4, "parsed": "18"}

A grader reads what it is shown, and what it takes for equal may depend on the gold answer; so it is shown another one,
of the same kind (a label stays a label), and answers of one problem are compared with each other instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from teamtune.grading import label
from teamtune.grading.blind import SHOWN, blinded
from teamtune.store import Counted
from teamtune.tasks.spec import TaskSpec
from teamtune.tasks.stages import alike, beside_each_other, problems_in, unread
from teamtune.types import Problem, Row, TeamtuneError


def parse_turns(turns: Sequence[Row], problems: Sequence[Row], task: TaskSpec) -> Counted:
    """The answer of every turn, None where none is found. Answers that are equal have the same text."""
    known = problems_in(problems)
    usual = usual_label(known)
    blind = {problem.id: blinded(problem, usual) for problem in known}
    grader = task.grade("train")
    asked = list(dict.fromkeys((turn["problem"], turn["text"]) for turn in turns))
    one = lambda place: grader(blind[place[0]], place[1]).parsed  # noqa: E731
    read = alike(dict(zip(asked, beside_each_other(one, asked), strict=True)), blind, grader)
    rows: list[Row] = []
    for turn in turns:
        key = {name: turn[name] for name in ("problem", "take", "turn")}
        rows.append({**key, "parsed": read[turn["problem"], turn["text"]]})
    return Counted(rows, unread(turns, rows))


def check_reader(task: TaskSpec) -> None:
    """Raises TeamtuneError where the grader reads nothing without the gold answer: what is found out after debates are
    held loses them."""
    problem, grader = task.load("train")[0], task.grade("train")
    try:
        grader(blinded(problem), problem.answer)
    except Exception as error:  # a grader may be anybody's, and raise anything
        raise TeamtuneError(
            f"the grader cannot read an answer where the gold one is hidden ({type(error).__name__}: {error}); votes "
            f"label the debates, so it is shown another answer, and of the columns {', '.join(SHOWN)} alone: let it "
            "do without others, or take the task's own"
        ) from error


def usual_label(problems: Sequence[Problem]) -> str:
    """The label that stands for the most frequent family of labels: what problems hide whose own gold answer is
    "unanswerable", which belongs to every family."""
    first = (next(iter(found)) for problem in problems if (found := label.family(problem.answer)) and len(found) > 1)
    return max(sorted(counts := Counter(first)), key=lambda name: counts[name], default="yes")
