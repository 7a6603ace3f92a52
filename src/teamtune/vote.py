"""Majority vote over parsed answers.

Answers are the canonical forms that a grader parsed, None where it found none:

    majority(["42", "7", "42", None])  ->  Vote(answer="42", share=0.5, tied=("42",))
    majority(["42", "7"], ties="last") ->  Vote(answer="7", share=0.5, tied=("42", "7"))
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from teamtune.types import TeamtuneError

Ties = Literal["random", "first", "last"]
Unparsed = Literal["drop", "class"]


@dataclass(frozen=True)
class Vote:
    """The outcome of one vote."""

    answer: str | None
    """The winner; None where no voter gave a readable answer, or where None won (`unparsed="class"`)."""
    share: float
    """Votes of the winner over all voters, the unreadable ones included; 0 where nothing could be counted."""
    tied: tuple[str, ...]
    """The answers in first place, sorted: one where the vote is clear, none where `answer` is None."""


def majority(
    answers: Sequence[str | None],
    ties: Ties = "random",
    seed: int = 0,
    unparsed: Unparsed = "drop",
) -> Vote:
    """The answer with the most votes.

    answers: one per voter, in canonical form, None where none was parsed.
    ties: "random" draws uniformly from the tied answers, by `seed` and the answers alone, so the order of
        arrival does not matter (Multiagent Finetuning, Algorithm 1). Give every problem a seed of its own, or
        two problems with the same tied answers fall the same way. "first" takes the tied answer seen first,
        "last" the lexicographically last one (the published code of Multiagent Finetuning).
    unparsed: "drop" leaves None out of the count; "class" counts it as one more answer, which can win
        outright but yields in a tie (MAPoRL's metric).

    Raises TeamtuneError where nobody voted or an option has no such value.
    """
    if not answers:
        raise TeamtuneError("a vote got no answers; give it at least one voter")
    if unparsed not in ("drop", "class"):
        raise TeamtuneError(f'unparsed is {unparsed!r}; it must be "drop" or "class"')
    counts = Counter(answer for answer in answers if answer is not None or unparsed == "class")
    if not counts:
        return Vote(None, 0.0, ())
    most = max(counts.values())
    share = most / len(answers)
    tied = [answer for answer, count in counts.items() if count == most and answer is not None]
    return Vote(_break_tie(tied, ties, seed) if tied else None, share, tuple(sorted(tied)))


def vote_score(
    answers: Sequence[str | None],
    scores: Sequence[float],
    ties: Ties | Literal["fractional"] = "fractional",
    seed: int = 0,
    unparsed: Unparsed = "drop",
) -> float:
    """The score of the vote's winner, from 0 to 1.

    scores: what each answer scored, 1 right and 0 wrong; equal answers must score the same.
    ties: as in `majority`, or "fractional", the mean score of the tied answers: 1 / (number of tied answers)
        if the truth is among them (MAPoRL's metric), which is what "random" scores on average.

    Raises TeamtuneError where the lengths differ or equal answers have different scores.
    """
    if len(answers) != len(scores):
        raise TeamtuneError(f"a vote got {len(answers)} answers and {len(scores)} scores; give one score an answer")
    score_of: dict[str | None, float] = {}
    for answer, score in zip(answers, scores, strict=True):
        if score_of.setdefault(answer, score) != score:
            raise TeamtuneError(
                f"answer {answer!r} scored both {score_of[answer]} and {score}; make the grader "
                "parse answers that it tells apart into different strings"
            )
    if ties != "fractional":
        return float(score_of.get(majority(answers, ties, seed, unparsed).answer, 0.0))
    tied = majority(answers, "last", seed, unparsed).tied
    return sum(score_of[answer] for answer in tied) / len(tied) if tied else float(score_of.get(None, 0.0))


def lot(seed: int, *key: str | int) -> int:
    """A lot for `key`: a number in [0, 2**64) that looks random and is the same on every machine.

    Python's own `hash` of a string changes between processes, and a generator's stream depends on what was
    drawn before; a lot depends on nothing but the seed and the key.
    """
    return int.from_bytes(hashlib.sha256(json.dumps([seed, *key]).encode()).digest()[:8], "big")


def _break_tie(tied: Sequence[str], ties: Ties, seed: int) -> str:
    """One of the tied answers, which come in the order in which they were first seen."""
    if ties == "random":
        return sorted(tied)[lot(seed, *sorted(tied)) % len(tied)]
    if ties == "first":
        return tied[0]
    if ties == "last":
        return max(tied)
    raise TeamtuneError(f'ties is {ties!r}; it must be "random", "first" or "last"')
