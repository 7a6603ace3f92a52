r"""Grade a response whose answer is one of several options.

    "Therefore the answer is (B)."              "B"    marked
    "Answer: the Nile"    (C is "The Nile")     "C"    marked, option text
    "**B. Paris**"                              "B"    last line
    "Both A and B are right. Answer: A or B"    None   marked: two options

A problem's options are in `meta["choices"]`, in order A, B, ...; where there are none, they are read from the
question's "(A) ..." lines. The gold answer is a letter, bare or in brackets, or an option's text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from teamtune.grading import number
from teamtune.grading.extract import TAIL, final, last_line, unwrapped
from teamtune.types import Grade, Problem

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_OPTION = re.compile(r"(?:^|[\n\t ])\(?([A-Z])[).:][ \t]+(.*?)(?=[\n\t ]\(?[A-Z][).:][ \t]|\n|$)")
_BRACKETED = re.compile(r"[(\[{]\s*([A-Za-z])\s*[)\]}]")
_NAMED = re.compile(r"\b(?:option|choice|letter)\s+[\"'*(]*([A-Za-z])\b", re.IGNORECASE)
_LEADING = re.compile(r"([A-Z])(?:\s*[.):\-\u2013,;]|\s*$)")
# "A" before a word may be an article and "I" a person: "A man", "I think".
_BARE = re.compile(r"(?<![\w'\u2019])(?![AI]\s+(?!or\b|and\b|to\b|through\b)[a-z']|I['\u2019])([A-Z])(?![\w'\u2019])")
_BESIDE = re.compile(r"(?:\b(?:or|and)|[,/])\s*\(?([a-z])\)?\W*$")
_HEDGE = re.compile(r"\b(?:or|perhaps|maybe|possibly|either)\b", re.IGNORECASE)
_REASON = re.compile(r"[,;.]?\s+(?:since|because|as|while|whereas|but not|and not)\b.*", re.IGNORECASE | re.DOTALL)
_CLEAR = re.compile(r"\W*(?:option\s+|choice\s+)?(?:[(\[][A-Za-z][)\]]|[A-Z][.):]|[A-Z]\W*$)", re.IGNORECASE)
_ONE = r"(?:option\s+|choice\s+)?[(\"'*]*\b([A-Z])\b[)\"'*]*"
_THEN = r"(?:so|therefore|thus|hence)"
_SAID = re.compile(
    rf"\b(?:must be|choose|pick|select|go with|going with|{_THEN})[,:]?\s+(?:it is\s+)?{_ONE}\W*$"
    rf"|^(?:{_THEN}[,:]?\s+)?{_ONE}\s+is\s+(?:the\s+)?(?:correct|right|best)\b",
    re.IGNORECASE,
)
_NO = r"(?:not|n't|never|rather than|instead of|anything but|eliminates?|than)"
_DENIAL = re.compile(r"\b(?:not|never|rather than|instead of|anything but)\b|n['\u2019]t\b", re.IGNORECASE)
_NOT = re.compile(
    rf"{_NO}\s+{_ONE}(?!\w)|{_ONE}(?:\s+and\s+{_ONE})?\s+(?:(?:is|are|was)\s+(?:wrong|incorrect|false|not\b)|isn't\b)[^,.;]*",
    re.IGNORECASE,
)


def options(problem: Problem) -> list[str]:
    """The option texts of a problem, in order."""
    given = problem.meta.get("choices")
    if given:
        return list(given)[: len(LETTERS)]
    found = _OPTION.findall(problem.question)
    return [text.strip() for letter, text in found if letter in LETTERS] if _in_order(found) else []


def _in_order(found: Sequence[tuple[str, str]]) -> bool:
    return [letter for letter, _ in found] == list(LETTERS[: len(found)])


def normal(text: str) -> str:
    """A text without case, punctuation at its ends, articles at its beginning and repeated spaces."""
    words = re.sub(r"\s+", " ", unwrapped(text)).casefold().strip(" .,;:!?\"'()[]")
    return re.sub(r"^(?:the|an|a) (?=\S)", "", words)


def letter_in(answer: str, texts: Sequence[str]) -> tuple[str | None, str]:
    """The letter that an answer names, or None where it names none or several; and how it was read."""
    allowed = LETTERS[: len(texts)] if texts else LETTERS
    bare = unwrapped(answer).replace("\N{MINUS SIGN}", "-")
    plain = re.sub(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}", r"\1", bare)
    plain = re.sub(r"\\[a-zA-Z]+|[*_`$\\]", "", plain).strip()
    alone = re.fullmatch(r"\W*([A-Za-z])\W*", plain)
    if alone and alone[1].upper() in allowed:
        return alone[1].upper(), "letter"
    for form in (normal, _value):
        said = form(bare if form is _value else plain)
        same = [LETTERS[i] for i, text in enumerate(texts) if said and form(text) == said]
        if len(same) == 1:
            return same[0], "option text"
    plain = _NOT.sub(" ", _REASON.sub("", plain) if _LEADING.match(plain) else plain)
    for pattern in (_BRACKETED, _NAMED):
        named = {letter.upper() for letter in pattern.findall(plain)} & set(allowed)
        if named:
            return _only(named, plain, allowed, texts)
    leading = _LEADING.match(plain)
    if leading and leading[1] in allowed:
        return _only({leading[1]}, plain[leading.end() :], allowed, texts)
    bare_letters = set(_BARE.findall(plain)) & set(allowed)
    return _only(bare_letters, plain, allowed, texts) if bare_letters else _by_text(plain, texts)


def _only(named: set[str], text: str, allowed: str, texts: Sequence[str]) -> tuple[str | None, str]:
    """The one letter that is named, where the text puts no other beside it."""
    letter = min(named)
    own = texts[LETTERS.index(letter)] if LETTERS.index(letter) < len(texts) else ""
    rest = re.sub(re.escape(own), " ", text, flags=re.IGNORECASE) if own else text
    beside = {found.upper() for found in _BESIDE.findall(rest)} & set(allowed)
    others = (named | beside | set(_BARE.findall(rest)) & set(allowed)) - {letter}
    hedged = _HEDGE.search(rest) and _by_text(rest, texts)[0] not in (None, letter)
    return (letter, "letter") if not others and not hedged else (None, "several options")


def _value(text: str) -> str | None:
    """An option that is a number, in canonical form: "0.25" and ".25", "1,000" and "1000"."""
    return number.canonical(text) if re.fullmatch(r"[^a-zA-Z]*(?:\\[dt]?frac[^a-zA-Z]*)?", text) else None


def _by_text(answer: str, texts: Sequence[str]) -> tuple[str | None, str]:
    """The one option whose text stands in the answer; a text that is part of another one found does not count."""
    words = lambda text: re.sub(r"[^\w%$./-]+", " ", text).strip()  # noqa: E731
    denial = _DENIAL.search(answer)
    if denial and not any(_DENIAL.search(text) for text in texts):
        before = answer[: denial.start()].strip()
        return _by_text(before, texts) if before else (None, "an option denied")
    said = f" {words(answer.casefold())} "
    forms = {LETTERS[i]: words(normal(text)) for i, text in enumerate(texts)}
    found = {
        letter: form
        for letter, form in forms.items()
        if form and re.search(rf"(?<!\S){re.escape(form)}(?=[\s.])", said)
    }
    longest = {a for a in found if not any(found[a] != found[b] and found[a] in found[b] for b in found)}
    if len(longest) == 1:
        return longest.pop(), "option text"
    return None, "several options" if longest else "no option"


def extract(text: str, texts: Sequence[str]) -> tuple[str | None, str]:
    """The letter that a response settles on, and the rule that found it.

    Without a mark, only a line that is clearly an option counts: alone, bracketed, with its text, or said to be right.
    """
    lines = [line.strip() for line in text[-TAIL:].split("\n") if line.strip()]
    found = final(text)
    if found:
        letter, how = letter_in(found.text, texts)
        below = re.fullmatch(r"\W*([A-Z])\W*", lines[-1]) if found.rule == "marked" and len(lines) > 1 else None
        if below and letter and below[1] != letter:
            return None, "marked, and another option below"
        return letter, f"{found.rule}, {how}"
    if len(lines) > 1 and _CLEAR.match(lines[-1]) and _CLEAR.match(lines[-2]):
        return None, "a list of options"
    for name, line in (("last line", last_line(text)), ("first line", text[:200].strip().split("\n")[0])):
        said = _SAID.search(_NOT.sub(" ", line))
        if said and (said[1] or said[2]).upper() in (LETTERS[: len(texts)] or LETTERS):
            return (said[1] or said[2]).upper(), f"{name}, letter"
        if _CLEAR.match(line) or normal(line) in map(normal, texts):
            letter, how = letter_in(line, texts)
            return letter, f"{name}, {how}"
    return None, "nothing found"


def gold_letter(problem: Problem, texts: Sequence[str]) -> str | None:
    """The letter of the right option."""
    letter = re.fullmatch(r"\W*([A-Za-z])\W*", problem.answer)
    if letter and letter[1].upper() in (LETTERS[: len(texts)] if texts else LETTERS):
        return letter[1].upper()
    same = [LETTERS[i] for i, text in enumerate(texts) if normal(text) == normal(problem.answer)]
    return same[0] if len(same) == 1 else None


def grade(problem: Problem, text: str) -> Grade:
    """Right if and only if the response settles on the right option."""
    texts = options(problem)
    gold = gold_letter(problem, texts)
    letter, rule = extract(text, texts)
    return Grade(letter, float(letter is not None and letter == gold), rule, f"{letter or 'no option'} against {gold}")
