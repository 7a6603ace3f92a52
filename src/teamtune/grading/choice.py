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

from teamtune.grading.extract import TAIL, final, last_line, unwrapped
from teamtune.types import Grade, Problem

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_OPTION = re.compile(r"(?:^|[\n\t ])\(?([A-Z])[).:][ \t]+(.*?)(?=[\n\t ]\(?[A-Z][).:][ \t]|\n|$)")
_BRACKETED = re.compile(r"[(\[{]\s*([A-Za-z])\s*[)\]}]")
_NAMED = re.compile(r"\b(?:option|choice|letter)\s+[\"'*(]*([A-Za-z])\b", re.IGNORECASE)
_LEADING = re.compile(r"([A-Z])(?:\s*[.):\-\u2013,;]|\s*$)")
_BARE = re.compile(r"(?<![\w'\u2019])([A-Z])(?![\w'\u2019])")
_BEST = re.compile(
    r"\b(?:best|correct|right|closest)\s+(?:option|choice|answer)\s*(?:is|would be|:)\s*(?P<answer>[^\n]{1,400})",
    re.IGNORECASE,
)
_CLEAR = re.compile(r"\W*(?:option\s+|choice\s+)?(?:[(\[][A-Za-z][)\]]|[A-Z][.):]|[A-Z]\W*$)", re.IGNORECASE)
_NOT = re.compile(
    r"\b(?:not|rather than|instead of|eliminates?|than)\s+(?:option\s+|choice\s+)?[(\"']*[A-Za-z][)\"']*(?!\w)"
)


def options(problem: Problem) -> list[str]:
    """The option texts of a problem, in order."""
    given = problem.meta.get("choices")
    if given:
        return list(given)
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
    plain = re.sub(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}", r"\1", unwrapped(answer))
    plain = re.sub(r"\\[a-zA-Z]+|[*_`$\\]", "", plain).strip()
    alone = re.fullmatch(r"\W*([A-Za-z])\W*", plain)
    if alone and alone[1].upper() in allowed:
        return alone[1].upper(), "letter"
    same = [LETTERS[i] for i, text in enumerate(texts) if normal(text) == normal(plain)]
    if len(same) == 1:
        return same[0], "option text"
    plain = _NOT.sub(" ", plain)
    for pattern in (_BRACKETED, _NAMED):
        named = {letter.upper() for letter in pattern.findall(plain)} & set(allowed)
        if named:
            others = set(_BARE.findall(plain)) & set(allowed) - {"A", "I"}
            return (named.pop(), "letter") if len(named | others) == 1 else (None, "several options")
    leading = _LEADING.match(plain)
    if leading and leading[1] in allowed:
        rest = set(_BARE.findall(plain[leading.end() :])) & set(allowed) - {leading[1], "A", "I"}
        return (leading[1], "letter") if not rest else (None, "several options")
    bare = set(_BARE.findall(plain)) & set(allowed)
    sure = bare - {"A", "I"}  # "A" may be an article and "I" a person
    if len(sure) == 1 and (bare == sure or not re.search(r"\bA\s*(?:,|or|and|/)", plain)):
        return sure.pop(), "letter"
    if sure:
        return None, "several options"
    return _by_text(plain, texts)


def _by_text(answer: str, texts: Sequence[str]) -> tuple[str | None, str]:
    """The one option whose text stands in the answer; a text that is part of another one found does not count."""
    words = lambda text: re.sub(r"[^\w%$./-]+", " ", text).strip()  # noqa: E731
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

    Without a mark, only a last line that is clearly an option counts: alone, in brackets or with its text.
    """
    named = list(_BEST.finditer(text, max(0, len(text) - TAIL)))
    if named:
        letter, how = letter_in(named[-1]["answer"], texts)
        return letter, f"marked, {how}"
    found = final(text)
    if found:
        letter, how = letter_in(found.text, texts)
        return letter, f"{found.rule}, {how}"
    for name, line in (("last line", last_line(text)), ("first line", text[:200].strip().split("\n")[0])):
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
