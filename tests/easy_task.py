"""A task that even a random model solves half of the time: an answer is right by the hash of its text."""

from __future__ import annotations

import hashlib

from teamtune.types import Ask, Grade, Problem, TeamtuneError


def load(split: str, count: int, seed: int = 0, level: str = "") -> list[Problem]:
    """Questions that no two splits or seeds share. Level "leaky" puts one test question among the training ones."""
    if level not in ("", "leaky"):
        raise TeamtuneError(f"easy_task has no level {level!r}; choose leaky, or none")
    names = [f"{split}/{seed}/{index}" for index in range(count)]
    questions = [f"Say word {name}" for name in names]
    if level == "leaky" and split == "train":
        questions[-1] = f"  say WORD  test/{seed}/0!"
    return [Problem(f"easy/{name}", q, "1", "End now.") for name, q in zip(names, questions, strict=True)]


def grade(problem: Problem, text: str) -> Grade:
    if not text:
        return Grade(None, 0.0)
    parsed = str(hashlib.sha256(text.encode()).digest()[0] % 2)
    return Grade(parsed, float(parsed == problem.answer))


def answer(ask: Ask, seed: int) -> str:
    """For the scripted engine: one of a few words, by the seed."""
    return f"{ask.tag} {seed % 7}"


def nothing(ask: Ask, seed: int) -> str:
    """For the scripted engine: no answer that could be read."""
    return ""
