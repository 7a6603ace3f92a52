"""Reading answers where no gold answer may be looked at: the grader is shown another one of its kind.

settled(Problem("p", "What is 1 / 2?", "0.25"), ["So it is \\\\frac{1}{2}. Answer: 1/2", "Answer: 0.5", "no idea"])
    ["0.5", "0.5", None]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from teamtune.grading import fitting, label
from teamtune.grading.merge import merged
from teamtune.grading.text import is_date
from teamtune.types import Problem

SHOWN = ("choices", "level", "subject")
"""what a grader may still see beside the question; anything else might tell the answer"""


def blinded(problem: Problem, usual: str = "yes") -> Problem:
    """The problem with a gold answer of the same kind that says nothing. usual: hidden where gold is unanswerable."""
    gold = problem.answer.strip()
    family = label.family(gold)
    if problem.meta.get("choices") or re.fullmatch(r"\(?[A-Z]\)?", gold):
        hidden = "(A)" if gold.startswith("(") else "A"
    elif family:
        hidden = next(iter(family)) if len(family) > 1 else usual
    elif re.fullmatch(r"-?\$?[\d.,]+%?", gold):
        hidden = "0"
    elif is_date(gold):
        hidden = "01/01/2000"
    else:
        hidden = r"\square" if re.search(r"\\[a-zA-Z]|\^", gold) else "?"
    meta = {name: value for name, value in problem.meta.items() if name in SHOWN}
    return replace(problem, answer=hidden, meta=meta)


def settled(problem: Problem, texts: Sequence[str]) -> list[str | None]:
    """What each text settles on, None where nothing can be read; equal answers are equal texts. They are read by the
    kind of the gold answer, which itself is hidden."""
    blind = blinded(problem)
    read = [fitting.grade(blind, text).parsed for text in texts]
    stands = merged(blind, sorted({one for one in read if one is not None}), fitting.grade)
    return [None if one is None else stands[one] for one in read]
