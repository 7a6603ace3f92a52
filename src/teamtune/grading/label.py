r"""Grade a response whose answer is one of a few words: yes or no, true or false, an inference label, unanswerable.

    "So the answer is no."                                      "no"              marked
    "The premise contradicts it.\nFinal answer: Contradiction"  "contradiction"   marked
    "Answer: not valid"                                         "invalid"         marked
    "Answer: yes and no"                                        None              marked: several labels

Which labels there are follows from the gold answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from teamtune.grading.extract import final, last_line
from teamtune.types import Grade, Problem

# label -> the ways to say it, beside itself; a set of labels belongs together
FAMILIES: tuple[dict[str, str], ...] = (
    {"yes": r"yes|true", "no": r"no|false|not true"},
    {"true": r"true|yes", "false": r"false|no|not true"},
    {"valid": r"valid", "invalid": r"invalid|not valid"},
    {"plausible": r"plausible|yes", "implausible": r"implausible|not plausible|no"},
    {
        "entailment": r"entail(?:ment|s|ed)|true|yes",
        "neutral": r"neutral|neither|neither entail(?:s|ed|ment)? n?or contradict(?:s|ed|ion)?|undetermined|"
        r"inconclusive|unknown|maybe",
        "contradiction": r"contradict(?:ion|s|ed|ory)|false|no",
    },
)
UNANSWERABLE = (
    r"unanswerable|not answerable|no answer|unknown|insufficient information|not (?:have )?enough information|"
    r"not given|cannot be (?:determined|answered)|can(?:not|'t) (?:determine|answer)|"
    r"impossible to (?:determine|answer|say)"
)


def family(gold: str) -> dict[str, str] | None:
    """The labels that the gold answer is one of, with "unanswerable" among them; None where it is no label."""
    name = gold.strip(" .").casefold()
    for labels in FAMILIES:
        if name in labels:
            return {**labels, "unanswerable": UNANSWERABLE}
    return {"unanswerable": UNANSWERABLE} if re.fullmatch(UNANSWERABLE, name) else None


@dataclass(frozen=True, slots=True)
class Said:
    """A label, and where a text says it."""

    label: str
    start: int
    end: int


def placed(answer: str, labels: dict[str, str]) -> list[Said]:
    """The labels in an answer, in order of appearance; the longest way to say something wins ("not valid")."""
    ways = sorted(((way, label) for label, ways in labels.items() for way in _split(ways)), key=lambda w: -len(w[0]))
    pattern = re.compile("|".join(rf"(?P<w{i}>\b(?:{way})\b)" for i, (way, _) in enumerate(ways)))
    found = pattern.finditer(answer.casefold())
    return [Said(ways[int((one.lastgroup or "w0")[1:])][1], one.start(), one.end()) for one in found]


_BEFORE = re.compile(r"\W*(?:(?:therefore|so|thus|hence|it is|this is|the|it)\W+){0,3}", re.IGNORECASE)
_NO_DOUBT = re.compile(r"\b(?:there is )?no (?:doubt|question|way around)\b|\bwithout (?:a )?doubt\b")
_DENIED = re.compile(r"(?:\b(?:not|never|hardly|nor|neither|without|no|un)|n['\u2019]t)\s+(?:\w+\s+){0,2}$")


def _split(ways: str) -> list[str]:
    """The alternatives of a pattern, groups kept whole."""
    return re.findall(r"(?:\([^)]*\)|[^|(])+", ways)


def settled(answer: str, labels: dict[str, str]) -> str | None:
    """The label that an answer settles on; None where it names several, or denies one ("not entirely true")."""
    text = _NO_DOUBT.sub(" ", answer.casefold())
    said = placed(text, labels)
    if not said or _DENIED.search(text[max(0, said[0].start - 40) : said[0].start]):
        return None
    first, others = said[0], [one for one in said[1:] if one.label != said[0].label]
    if any(not text[first.end : one.start].strip() for one in said[1:]):  # "no contradiction"
        return None
    if not others:
        return first.label
    # "no, it cannot be yes" settles on no; "yes, no" and "yes or no" on nothing.
    opens = not re.search(r"\w", text[: first.start]) and re.match(r"\W*(?:,|\.|$)", text[first.end :])
    listed = any(re.search(r"(?:[,;/|.]|\band\b|\bor\b)\s*$", text[: one.start]) for one in others)
    return first.label if opens and not listed and not re.search(r"\bor\b", text) else None


def extract(text: str, labels: dict[str, str]) -> tuple[str | None, str]:
    """The label that a response settles on, or None, and the rule that found it."""
    found = final(text)
    if found and re.search(r"[\"']\s*:", found.text):
        return None, f"{found.rule}, data instead of an answer"
    if found:
        return settled(found.text, labels), found.rule
    for rule, line in (("last line", last_line(text)), ("first line", text[:200].strip().split("\n")[0])):
        said = placed(line, labels)
        # A line that is little but the label: "So it is valid.", "yes", "No, he did not."
        if said and _BEFORE.fullmatch(line[: said[0].start]) and len(re.findall(r"\w+", line[said[0].end :])) <= 4:
            label = settled(line, labels)
            if label:
                return label, rule
    return None, "nothing found"


def grade(problem: Problem, text: str) -> Grade:
    """Right if and only if the response settles on the gold label."""
    labels = family(problem.answer)
    if labels is None:
        return Grade(None, 0.0, "", f"the gold answer {problem.answer[:40]!r} is no label")
    gold = settled(problem.answer, labels)
    label, rule = extract(text, labels)
    right = label is not None and label == gold
    return Grade(label, float(right), rule, f"{label or 'no single label'} against {gold}")
