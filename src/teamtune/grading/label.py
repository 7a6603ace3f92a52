r"""Grade a response whose answer is one of a few words: yes or no, true or false, an inference label, unanswerable.

    "So the answer is no."                                      "no"              marked
    "The premise contradicts it.\nFinal answer: Contradiction"  "contradiction"   marked
    "Answer: not valid"                                         "invalid"         marked
    "Answer: yes and no"                                        None              marked: several labels

Which labels there are follows from the gold answer.
"""

from __future__ import annotations

import re

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
        "neutral": r"neutral|neither|undetermined|inconclusive|unknown|maybe",
        "contradiction": r"contradict(?:ion|s|ed|ory)|false|no",
    },
)
UNANSWERABLE = (
    r"unanswerable|not answerable|no answer|unknown|insufficient information|not enough information|not given|"
    r"cannot be (?:determined|answered)|can(?:not|'t) (?:determine|answer)|impossible to (?:determine|answer|say)"
)


def family(gold: str) -> dict[str, str] | None:
    """The labels that the gold answer is one of, with "unanswerable" among them; None where it is no label."""
    name = gold.strip(" .").casefold()
    for labels in FAMILIES:
        if name in labels:
            return {**labels, "unanswerable": UNANSWERABLE}
    return {"unanswerable": UNANSWERABLE} if re.fullmatch(UNANSWERABLE, name) else None


def labels_in(answer: str, labels: dict[str, str]) -> list[str]:
    """The labels in an answer, in order of appearance; the longest way to say something wins ("not valid")."""
    ways = sorted(((way, label) for label, ways in labels.items() for way in _split(ways)), key=lambda w: -len(w[0]))
    pattern = re.compile("|".join(rf"(?P<w{i}>\b(?:{way})\b)" for i, (way, _) in enumerate(ways)))
    return [ways[int((match.lastgroup or "w0")[1:])][1] for match in pattern.finditer(answer.casefold())]


def _split(ways: str) -> list[str]:
    """The alternatives of a pattern, groups kept whole."""
    return re.findall(r"(?:\([^)]*\)|[^|(])+", ways)


def extract(text: str, labels: dict[str, str]) -> tuple[str | None, str]:
    """The label that a response settles on, or None, and the rule that found it."""
    found = final(text)
    if found and re.search(r"[\"']\s*:", found.text):
        return None, f"{found.rule}, data instead of an answer"
    if found:
        said = labels_in(found.text, labels)
        leading = re.match(r"\W*(\w+)\W*(?:,|\.|$)", found.text.casefold())
        first = labels_in(leading[1], labels) if leading and not re.search(r"\bor\b", found.text.casefold()) else []
        said = first or said
        return (said[0] if len(set(said)) == 1 else None), found.rule
    for rule, line in (("last line", last_line(text)), ("first line", text[:200].strip().split("\n")[0])):
        if re.match(r"\W*(?:therefore|so|thus|hence|it is|this is|the)?\W*(?:\w+\W+){0,4}$", line.casefold()):
            said = labels_in(line, labels)
            if len(set(said)) == 1:
                return said[0], rule
    return None, "nothing found"


def grade(problem: Problem, text: str) -> Grade:
    """Right if and only if the response settles on the gold label."""
    labels = family(problem.answer)
    if labels is None:
        return Grade(None, 0.0, "", f"the gold answer {problem.answer[:40]!r} is no label")
    gold = labels_in(problem.answer, labels)[:1]
    label, rule = extract(text, labels)
    return Grade(label, float([label] == gold), rule, f"{label or 'no single label'} against {gold[0]}")
