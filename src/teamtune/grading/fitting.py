"""Grade by the grader that fits the gold answer: for data whose answers are of several kinds.

gold "(B)" or options given   an option          gold "17" or "-3.5"    a number
gold "yes", "valid"           a label            gold "\\\\frac{1}{2}"    mathematics
anything else                 a text
"""

from __future__ import annotations

import re

from teamtune.grading import choice, label, math, number, text
from teamtune.types import Grade, Problem


def grade(problem: Problem, response: str) -> Grade:
    """The grade by the kind of the gold answer."""
    gold = problem.answer.strip()
    if problem.meta.get("choices") or re.fullmatch(r"\([A-Z]\)", gold):
        return choice.grade(problem, response)
    if label.family(gold):
        return label.grade(problem, response)
    if re.fullmatch(r"-?\$?[\d.,]+%?", gold) and re.search(r"\d", gold):
        return number.grade(problem, response)
    return (math if re.search(r"\\[a-zA-Z]|\^", gold) else text).grade(problem, response)
