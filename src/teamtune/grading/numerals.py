r"""Numbers as they are written, read one by one.

    "$1,230.50"           2461/2           "\frac{3}{4}"      3/4            "-\frac12"       -1/2
    "3\frac{1}{2}"        7/2              "1.2 \times 10^3"  1200           "1.5 million"    3/2, scale 6
    "twenty-five"         25               "4:30 p.m."        16:30          "2\sqrt{3}"      not read: it goes on

Currency, percent signs and units are no part of a number: "25%" reads 25.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

DIGITS = 400  # a longer number is none: its value would take long to compute

# A minus is a sign only right before its number and not right after another: "10 - 3" and "10-3" end in 3.
_NUMBER = re.compile(
    r"(?<![\w.])(?P<sign>(?:(?<![\w.)])-)?)[$\u00a3\u20ac]?(?P<minus>-?)"
    r"(?P<body>(?:\d{1,3}(?:[, ]\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
    r"(?P<power>[eE][+-]?\d{1,3}(?!\w)|\s?\*\s?10\s?(?:\^|\*\*)\s?[{(]?[+-]?\d{1,3}[)}]?)?"
    r"(?:(?P<part>\s\d{1,9})?\s?/\s?(?P<over>\d{1,400}))?"
    r"(?P<time>:[0-5]\d(?:\s?(?P<half>[ap])\.?m\b)?)?"
    r"(?:[ -]?(?P<scale>hundred|thousand|million|billion|trillion)\b|(?P<k>k)(?![a-z]))?",
    re.IGNORECASE,
)
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
# "2x", "2^{10}", "2\pi" and "2e1000" are not the number 2.
_GOES_ON = re.compile(
    r"\s?(?:\^|\*\*|\\(?:sqrt|pi|log|ln|sin|cos|tan)|\u03c0|\u221a)|[xyzn](?![a-z])|e\d|\(|_", re.IGNORECASE
)

_CLEAN = [
    (re.compile(pattern, re.IGNORECASE), by)
    for pattern, by in (
        (r"\^\s*\{?\s*\\circ\s*\}?|\\degree\b|\u00b0", ""),
        (r"\N{MINUS SIGN}|(?<![\w.)\u2013])\u2013(?=[\d.$\\])", "-"),
        (r"(?<![\w)] )(?<!\w)(?:minus|negative)\s+(?=[\d.$\\])|(?<=\bis )(?:minus|negative)\s+(?=[\d.$\\])", "-"),
        (r"-\s*\(\s*(\d[\d.,]*)\s*\)", r"-\1"),
        (r"\{,\}", ","),
        (r"\\[,!;:]|\\ |(?<=\d)[\u00a0\u2009\u202f](?=\d{3})", ""),
        (r"\\([$%&])", r"\1"),
        (r"\b(?:USD|EUR|GBP|Rs\.?)\s?(?=\d)", ""),
        (r"\\times|\\cdot|\u00d7|(?<=\d)\s+x\s+(?=\d)", "*"),
        (r"\u00bd", " 1/2"),
        (r"\u00bc", " 1/4"),
        (r"\u00be", " 3/4"),
        (r"\\approx|\u2248", "="),
        (r"\\[dt]?frac\s*\{\s*(\d{1,99})\s*\}\s*\{\s*-\s*(\d{1,99})\s*\}", r"\\frac{-\1}{\2}"),
        (r"(?<=\d)\s*\\[dt]?frac\s*\{\s*(\d{1,99})\s*\}\s*\{\s*(\d{1,99})\s*\}", r" \1/\2"),
        (r"\\[dt]?frac\s*\{\s*(-?\d{1,99})\s*\}\s*\{\s*(\d{1,99})\s*\}", r"\1/\2"),
        (r"(?<=\d)\s*\\[dt]?frac\s*(\d)\s*(\d)", r" \1/\2"),
        (r"\\[dt]?frac\s*(\d)\s*(\d)", r"\1/\2"),
        (r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}", r" \1 "),
        (r"(?<![\d)])\*\*|\*\*(?![\d(])", ""),
    )
]

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {word: value for value, word in enumerate(_SMALL.split())} | {
    word: 10 * value for value, word in enumerate(_TENS.split(), start=2)
}
_PARTS = re.compile(r"(?:half|halves|quarters?|.*(?:th|ths|rd|rds))$")


@dataclass(frozen=True, slots=True)
class Numeral:
    """A number in a text: where it stands, and its value in canonical form."""

    start: int
    end: int
    value: str | None
    """An integer, a reduced fraction, or a time; None where it is too long, divides by zero, or goes on."""
    scale: int = 0
    """Powers of ten said in words and not in `value`: "1.5 million" is 3/2 with scale 6."""

    @property
    def scaled(self) -> str | None:
        if self.value is None or not self.scale:
            return self.value
        return str(Fraction(self.value) * 10**self.scale)


def plain(text: str) -> str:
    """Numbers in LaTeX and typographic dress, in plain characters."""
    for pattern, by in _CLEAN:
        text = pattern.sub(by, text)
    return text


def numerals(text: str) -> list[Numeral]:
    """All numbers of a plain text, in order."""
    return [_numeral(match, text) for match in _NUMBER.finditer(text)]


def _numeral(match: re.Match[str], text: str) -> Numeral:
    scale = _SCALES[match["scale"].lower()] if match["scale"] else 3 * bool(match["k"])
    goes_on = _GOES_ON.match(text, match.end()) is not None
    value = None if goes_on or (scale and match["time"]) else _value(match)
    return Numeral(match.start(), match.end(), value, scale)


def _value(match: re.Match[str]) -> str | None:
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


def spelled(text: str) -> str | None:
    """The number that a text begins with in words, "twenty-five"; None for parts ("two thirds") and where there is
    none."""
    total = group = 0
    found = False
    for word in re.findall(r"[a-z]+", text[:200].lower()):
        if word in _WORDS:
            group, found = group + _WORDS[word], True
        elif word == "hundred" and found:
            group *= 100
        elif word in _SCALES and found:
            total, group = total + group * 10 ** _SCALES[word], 0
        elif word != "and" or not found:
            if found and _PARTS.match(word):
                return None
            break
    return str(total + group) if found else None
