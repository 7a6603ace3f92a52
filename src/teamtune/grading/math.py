r"""Grade a response whose answer is mathematics in LaTeX: fractions, roots, intervals, sets, tuples, matrices, texts.

    "so $x = \boxed{\frac{6}{5}}$"      gold "\frac65"           equal texts
    "The answer is $0.5$."              gold "\frac{1}{2}"       equal numbers
    "\boxed{(5.5, -1.0, 1.0)}"          gold "\left( \frac{11}{2}, -1, 1 \right)"    math-verify
    "\boxed{x \in [-2,7]}"              gold "x \in [-2,7]"      equal texts

Rules in order: equal after LaTeX that carries no meaning is taken out; equal as numbers; equal as math-verify sees it,
in a process of its own with limits of time and memory (`workers.py`). Rounded decimals are not equal to closed forms.
"""

from __future__ import annotations

import re

from teamtune.grading import number
from teamtune.grading.extract import Found, final, last_line, unwrapped, without_question
from teamtune.grading.workers import shared
from teamtune.types import Grade, Problem

LONGEST = 500  # an answer longer than this is not compared as mathematics

_CLEAN = [
    (re.compile(pattern), by)
    for pattern, by in (
        (r"\\(?:left|right|displaystyle|textstyle|limits|big|Big|bigg|Bigg)(?![a-zA-Z])", ""),
        (r"\\[!,;:]|\\ |~|\\q?quad(?![a-zA-Z])", ""),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\{,\}", ","),
        (r"\\(?:text(?:bf|it|rm|normal)?|math(?:rm|bf)|operatorname|[mh]box)\s*\{([^{}]*)\}", r"\1"),
        (r"\^\s*\{?\s*\\circ\s*\}?|\u00b0|\\degree(?![a-zA-Z])", ""),
        (r"\\[%$]|[%$]", ""),
        (r"\\(?:leq)(?![a-zA-Z])", r"\\le"),
        (r"\\(?:geq)(?![a-zA-Z])", r"\\ge"),
        (r"\N{MINUS SIGN}", "-"),
        (r"\\infty(?![a-zA-Z])|\binfinity\b", "\u221e"),
        (r"\\frac\s*\{([^{}]*)\}\s*(\w)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\w)\s*\{", r"\\frac{\1}{"),
        (r"\\frac\s*(\w)\s*(\w)", r"\\frac{\1}{\2}"),
        (r"\\sqrt\s*(\w)", r"\\sqrt{\1}"),
        (r"\s+", ""),
    )
]
_NAME = re.compile(r"[a-zA-Z]\s*(?:=|\\in(?![a-zA-Z]))\s*(?=[^=]*$)")
_UNIT = re.compile(
    r"(?<=[\d})])\s*\\?(?:text|mathrm|mbox|,)?\s*\{?\s*\b(?:square |cubic |sq\.? )?(?:units?|inch(?:es)?|in|"
    r"feet|foot|ft|"
    r"yards?|yd|miles?|mi|meters?|centimeters?|cm|mm|km|kilometers?|degrees?|dollars?|cents?|hours?|hr|minutes?|min|"
    r"seconds?|sec|days?|weeks?|months?|years?|mph|pounds?|lbs?|ounces?|oz|grams?|kg|liters?|gallons?|"
    r"per \w+|students?|people|ways|points?|percent)\b\.?\s*\}?(?:\s*\^\s*\{?[23]\}?)?\s*$"
)
# Units by their size, so that "5 cm" is not "5 m"; others may be left out or said otherwise.
_SIZES = {
    word: size
    for size, words in enumerate(
        (
            "inch inches in|feet foot ft|yard yards yd|mile miles mi|meter meters m|centimeter centimeters cm|mm|"
            "kilometer kilometers km|dollar dollars|cent cents|hour hours hr|minute minutes min|second seconds sec|"
            "day days|week weeks|month months|year years|pound pounds lb lbs|ounce ounces oz|gram grams g|kg|"
            "liter liters|gallon gallons"
        ).split("|")
    )
    for word in words.split()
}
_PLAIN_NAME = re.compile(
    r"(?:\([a-z](?:,[a-z])*\)|\\?[a-zA-Z]+|\\?[a-zA-Z]\w*|\\(?:text|mathrm|angle|triangle)\s*\{?\s*[\w ]+\}?)"
    r"(?:_\{?\w+\}?|'|\([^()=]*\)|\[[^\[\]=]*\])*"
)
_IRRATIONAL = re.compile(r"\\(?:sqrt|pi|log|ln|sin|cos|tan|e\b)|\u221a|\u03c0|\be\^")
_DECIMAL = re.compile(r"-?\d*\.\d+")
_FORMULA = re.compile(r"(?<!\\)\$([^$\n]{1,500})\$|\\\(([^\n]{1,500}?)\\\)")


