r"""Where in a response the answer stands. Every rule reads the text once or a bounded part of it.

    "so we get \boxed{\frac{1}{2}}."                 boxed   "\frac{1}{2}"
    "She makes $18.\n#### 18"                        hashes  "18"
    "**Final Answer:** 4:30 p.m."                    marked  "4:30 p.m."
    "Therefore the answer is (B)."                   marked  "(B)"
    "...\nA: 224"                                    marked  "224"

`final` tries them in that order; graders add rules of their own for texts that none of them fits (the last number, a
letter in the last line). A rule gives what it found as it is written; what it means is the grader's business.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

TAIL = 20_000  # characters at the end of a response that rules other than the box read
LONGEST = 2_000  # an answer longer than this is none

_TOKEN = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[\\{}]|[{}]")
_BARE_BOX = re.compile(r"\\boxed\s+([^\s${}\\]{1,40})")
_HASHES = re.compile(r"^[ \t]*#{4}[ \t]*(?P<answer>\S[^\n]*)", re.MULTILINE)
_IS = r"(?:[ \t]+(?:is|are|was|would be|will be|should be|must be)\b[ \t]*:?|[ \t]*[:=\uff1a])"
_MARKER = re.compile(
    r"(?:\b(?:answers?|(?:best|correct|right|closest)[ \t]+(?:option|choice))\b"
    r"(?:[ \t]+(?:to|for|of)[ \t]+(?:the|this)[ \t]+(?:question|problem|exercise|task))?(?:\*\*|__)?" + _IS + ")",
    re.IGNORECASE,
)
# "A: 224" after "Q: ..."; beside "B: ..." it is an option.
_LETTER, _NEXT_LETTER = (
    re.compile(rf"^[ \t>]*(?:\*\*)?{letter}(?:\*\*)?[ \t]*:", re.IGNORECASE | re.MULTILINE) for letter in "AB"
)
# "9. I hope it is correct" ends at the full stop; "Mr. Hill" and "4:30 p.m." do not.
_SENTENCE = re.compile(r"(?<!\b[A-Z])(?<!\b[A-Z][a-z])(?<!\b[A-Z][a-z]s)(?<!\.m)\.\s+(?=[A-Z])")
_TAKEN_BACK = re.compile(
    r"\bI apologi[sz]e\b|\bmy (?:earlier|previous) (?:answer|solution) (?:is|was) (?:wrong|incorrect)\b"
    # "Wait, I see no mistake" takes nothing back, and "that was wrong" may be said of another agent's answer.
    r"|\b(?:that|this) (?:is|was) (?:wrong|incorrect)\b"
    r"|(?P<sure>\bwait\b[,.:!]?[^\n]{0,40}(?:\bno\b(?! (?:mistakes?|errors?|problems?|doubt)\b)"
    r"|\b(?:wrong|incorrect)\b|(?<!\bno )\bmistake\b)"
    r"|\bI (?:have )?made (?:a|an) (?:mistake|error)\b|\bcorrection:)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Found:
    """A part of a response, and the rule that found it."""

    text: str
    rule: str


Place = tuple[str, int]
"""What was found, and where it ends in the text."""


def boxed(text: str) -> Place | None:
    r"""What stands in the last `\boxed{}` whose braces balance; in the innermost one where boxes are nested.

    One pass with a stack, so megabytes of braces take linear time. `\{` and `\}` are characters.
    """
    stack: list[int | None] = []
    last: tuple[int, int] | None = None
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token.startswith(("\\b", "\\f")):
            stack.append(match.end())
        elif token == "{":
            stack.append(None)
        elif token == "}" and stack:
            start = stack.pop()
            if start is not None and (last is None or start > last[0]):
                last = (start, match.start())
    if last is not None:
        return text[last[0] : last[1]].strip(), last[1]
    cut = max(0, len(text) - TAIL)
    bare = list(_BARE_BOX.finditer(text, cut))
    return (bare[-1].group(1).rstrip(".,;"), bare[-1].end()) if bare else None


def hashes(text: str) -> Place | None:
    """What follows the last "####" at the beginning of a line."""
    found = list(_HASHES.finditer(text, max(0, len(text) - TAIL)))
    return (unwrapped(found[-1]["answer"]), found[-1].end()) if found else None


def marked(text: str) -> Place | None:
    """What follows the last "answer:" or "answer is", else the last "A:" that is no option, to the end of its sentence;
    where that is nothing, the next line."""
    cut = max(0, len(text) - TAIL)
    lettered = [] if _NEXT_LETTER.search(text, cut) else list(_LETTER.finditer(text, cut))
    for marker in [*reversed(list(_MARKER.finditer(text, cut))), *reversed(lettered)]:
        window = text[marker.end() : marker.end() + 2 * LONGEST]
        line, start = window.partition("\n")[0], marker.end()
        if not line.strip(" *_:.$\t"):
            below = re.match(r"[^\n]*\n\s*(?:[-*+\u2022][ \t]+)?", window)
            start += below.end() if below else len(line)
            line = text[start : marker.end() + 2 * LONGEST].partition("\n")[0]
        answer = unwrapped(_SENTENCE.split(line.strip(" *_\t"), maxsplit=1)[0][: LONGEST + 1])
        if answer:
            return answer, start + len(line)
    return None


def unwrapped(answer: str) -> str:
    """Without what only surrounds an answer: bold, quotes, a final full stop, dollar signs in pairs."""
    before = None
    while before != answer:
        before = answer
        answer = answer.strip().strip('*_`"\u201c\u201d')
        if answer.endswith((".", ",", ";", ":")) and not re.search(r"\b[ap]\.m\.$", answer):
            answer = answer[:-1]
        for left, right in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
            inside = answer[len(left) : len(answer) - len(right)]
            if inside and answer.startswith(left) and answer.endswith(right) and left not in inside:
                answer = inside
    return answer


RULES = {"boxed": boxed, "hashes": hashes, "marked": marked}


def final(text: str, rules: Sequence[str] = ("boxed", "hashes", "marked")) -> Found | None:
    """The answer by the first rule that finds one, or None where none does.

    Where it is taken back later, what is found after that counts; where that is nothing, or an answer is over `LONGEST`
    characters, it is empty. A mere apology takes back only if more work follows it.
    """
    for rule in rules:
        place = RULES[rule](text)
        if place and place[0]:
            answer, end = place
            if len(answer) > LONGEST:
                return Found("", f"{rule}, too long")
            back = _last(_TAKEN_BACK, text, max(end, len(text) - TAIL))
            if back is None:
                return Found(answer, rule)
            again = final(text[back.end() :], rules)
            if again or back["sure"] or len(text) - back.end() > 200:
                return again or Found("", f"{rule}, taken back")
            return Found(answer, rule)
    return None


def guessed(rule: str) -> bool:
    """Whether a rule takes for the answer what only stands last or first, where nothing says that it is one: a number,
    a formula, a line."""
    return rule.startswith(("last ", "first "))


def _last(pattern: re.Pattern[str], text: str, start: int) -> re.Match[str] | None:
    found = None
    for found in pattern.finditer(text, start):  # noqa: B007
        pass
    return found


def without_question(text: str, question: str) -> str:
    """A response without the question said again, whose numbers are no answer."""
    return text.replace(question, " ") if len(question) > 20 else text


def last_line(text: str) -> str:
    """The last line that is not empty, of its last `LONGEST` characters."""
    lines = [line for line in text[-LONGEST:].split("\n") if line.strip()]
    return lines[-1].strip() if lines else ""
