"""Messages of MAPoRL's discussion (Park et al., 2025): peers' answers with a scorer's verdict on each.

The wording is ours; the content of the messages follows the paper's appendix G.
"""

from __future__ import annotations

from collections.abc import Sequence

from teamtune.types import Message, Problem, user


def in_words(score: float) -> str:
    """The four verbal grades of MAPoRL's score message."""
    if score < 0.3:
        return "very likely wrong"
    if score < 0.6:
        return "maybe wrong or weakly argued"
    if score < 0.8:
        return "seems right, check again"
    return "likely right"


def graded(score: float) -> str:
    """A score as it is shown: "score 0.873, likely right"."""
    return f"score {score:.3f}, {in_words(score)}"


def discuss(problem: Problem, own: float, peers: Sequence[tuple[str, float]]) -> Message:
    """The message of one turn: the own score, then the peers' answers with theirs."""
    shown = "\n\n".join(f"Agent {i} ({graded(score)}):\n{text}" for i, (text, score) in enumerate(peers, 1))
    return user(
        f"Your last answer: {graded(own)}.\n\nThe other agents say:\n\n{shown}\n\n"
        "Scores come from a good but imperfect scorer. Weigh all answers, correct yours if it is wrong, "
        f"and give your reasons in short.\n{problem.question}\n{problem.ending}"
    )
