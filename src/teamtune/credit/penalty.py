"""MAPoRL's gate: what an answer must not do, since agents paid by a learned scorer were seen to do it (appendix G).

fault({"text": "So so so so so so.", "finish": "stop", ...}, "42", Gate())      "repetition"
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from teamtune.grading import number
from teamtune.grading.extract import boxed, guessed, hashes, marked
from teamtune.types import UNSAID, Row, TeamtuneError


@dataclass(frozen=True, slots=True)
class Gate:
    """What is penalised. Pieces are words and signs of the text ("----" is one), so that the gate is the same for every
    tokenizer."""

    shortest: int = 50
    """fewest tokens of an answer; pieces where an engine hides its tokens"""
    repeats: int = 3
    """a sequence of 1 to 20 pieces may stand in a row so often, one of digits alone always; 0: not looked at"""
    unread: bool = True
    """an answer that cannot be read, or that nothing tells as one: no box, no "####", no "Answer:" """
    after: bool = True
    """anything after the answer (in the paper, not in its code)"""
    cut: bool = False
    """an answer that did not end by itself (in neither)"""

    def __post_init__(self) -> None:
        for name in ("shortest", "repeats"):
            if getattr(self, name) < 0:
                raise TeamtuneError(f"{name} of the gate is {getattr(self, name)}; it must be 0 (off) or above")


LONGEST = 20
UNIT = 3
"""words after a number that may belong to it: "12 cups of flour" """
BARE = 6
"""pieces that may stand before an answer that is no more than that: "So the final answer is: " """
WORD = re.compile(r"[^\W\d_]+")
PIECE = re.compile(r"\w+|([^\w\s])\1*")
SAME = re.compile(r"(.)\1+")
STUCK = re.compile(rf"([^\d\s])\1{{{LONGEST},}}")
"""one sign or letter more often than rules and brackets have it"""
CAUSES = ("nothing said", "not ended", "too short", "no answer", "repetition", "text after the answer")
OFF = Gate(shortest=0, repeats=0, unread=False, after=False)
"""nothing is penalised"""


def fault(turn: Row, parsed: str | None, gate: Gate, rule: str = "") -> str:
    """Why an answer is penalised, the first reason that holds; empty where it is not.

    parsed, rule: what a grader read, and by which rule; a number that merely stands last is no final answer.
    "nothing said" is an answer that was not begun, since its prompt did not fit the context, or that a server kept
    back: a gate that looks at lengths or at answers would stop it anyway, for a cause that is not its own.
    """
    pieces = [found[0] for found in PIECE.finditer(turn["text"])]
    if turn["finish"] in UNSAID and (gate.shortest or gate.unread):
        return "nothing said"
    if gate.cut and turn["finish"] != "stop":
        return "not ended"
    if len(pieces if turn["token_ids"] is None else turn["token_ids"]) < gate.shortest:
        return "too short"
    if gate.unread and (parsed is None or guessed(rule)):
        return "no answer"
    if gate.repeats and (repeated(pieces, gate.repeats) or stuttered(turn["text"], pieces, gate.repeats)):
        return "repetition"
    if gate.after and trailing(turn["text"], parsed, question_of(turn)):
        return "text after the answer"
    return ""


def question_of(turn: Row) -> str:
    """The first thing that a turn's agent was asked: the question."""
    return next((said["content"] for said in turn.get("messages") or () if said["role"] == "user"), "")


def repeated(pieces: Sequence[str], times: int = 3, longest: int = LONGEST) -> bool:
    """Whether a sequence of at most `longest` pieces stands more than `times` times in a row; of digits alone it may
    (specification 3.4)."""
    for period in range(1, longest + 1):
        run = 0  # so many pieces equal the one a period before: `times` periods of them are times + 1 copies
        for at in range(period, len(pieces)):
            run = run + 1 if pieces[at] == pieces[at - period] else 0
            if run >= times * period and not all(piece.isdigit() for piece in pieces[at - period + 1 : at + 1]):
                return True
    return False


def stuttered(text: str, words: Sequence[str], times: int = 3) -> bool:
    """The same within words, which a text without spaces has few of; and one sign or letter more than `LONGEST` times
    in a row. Of a shorter row one is looked at: "oooh" and "----" are no sequences."""
    long = (SAME.sub(r"\1", word) for word in words if len(word) > 2 * times and not word.isdigit())
    return bool(STUCK.search(text)) or any(repeated(word, times) for word in long)


def bare(text: str) -> bool:
    """Whether a final answer is all there is: no reasoning stands before it, but for words such as "the answer is"."""
    found = _answered(text)
    return found is not None and len(PIECE.findall(text[: max(0, found[1])])) <= BARE


def _answered(text: str) -> tuple[str, int, int] | None:
    """The final answer, where it begins (-1: it stands there in other words), and where it ends."""
    found = boxed(text) or hashes(text) or marked(text)
    return None if found is None else (found[0], text.rfind(found[0], 0, found[1]), found[1])


def trailing(text: str, parsed: str | None = None, question: str = "") -> str:
    """What stands after the final answer, words of its unit and signs that close it aside.

    parsed: what the answer was read as; more than `UNIT` words between it and the end of its sentence are no unit.
    question: where options stand, "(A) Paris"; the text of an option belongs to its letter.
    """
    found = _answered(text)
    if found is None:
        return ""
    answer, said, end = found
    start = end if said < 0 else said + len(answer)
    at = _read_to(answer, parsed, question) if parsed and said >= 0 else -1
    if at >= 0 and len(WORD.findall(answer[at:])) > UNIT:
        start = said + at
    rest = text[start:].strip()
    return rest if re.search(r"\w", rest) else ""


def _read_to(answer: str, parsed: str, question: str) -> int:
    """Where in an answer ends what it was read as: as it stands, or as words that are that number ("1,000", "five"),
    with the option's text behind its letter; -1 where it is neither."""
    word = re.search(rf"(?<!\w){re.escape(parsed)}(?!\w)", answer, re.IGNORECASE)
    at = word.start() if word else answer.find(parsed)
    if at < 0:
        ends = (word.end() for word in re.finditer(r"\S+", answer[: number.DIGITS]))
        return next((end for end in ends if number.canonical(answer[:end]) == parsed), -1)
    at += len(parsed)
    option = re.search(rf"^\({re.escape(parsed)}\)\s+(\S.*)$", question, re.MULTILINE | re.IGNORECASE)
    own = re.match(rf"\W*{re.escape(option[1].strip(' .'))}", answer[at:], re.IGNORECASE) if option else None
    return at + own.end() if own else at
