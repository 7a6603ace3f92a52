r"""Grade a response whose answer is a number.

    "7 * 23 = 161\n...\nAnswer: 52."          "52"      marked
    "The answer is 80 + 150 = $1,230.50"      "2461/2"  marked
    "so it is \boxed{3\frac{1}{2}} hours"     "7/2"     boxed
    "It took 2.5e3 s, in all 2500 seconds"    "2500"    last number
    "Answer: 3 or 4"                          None      marked

Canonical form: an integer without separators or a reduced fraction, and hours and minutes for a time of day
("4:30 p.m." is "16:30"). Currency, percent signs and units are dropped: "25%" and "25" are the same.
"""

from __future__ import annotations

import re
from fractions import Fraction

from teamtune.grading.extract import TAIL, final
from teamtune.types import Grade, Problem

# A minus is a sign only right before its number and not right after another: "10 - 3" and "10-3" end in 3.
_NUMBER = re.compile(
    r"(?P<sign>(?:(?<![\w.)])-)?)[$\u00a3\u20ac]?(?P<minus>-?)"
    r"(?P<body>(?:\d{1,3}(?:[, ]\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
    r"(?P<power>[eE][+-]?\d{1,3}(?!\w)|\s?\*\s?10\s?(?:\^|\*\*)\s?[{(]?[+-]?\d{1,3}[)}]?)?"
    r"(?:(?P<part>\s\d{1,9})?\s?/\s?(?P<over>\d{1,400}))?"
    r"(?P<time>:[0-5]\d(?:\s?(?P<half>[ap])\.?m\b)?)?",
    re.IGNORECASE,
)
_ANY = re.compile(rf"(?<![\w.]){_NUMBER.pattern}", re.IGNORECASE)
_LIST = re.compile(r"#(?:\s*[^\W\d_]{1,12})?(?:\s*(?:,|;|\||\bor\b|\band\b)+\s*#(?:\s*[^\W\d_]{1,12})?)+[\s.]*")
_ROW = re.compile(r"\W*#(?:[\s,;|]+(?:and|or)?\s*#){2,}[\s.,;]*")
_EITHER = re.compile(r"\s*(?:[^\W\d_]{1,12}\s+)?(?:or|\|)\s+$", re.IGNORECASE)
_EXPRESSION = re.compile(r"[^=]*=\s*")

_SAYS = re.compile(
    r"\b(?:is|are|was|were|be|has|have|had|left|get|gets|makes?|so|total)\b[^\n]*\d|(?:\n|[.!?]\s)[^\n]*\d",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"^[ \t]*(?:#+[ \t]*)?(?:step[ \t]*)?\d{1,3}[.):][ \t]", re.IGNORECASE | re.MULTILINE)

_CLEAN = [
    (re.compile(pattern), by)
    for pattern, by in (
        ("\N{MINUS SIGN}", "-"),
        (r"\{,\}", ","),
        (r"\\[,!;:]|\\ |(?<=\d)[\u00a0\u2009\u202f](?=\d{3})", ""),
        (r"\\([$%&])", r"\1"),
        (r"\\times|\\cdot|\u00d7", "*"),
        (r"\\approx|\u2248", "="),
        (r"\\[dt]?frac\s*\{\s*(-?\d{1,99})\s*\}\s*\{\s*(\d{1,99})\s*\}", r" \1/\2"),
        (r"\\[dt]?frac\s*(\d)\s*(\d)", r" \1/\2"),
        (r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}", r" \1 "),
        (r"(?<![\d)])\*\*|\*\*(?![\d(])", ""),
    )
]
_NAMES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_WORDS = {word: str(value) for value, word in enumerate(_NAMES.split())}
DIGITS = 400  # a longer number is none: its value would take long to compute


def plain(text: str) -> str:
    """Numbers in LaTeX and typographic dress, in plain characters."""
    for pattern, by in _CLEAN:
        text = pattern.sub(by, text)
    return text