def normal(answer: str) -> str:
    """LaTeX without what carries no meaning: spaces, sizes, units, degree and percent signs, a leading "x ="."""
    text = _UNIT.sub("", unwrapped(answer))
    for pattern, by in _CLEAN:
        text = pattern.sub(by, text)
    text = _NAME.sub("", text, count=1) if _NAME.match(text) else text
    return text.rstrip(".,;:")


def extract(text: str) -> Found | None:
    """The answer as it is written: boxed or marked, else the last formula or number of the last line."""
    found = final(text)
    if found:
        return Found(said(found.text), found.rule)
    line = last_line(text)
    formulas = list(_FORMULA.finditer(line))
    if formulas:
        beside = len(formulas) > 1 and line[formulas[-2].end() : formulas[-1].start()].strip(" ,").lower() == "or"
        return Found("" if beside else unwrapped(formulas[-1][1] or formulas[-1][2]), "last formula")
    value, rule = (None, "") if "\\" in line else number.extract(line)
    return Found(value, rule) if value is not None else None


def said(answer: str) -> str:
    """What a sentence says the answer is: "the number is 202" says 202; what is no sentence is left as it is."""
    bare = re.sub(r"\\[a-zA-Z]+\s*\{[^{}]*\}|\\[a-zA-Z]+|\$[^$]*\$", " ", answer)
    if len(re.findall(r"(?<![\w{])[a-z]{2,}(?![\w}])", bare)) < 2:
        return answer
    leading = re.match(r"\$?(-?[\d.,]+)\$?,? (?:since|because|as|which)\b", answer)
    if leading:
        return leading[1].rstrip(",.")
    tail = re.split(r"\b(?:is|are|equals|be|equal to)\b(?![^$]*\$[^$]*(?:\$[^$]*\$[^$]*)*$)", answer)[-1].strip()
    formulas = _FORMULA.findall(tail)
    if formulas:
        return unwrapped(next(filter(None, formulas[-1])))
    value = number.settled(tail)
    return value if value is not None else tail


def equal(gold: str, answer: str, question: str = "") -> tuple[bool, str]:
    """Whether two answers are the same, and why. Symmetric; never raises.

    An equation may say what the question asks for: "24x - 14y = 38" where "What is 24x - 14y?".
    """
    if max(len(gold), len(answer)) > LONGEST:
        return False, "too long to compare"
    sides = _sides(gold, answer, normal(question))
    if sides is None:
        return False, "an equation against a value"
    one, other = sides
    x, y = normal(one), normal(other)
    if not x or not y:
        return False, "no answer"
    told = _unlike(one, other)
    if told:
        return False, told
    if x == y or (x.casefold() == y.casefold() and re.fullmatch(r"[A-Za-z().]{3,}", x)):
        return True, "equal texts"
    a, b = _number(one), _number(other)
    if a is not None and b is not None:
        # 0.333333 is 1/3 rounded; 0.3333333333333333 is what a program prints for it.
        mixed = ("." in x) != ("." in y)
        return number.same(a, b, 10**9 if mixed else number.TOLERANCE), f"numbers {b} and {a}"
    if not re.search(r"[\d\\+\-*/^=(\[]", x + y) and max(len(x), len(y)) > 2:
        return False, "different texts"
    first, second = sorted((stripped(one), stripped(other)))
    return shared().compare(first, second)


