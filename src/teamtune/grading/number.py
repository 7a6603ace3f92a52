"""Grade a response whose answer is a number.

    text    "7 * 23 = 161\n...\nAnswer: 52."     ->  parsed "52"
    text    "The answer is $1,200"               ->  parsed "1200"

Rules in order: the last "Answer: ..." line (also "Final answer:" and "the answer is ..."), else the last number of
the text. Canonical form: an integer without separators, or a reduced fraction for decimals ("0.50" -> "1/2").
"""

from __future__ import annotations

import re
from fractions import Fraction

from teamtune.types import Grade, Problem

# A minus is a sign only right before its number and not right after another: "10 - 3" and "10-3" end in 3.
_NUMBER = r"(?:(?<![\w.)])-)?\$?(?:\d[\d,]*\.?\d*|\.\d+)"
_MARKED = re.compile(rf"answer\s*(?:is|:|=)\s*({_NUMBER})", re.IGNORECASE)
_ANY = re.compile(rf"(?<![\w.])(?:{_NUMBER})")


def canonical(text: str) -> str | None:
    """The canonical form of one written number; None where it is none."""
    bare = text.replace(",", "").replace("$", "").replace(" ", "").rstrip(".")
    if not re.fullmatch(r"-?(\d{1,400}\.?\d{0,400}|\.\d{1,400})", bare):
        return None
    return str(Fraction(bare))


def extract(text: str) -> str | None:
    """The number a response settles on, in canonical form; None where it holds none."""
    plain = text.replace("\N{MINUS SIGN}", "-")
    found = _MARKED.findall(plain) or _ANY.findall(plain)
    return canonical(found[-1]) if found else None


def grade(problem: Problem, text: str) -> Grade:
    """Right if and only if the extracted number equals the gold answer."""
    parsed = extract(text)
    return Grade(parsed, float(parsed is not None and parsed == canonical(problem.answer)))
