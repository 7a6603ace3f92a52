"""Answers of one problem that are equal although they are written in several ways: 1/2, 0.5, \\frac{1}{2}."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from teamtune.grading import Grader
from teamtune.types import Problem


def merged(problem: Problem, answers: Sequence[str], grader: Grader) -> dict[str, str]:
    """Each answer with the one that stands for all that are equal to it: the first in their order.

    A grader of a user's own says what it parses, and nothing more is made of it.
    """
    stands: dict[str, str] = {}
    ours = getattr(grader, "__module__", "").startswith("teamtune.")
    for answer in answers:
        kin = (one for one in dict.fromkeys(stands.values()) if ours and equal(problem, one, answer, grader))
        stands[answer] = next(kin, answer)
    return stands


def equal(problem: Problem, one: str, other: str, grader: Grader) -> bool:
    """Whether the grader takes one answer for the other, in either box or mark."""
    asked = replace(problem, answer=one, question="")
    return any(grader(asked, form.format(other)).score == 1 for form in ("\\boxed{{{}}}", "Answer: {}"))
