r"""Grade a response whose answer is a number.

    "7 * 23 = 161\n...\nAnswer: 52."          "52"      marked
    "The answer is 80 + 150 = $1,230.50"      "2461/2"  marked
    "so it is \boxed{3\frac{1}{2}} hours"     "7/2"     boxed
    "It took 2.5e3 s, in all 2500 seconds"    "2500"    last number
    "Answer: 3 or 4"                          None      marked
    "The answer is not 12"                    None      marked

Canonical form: an integer without separators or a reduced fraction, and hours and minutes for a time of day
("4:30 p.m." is "16:30"). Whoever names several numbers where one is asked for has given no answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from teamtune.grading.extract import TAIL, final, last_line, without_question
from teamtune.grading.numerals import DIGITS, Numeral, numerals, plain, spelled
from teamtune.types import Grade, Problem

TOLERANCE = 200_000  # decimals are equal up to five millionths of their size

_CALCULATION = re.compile(r"[\s\d.,()$%]*[+\-*/^][\s\d.,+\-*/()$%^]*")
_CHAIN = re.compile(r"=[\s\d.,+\-*/()$%^]*(?==)")
# Words that put one answer beside another, and words after which an answer is explained.
_HEDGES = frozenset(
    "or and to through thru until maybe perhaps possibly probably either even also else likely but not then up a an "
    "the about around between one of is it could be x y n".split()
)
_EXPLAINS = re.compile(
    r"\b(?:as|since|because|so|which|where|for|with|in|per|by|after|from|of|at|on|when|if|each|than|every|left|out|that|"
    r"more|less|plus|minus|times)\b|=",
    re.IGNORECASE,
)
_NEGATED = re.compile(
    r"(?:\b(?:not|never|anything but|other than|rather than|instead of|except)|n't)\s+(?:be\s+)?$", re.IGNORECASE
)
_SUBJECT = re.compile(
    r"\b(?:is|are|was|were|be|equals|has|have|had|makes?|costs?|gets?)\s+(?:about|only|just|exactly|approximately)?\s*$",
    re.IGNORECASE,
)
_REASON = re.compile(r"\b(?:since|because|as|so|which|where)\b", re.IGNORECASE)
_SAYS = re.compile(
    r"\b(?:is|are|was|were|be|has|have|had|left|get|gets|makes?|so|total)\b[^\n]*\d|(?:\n|[.!?]\s)[^\n]*\d",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"^[ \t]*(?:#+[ \t]*)?(?:step[ \t]*)?\d{1,3}[.):][ \t]", re.IGNORECASE | re.MULTILINE)


def canonical(text: str) -> str | None:
    """The canonical form of one written number, with or without unit; None where it is none or several."""
    return settled(text) if len(text) <= 2 * DIGITS else None


def settled(answer: str) -> str | None:
    """The number that an answer settles on: the result of a calculation, else its first number.

    None where there is no number, where several are named, and where a calculation is left undone.
    """
    found = _settled(answer)
    return found.scaled if found else None


def _settled(answer: str) -> Numeral | None:
    text = re.sub(r"^(\W*)-\s+(?=[\d.$])", r"\1-", plain(answer))  # an answer may begin with its sign: "- 3"
    found = numerals(text)
    if not found:
        word = spelled(text)
        return Numeral(0, 0, word) if word else None
    found = [one for one in found if not _NEGATED.search(text, max(0, one.start - 30), one.start)]
    if not found:
        return None
    first = _result(text, found)
    rest = [one for one in found if one.start > first.start and one.scaled != first.scaled]
    return None if rest and _listed(text, first, rest[0]) else first


def _result(text: str, found: Sequence[Numeral]) -> Numeral:
    """The number that an answer is about: after the equals signs of a calculation, after "is", else the first."""
    first, equals = found[0], text.find("=")
    # "80 + 150 = 230" and "x = 3": what comes before an equals sign is no answer, unless it is one: "5, as 2 + 3 = 5".
    if equals >= 0 and (first.start > equals or _CALCULATION.fullmatch(text[:equals])):
        last = equals
        while (after := _CHAIN.match(text, last)) is not None:
            last = after.end()
        return next((one for one in found if one.start > last), first)
    # "In 3 years he will be 5": the number that the verb names, where no reason has begun.
    reason = _REASON.search(text, first.end)
    for one in found[1:]:
        if reason and one.start > reason.start():
            break
        if _SUBJECT.search(text, max(0, one.start - 40), one.start):
            return one
    return first


def _listed(text: str, one: Numeral, other: Numeral) -> bool:
    """Whether two numbers stand beside each other as answers, or with an operation between them that is not done."""
    between = text[one.end : other.start]
    if between.strip() in ("+", "*", "/", "-", "^"):
        return True
    if _EXPLAINS.search(between) and not re.fullmatch(r"[\s,;]*[a-z]\s*=\s*", between):
        return False
    if between.strip() == "(" and re.match(r"\s*[+\-*/=]", text[other.end :]):  # "12 (3 * 4)"
        return False
    words = re.findall(r"[^\W\d_]+", between.lower())
    units = [word for word in words if word not in _HEDGES]
    beside = len(units) < len(words) or re.search(r"[,;|/?()\[\]{}.\-\u2013\u2026:]", between) or not words
    return len(units) <= 1 and bool(beside)


def extract(text: str) -> tuple[str | None, str]:
    """The number that a response settles on, in canonical form or None, and the rule that found it."""
    found, rule = _extracted(text)
    return found.scaled if found else None, rule


def _extracted(text: str) -> tuple[Numeral | None, str]:
    marked = final(text)
    if marked:
        found = _settled(marked.text)
        below = numerals(plain(line)) if (line := last_line(text)) != text.strip() and len(line) < 40 else []
        bare = len(below) == 1 and re.fullmatch(r"\W*", line[: below[0].start] + line[below[0].end :])
        if marked.rule == "marked" and found and bare and below[0].scaled != found.scaled:
            return None, "marked, and another number below"
        return found, marked.rule
    tail = _NUMBERED.sub("", plain(text[-TAIL:]))
    found = numerals(tail)
    if not found:
        return None, "nothing found"
    last = found[-1]
    line = [one for one in found if one.start > tail.rfind("\n", 0, last.start)]
    if _NEGATED.search(tail, max(0, last.start - 30), last.start) or _row(tail, line):
        return None, "last number"
    # "120/24 = 5 hours to read 120 pages": the result of the line's last calculation, where nothing is said of another.
    results = [one for one in found if re.search(r"=[\s<$]*$", tail[max(0, one.start - 8) : one.start])]
    if results and not _SAYS.search(tail, results[-1].end):
        return results[-1], "last result"
    return last, "last number"


def _row(tail: str, line: Sequence[Numeral]) -> bool:
    """Whether the last line is a row of numbers, or ends in one number or another."""
    gaps = [tail[a.end : b.start] for a, b in pairwise(line)]
    if not gaps:
        return False
    if len(gaps) > 1 and all(re.fullmatch(r"[\s,;|]+(?:and|or)?\s*", gap) for gap in gaps):
        return True
    return bool(re.fullmatch(r"\s*(?:[^\W\d_]{1,12}\s+)?(?:,\s*)?(?:or|\?)[\s$]*(?:maybe|perhaps)?\s*", gaps[-1]))


def _in_unit(found: Numeral, question: str, text: str) -> Numeral:
    """The number again in the unit asked for: "72 months, which is 6 years" where the question is how many years."""
    asked = re.findall(r"\bhow many ([a-z]{3,})", question, re.IGNORECASE)
    marked = final(text)
    if not asked or not marked:
        return found
    said = plain(marked.text)
    stem = re.escape(asked[-1].lower().rstrip("s"))
    again = [
        one
        for one in numerals(said)
        if re.match(rf"\s*{stem}", said[one.end :], re.IGNORECASE)
        and re.search(r"\b(?:which|that) (?:is|equals|makes)\s*$", said[: one.start])
    ]
    return again[-1] if again else found


def same(one: str, other: str, tolerance: int = TOLERANCE) -> bool:
    """Whether two canonical forms are the same value: decimals up to a part in `tolerance` of their size.

    A time without a.m. or p.m. may be either.
    """
    if one == other:
        return True
    if ":" in one and ":" in other:
        early, late = sorted((one, other), key=lambda text: (int(text.split(":")[0]), text))
        hours, minutes = early.split(":")
        return late in (f"{hours}:{minutes} am", f"{int(hours) + 12}:{minutes}")
    if ":" in one + other or "/" not in one or "/" not in other:
        return False
    x, y = Fraction(one), Fraction(other)
    return abs(x - y) <= max(abs(x), abs(y)) / tolerance


def grade(problem: Problem, text: str) -> Grade:
    """Right if and only if the extracted number equals the gold answer.

    "1.5 million" is right for 1500000 and, since a question may ask for millions, for 1.5.
    """
    gold = canonical(problem.answer)
    text = without_question(text, problem.question)
    found, rule = _extracted(text)
    found = _in_unit(found, problem.question, text) if found else None
    parsed = found.scaled if found else None
    if gold is not None and found and found.scale and found.value and same(found.value, gold):
        parsed = gold
    right = parsed is not None and gold is not None and same(parsed, gold)
    return Grade(parsed, float(right), rule, f"{parsed or 'no number'} against {gold}")
