"""Look at every row of a data file before anything is spent on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from teamtune.grading import Grader
from teamtune.grading.choice import gold_letter
from teamtune.tasks.dataset import Read, problems_of
from teamtune.tasks.find import plain
from teamtune.tasks.source import Raw
from teamtune.types import Problem

SHOWN = 40  # characters of a question in a message


@dataclass(slots=True)
class Found:
    """What a check came to."""

    rows: int = 0
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def validate(raws: Iterable[Raw], read: Read, grader: Grader | None = None) -> Found:
    """Every row's errors (it cannot be used), and what is odd in the whole."""
    found, questions = Found(), Counter[str]()
    for raw, problem in problems_of(raws, read, "", "row"):
        found.rows += 1
        if isinstance(problem, str):
            found.errors.append(f"{raw.place}: {problem}")
            continue
        questions[plain(problem.question)] += 1
        found.errors += (f"{raw.place}: {error}" for error in errors_of(problem, grader))
    if not found.rows:
        found.errors.append("there are no rows")
    twice = sum(count - 1 for count in questions.values() if count > 1)
    if twice:
        found.warnings.append(f"{twice} rows repeat the question of another row")
    return found


def errors_of(problem: Problem, grader: Grader | None) -> Iterator[str]:
    """What is wrong with one problem: an answer that is no option, or one that the grader would not take for right.
    Of one without an answer (`TaskSpec.unlabelled`) nothing can be said."""
    choices = problem.meta.get("choices")
    if not problem.answer:
        return
    if choices and gold_letter(problem, choices) is None:
        yield f"the answer {problem.answer[:SHOWN]!r} is none of the {len(choices)} choices, by letter or text"
    elif choices and len({choice.casefold() for choice in choices}) < len(choices):
        yield "two choices are the same"
    elif grader is not None:
        said = [grader(problem, form.format(problem.answer)) for form in ("Answer: {}", "\\boxed{{{}}}")]
        if not any(grade.score == 1 for grade in said):
            yield f"the grader does not take the answer {problem.answer[:SHOWN]!r} for right ({said[0].reason})"
