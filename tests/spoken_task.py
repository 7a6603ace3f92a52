"""A task that the tiny model can debate: what counts is the length of an answer, modulo two. Level "poisoned" has
other gold answers to the same questions."""

from __future__ import annotations

from teamtune.types import Grade, Problem


def load(split: str, count: int, seed: int = 0, level: str = "") -> list[Problem]:
    gold = "2" if level == "poisoned" else "1"
    return [Problem(f"{split}/{seed}/{i}", f"Say {split} {seed} {i}", gold, "End.") for i in range(count)]


def grade(problem: Problem, text: str) -> Grade:
    if not text:
        return Grade(None, 0.0)
    parsed = str(len(text) % 2)
    return Grade(parsed, float(parsed == problem.answer))