def _value(match: re.Match[str]) -> str | None:
    """The canonical form of a matched number, None where it is too long or divides by zero."""
    body = re.sub(r"[, ]", "", match["body"])
    if match["time"]:
        return _time(body, match["time"][1:3], (match["half"] or "").lower())
    whole, _, decimals = body.partition(".")
    power = int(re.sub(r"^[eE]|.*[\^*]\s?[{(]?|[)}]", "", match["power"])) if match["power"] else 0
    if max(len(whole), len(decimals), abs(power)) > DIGITS:
        return None
    number = Fraction(body if whole else f"0{body}") * Fraction(10) ** power
    if match["over"]:
        over = int(match["over"])
        if over == 0:
            return None
        number = number + Fraction(int(match["part"]), over) if match["part"] else number / over
    return str(-number if match["sign"] or match["minus"] else number)


def _time(hours: str, minutes: str, half: str) -> str | None:
    if not hours.isdigit() or int(hours[:4]) > 24:
        return None
    if half == "p":
        return f"{int(hours) % 12 + 12}:{minutes}"
    return f"{int(hours) % 12}:{minutes} am" if half == "a" else f"{int(hours)}:{minutes}"


def canonical(text: str) -> str | None:
    """The canonical form of one written number, with or without unit; None where it is none or several."""
    return settled(text) if len(text) <= 2 * DIGITS else None


def settled(answer: str) -> str | None:
    """The number that an answer settles on: the result of a calculation, else its first number.

    None where there is no number, or a list of several.
    """
    text = plain(answer)
    found = list(_ANY.finditer(text))
    if not found:
        word = re.match(r"\W*([a-z]+)\b", text.lower())
        return _WORDS.get(word[1]) if word else None
    if _several(text, found):
        return None
    first = found[0]
    equals = text.find("=")
    # "80 + 150 = 230" and "x = 3": what comes before an equals sign is no answer, unless it is one: "5, as 2 + 3 = 5".
    if equals >= 0 and (
        first.start() > equals or re.fullmatch(r"[\s\d.,()$%]*[+\-*/^][\s\d.,+\-*/()$%^]*", text[:equals])
    ):
        last = equals
        while (after := re.match(r"=[\s\d.,+\-*/()$%^]*(?==)", text[last:])) is not None:
            last += after.end()
        first = next((match for match in found if match.start() > last), first)
    return _value(first)


def _several(text: str, found: list[re.Match[str]]) -> bool:
    """Whether a list of numbers is given where one is asked for."""
    if len(found) < 2 or len({_value(match) for match in found}) == 1:
        return False
    if _EITHER.fullmatch(text[found[0].end() : found[1].start()]):
        return True
    return bool(_LIST.fullmatch(_ANY.sub("#", text).strip()))


def extract(text: str) -> tuple[str | None, str]:
    """The number that a response settles on, in canonical form or None, and the rule that found it."""
    found = final(text)
    if found:
        return settled(found.text), found.rule
    tail = _NUMBERED.sub("", plain(text[-TAIL:]))
    matches = list(_ANY.finditer(tail))
    if not matches:
        return None, "nothing found"
    line = tail[tail.rfind("\n", 0, matches[-1].start()) + 1 :]
    if _ROW.fullmatch(_ANY.sub("#", line).strip()):
        return None, "last number"
    # "120/24 = 5 hours to read 120 pages": the result of the line's last calculation, where nothing is said of another.
    results = [match for match in matches if re.search(r"=[\s<$]*$", tail[: match.start()][-8:])]
    if results and not _SAYS.search(tail, results[-1].end()):
        return _value(results[-1]), "last result"
    return _value(matches[-1]), "last number"


def same(one: str, other: str) -> bool:
    """Whether two canonical forms are the same value: decimals up to five millionths of their size.

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
    return abs(x - y) <= max(abs(x), abs(y)) / 200_000


def grade(problem: Problem, text: str) -> Grade:
    """Right if and only if the extracted number equals the gold answer."""
    gold = canonical(problem.answer)
    parsed, rule = extract(text)
    right = parsed is not None and gold is not None and same(parsed, gold)
    return Grade(parsed, float(right), rule, f"{parsed or 'no number'} against {gold}")
