"""Grade a response whose answer is a text: a word, a date, a row of brackets.

    "so we get ieae. The answer is ieae."    "ieae"         marked
    "Answer: 05/01/2021"                     "05/01/2021"   marked
    "] }"                                    "] }"          last line

Texts are compared without case, surrounding punctuation, quotes and repeated spaces.
"""

from __future__ import annotations

import re

import regex

from teamtune.grading.extract import LONGEST, TAIL, boxed, final, last_line, unwrapped
from teamtune.grading.workers import SECONDS
from teamtune.types import Grade, Problem

_DATE = re.compile(r"\b\d{1,4}[/-]\d{1,2}[/-]\d{1,4}\b")


def canonical(text: str) -> str:
    """The form in which texts are compared. Symbols alone ("] }") are compared without spaces."""
    inner = re.sub(r"\\(?:text|textbf|mathrm)\s*\{([^{}]*)\}", r"\1", unwrapped(text))
    words = " ".join(inner.casefold().split())
    if not re.search(r"\w", words):
        return words.replace(" ", "")
    return words.strip(" .,;:!?\"'\u201c\u201d")


def is_date(answer: str) -> bool:
    return _DATE.fullmatch(canonical(answer)) is not None


def extract(text: str, dates: bool = False) -> tuple[str | None, str]:
    """The text that a response settles on, in canonical form, and the rule that found it; its last date for `dates`."""
    found = final(text)
    said, rule = (found.text, found.rule) if found else (last_line(text), "last line")
    if dates:
        all_dates = _DATE.findall(said)
        return (all_dates[-1], f"{rule}, date") if all_dates else (None, rule)
    return canonical(said) or None, rule


def grade(problem: Problem, text: str) -> Grade:
    """Right if and only if the extracted text is the gold answer."""
    parsed, rule = extract(text, dates=is_date(problem.answer))
    return _compared(problem, parsed, rule)


def grade_boxed(problem: Problem, text: str) -> Grade:
    """Right if and only if what stands in the last box is the gold answer."""
    found = boxed(text)
    return _compared(problem, found[0] if found else None, "boxed")


def grade_by(pattern: regex.Pattern[str], problem: Problem, text: str) -> Grade:
    """Right if and only if the pattern's last match (its first group, where it has one) is the gold answer."""
    rule, last = f"regex:{pattern.pattern}", None
    try:
        for match in pattern.finditer(text[-TAIL:], timeout=SECONDS):
            last = match
    except TimeoutError:
        return Grade(None, 0.0, rule, f"the pattern took over {SECONDS:g} s")
    except MemoryError:
        return Grade(None, 0.0, rule, "the pattern took too much memory")
    found = None if last is None else (last[1] if pattern.groups else last[0])
    return _compared(problem, found, rule)


def _compared(problem: Problem, answer: str | None, rule: str) -> Grade:
    parsed = canonical(answer) if answer and len(answer) <= LONGEST else None
    gold = canonical(problem.answer)
    return Grade(
        parsed, float(parsed is not None and parsed == gold), rule, f"{str(parsed)[:80]!r} against {gold[:80]!r}"
    )