def _sides(one: str, other: str, asked: str = "") -> tuple[str, str] | None:
    """Two answers to compare: the right side of "x = 5" or "2 + 3 = 5" where the other one is no equation.

    None where the equation gives no value ("2x = 5") or is wrong ("6 = 5").
    """
    if ("=" in one) == ("=" in other):
        return _bare_list(one), _bare_list(other)
    equation, value = (one, other) if "=" in one else (other, one)
    listed = _bare_list(equation)
    if listed != equation:
        right = listed
    else:
        left, *rest = (part.strip() for part in unwrapped(equation).split("="))
        right = rest[-1]
        named = all(_PLAIN_NAME.fullmatch(part) for part in normal(left).split("+"))  # x, f(3), a+b
        named = named or (len(normal(left)) > 1 and normal(left) in asked)
        if len(rest) > 3 or not (named or shared().compare(*sorted((stripped(left), stripped(right))))[0]):
            return None
    return (right, value) if "=" in one else (value, right)


def _bare_list(answer: str) -> str:
    """ "x = 1, x = 2" as "1, 2"; anything else as it is."""
    parts = [part.split("=") for part in unwrapped(answer).split(",")]
    if len(parts) < 2 or any(len(part) != 2 for part in parts) or len({part[0].strip() for part in parts}) > 1:
        return answer
    return ",".join(part[1] for part in parts)


def _unlike(one: str, other: str) -> str:
    """Why two answers cannot be the same whatever their values: sets and intervals, units, bases, rounded decimals."""
    x, y = (unwrapped(answer).replace(r"\left", "").strip() for answer in (one, other))
    if {x[:2] == r"\{", y[:2] == r"\{"} == {True, False} and (x[:1] in "([" or y[:1] in "(["):
        return "a set against an interval or a tuple"
    sizes = [_SIZES.get(_unit(answer)) for answer in (one, other)]
    if None not in sizes and sizes[0] != sizes[1]:
        return "different units"
    bases = [re.findall(r"_\{?(\d+)\}?$", answer) for answer in (x, y)]
    if all(bases) and bases[0] != bases[1]:
        return "different bases"
    for decimal, closed in ((x, y), (y, x)):
        if _DECIMAL.fullmatch(normal(decimal)) and _IRRATIONAL.search(closed):
            return "a rounded decimal against a closed form"
    return ""


def _unit(answer: str) -> str:
    """The unit at the end of an answer, as it is written."""
    bare = re.sub(r"\\(?:text|mathrm|mbox)|[{}$\\]|\^\s*[23]", " ", unwrapped(answer)).split()
    return bare[-1].lower().rstrip(".") if len(bare) > 1 else ""


def stripped(answer: str) -> str:
    """An answer as math-verify should read it: without wrapping, units and dollar signs."""
    bare = re.sub(r"\\[$%]|\$", "", _UNIT.sub("", unwrapped(answer)))
    return re.sub(r"(\d)\s*\((?=-?\d+\))", r"\1 \\cdot (", bare)


def _number(answer: str) -> str | None:
    """The canonical form of an answer that is one plain number, with its unit at most."""
    bare = _UNIT.sub("", number.plain(unwrapped(answer))).strip(" $%{}")
    bare = re.sub(r"\^\s*\\circ|^[a-zA-Z]\s*=", "", bare).strip()
    bare = re.sub(r"^\((\d+)\)$", r"\1", bare)
    if not re.fullmatch(r"-?\s*\$?\s*[\d.,]+(?:\s+\d+)?(?:\s*/\s*\d+)?|-?[\d.]+[eE][+-]?\d+", bare):
        return None
    if re.search(r"\d,(?!\d{3}(?!\d))", bare):  # "1,2" is a list
        return None
    return number.settled(bare.replace("- ", "-"))


def grade(problem: Problem, text: str) -> Grade:
    """Right if and only if the response's answer equals the gold answer. `parsed` is the gold answer's form if so."""
    found = extract(without_question(text, problem.question))
    if found is None or not found.text:
        return Grade(None, 0.0, found.rule if found else "nothing found", "no answer")
    right, reason = equal(problem.answer, found.text, problem.question)
    known = _number(problem.answer) or normal(problem.answer)
    parsed = known if right else _number(found.text) or normal(found.text)
    if parsed == known and not right:  # 5 inches where it is 5 cm: what tells them apart was left out
        parsed = " ".join(unwrapped(found.text).split())
    return Grade(parsed[:LONGEST] or None, float(right), found.rule, reason)
