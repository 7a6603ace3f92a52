"""The task of spoken_task, of which no answer is right."""

from __future__ import annotations

from tests import spoken_task
from tests.spoken_task import load

from teamtune.types import Grade, Problem

__all__ = ["grade", "load"]


def grade(problem: Problem, text: str) -> Grade:
    found = spoken_task.grade(problem, text)
    return Grade(found.parsed, 0.0)
