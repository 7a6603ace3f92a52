"""How different the members of a team are (Multiagent Finetuning, 4.7 of the specification). Pure; numpy only.

consensus(["5", "5", "7"])               0.667   share of agents whose answer is the majority's
entropy(["5", "5", "7"])                 0.637   of the distribution over distinct answers, in nats
disagreement(["5", "5", "7"])            0.667   share of pairs of agents who differ
dissimilarity([[1, 0], [0, 1]])          1.0     mean over pairs of 1 - cosine of embedded answers
negative_log_likelihood([-0.1, -0.3])    0.2     of one answer under another agent, a token
kl_sampled(own, other)                           between two agents, on tokens that the first one sampled
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from math import fsum, log
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from teamtune.evaluate import estimate
from teamtune.types import TeamtuneError

Answers = Sequence[str | None]
"""One answer an agent, None where none could be read; two that are unreadable are not equal."""
FLIPS = ("kept right", "corrected", "lost", "kept wrong", "changed wrong")


def consensus(answers: Answers) -> float:
    """Share of agents whose answer is the most frequent one; 0 where nobody's could be read. Diversity is 1 less it."""
    _some(answers, "consensus", "answer")
    return max(Counter(answer for answer in answers if answer is not None).values(), default=0) / len(answers)


def entropy(answers: Answers) -> float:
    """Entropy of the distribution over distinct answers in nats, from 0 (all equal) to log n (all different)."""
    _some(answers, "entropy", "answer")
    counts = [*Counter(answer for answer in answers if answer is not None).values(), *[1] * answers.count(None)]
    return max(0.0, -fsum(count / len(answers) * log(count / len(answers)) for count in counts))


def disagreement(answers: Answers) -> float:
    """Share of pairs of agents whose answers differ; 0 for a single agent."""
    _some(answers, "disagreement", "answer")
    pairs = list(combinations(answers, 2))
    return sum(one is None or one != other for one, other in pairs) / len(pairs) if pairs else 0.0


def dissimilarity(vectors: ArrayLike) -> float:
    """Mean over pairs of agents of 1 - cosine similarity of their embedded answers; 0 for a single agent.

    vectors: shape (agents, dimensions). Raises TeamtuneError for a vector of length zero.
    """
    table = np.asarray(vectors, dtype=float)
    if table.ndim != 2 or not table.size:
        raise TeamtuneError(f"embeddings have shape {table.shape}; give one vector an agent: (agents, dimensions)")
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    if not lengths.all():
        raise TeamtuneError("an embedding has length zero; leave out answers without text")
    units = table / lengths
    number = len(units)
    if number == 1:
        return 0.0
    # Over ordered pairs the cosines sum to |sum of units|^2 - number.
    cosines = float(np.square(units.sum(axis=0)).sum()) - number
    return max(0.0, 1 - cosines / (number * (number - 1)))


def negative_log_likelihood(logprobs: Sequence[float], normalise: bool = True) -> float:
    """-log p of an answer under an agent, from the log-probability of each of its tokens; a token, or in all."""
    _some(logprobs, "a negative log-likelihood", "token")
    total = -fsum(logprobs)
    return total / len(logprobs) if normalise else total


def held_out(scores: Sequence[Sequence[float | None]]) -> float:
    """Cross-agent negative log-likelihood of one problem: over held-out agents the mean of that of the others' answers.

    scores: row k, column n is the negative log-likelihood of agent n's answer under agent k; the diagonal is not read.
    Larger is more diverse.
    """
    number = len(scores)
    if number < 2 or any(len(row) != number for row in scores):
        raise TeamtuneError(
            f"cross-agent scores have {[len(row) for row in scores]} columns; give a square of 2 or more"
        )
    found = [score for k, row in enumerate(scores) for n, score in enumerate(row) if n != k]
    if any(score is None for score in found):
        raise TeamtuneError("a cross-agent score is missing; score every answer under every other agent")
    return fsum(score for score in found if score is not None) / len(found)


def kl_sampled(own: ArrayLike, other: ArrayLike, kind: Literal["k1", "k3"] = "k1") -> float:
    """KL(own || other) a token, from log-probabilities of tokens that `own` sampled.

    own, other: shape (tokens,), the same tokens under both.
    kind: k1 is the mean of log p - log q, unbiased; k3 the mean of q/p - 1 - log(q/p), unbiased, never negative and of
        less variance (Schulman, "Approximating KL divergence").
    """
    p, q = np.asarray(own, dtype=float), np.asarray(other, dtype=float)
    if p.shape != q.shape or not p.size:
        raise TeamtuneError(f"sampled KL got {p.shape} and {q.shape} log-probabilities; give both the same tokens")
    ratio = q - p
    return float(-ratio.mean()) if kind == "k1" else float((np.expm1(ratio) - ratio).mean())


def kl_full(own: ArrayLike, other: ArrayLike) -> float:
    """KL(own || other) a position over the whole vocabulary.

    own, other: log-probabilities, shape (positions, vocabulary), each row normalised.
    """
    p, q = np.asarray(own, dtype=float), np.asarray(other, dtype=float)
    if p.shape != q.shape or p.ndim != 2 or not p.size:
        raise TeamtuneError(f"full KL got shapes {p.shape} and {q.shape}; give (positions, vocabulary) twice")
    with np.errstate(invalid="ignore"):
        terms = np.where(np.isneginf(p), 0.0, np.exp(p) * (p - q))
    return float(terms.sum(axis=1).mean())


def flips(before: Answers, after: Answers, label: str | None) -> dict[str, int]:
    """How agents' answers moved between two rounds, against the label or the gold answer.

    {"kept right": 1, "corrected": 1, "lost": 0, "kept wrong": 0, "changed wrong": 1}
    """
    if len(before) != len(after):
        raise TeamtuneError(f"flips got {len(before)} answers before and {len(after)} after; give the same agents")
    counts: dict[str, int] = dict.fromkeys(FLIPS, 0)
    for was, now in zip(before, after, strict=True):
        if now is not None and now == label:
            counts["kept right" if was == label else "corrected"] += 1
        elif was is not None and was == label:
            counts["lost"] += 1
        else:
            counts["kept wrong" if was == now else "changed wrong"] += 1
    return counts


def adopted(before: Answers, after: Answers) -> list[tuple[int, int]]:
    """Who took over whose answer: (agent, source) where an agent's new answer is one that others had and it did not."""
    return [
        (agent, source)
        for agent, now in enumerate(after)
        for source, theirs in enumerate(before)
        if now is not None and source != agent and now == theirs and now != before[agent]
    ]


def copy_rate(before: Answers, after: Answers) -> float:
    """Share of agents who took over another's answer between two rounds."""
    _some(after, "a copy rate", "agent")
    return len({agent for agent, _ in adopted(before, after)}) / len(after)


def collapse(before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]]) -> list[str]:
    """What speaks for a team's collapse between two iterations, as sentences; none where nothing does.

    before, after: the same problems in the same order, of each "vote" (accuracy), "consensus", "entropy", "copied"
        (shares of agents who took over another's answer) and "tokens" (mean length of an answer), which may be left out
        where the engine does not tell it.

    A change counts where it is more than two standard errors of the paired differences, and accuracy is flat where its
    gain does not count. Consensus may rise as much as accuracy does.
    """
    gains = {name: estimate([b - a for a, b in zip(before[name], after[name], strict=True)]) for name in before}
    mean = lambda table, name: fsum(table[name]) / len(table[name])  # noqa: E731
    went = lambda name, scale, unit: f"from {scale * mean(before, name):.3g} to {scale * mean(after, name):.3g}{unit}"  # noqa: E731
    up = lambda name: gains[name].mean > 2 * gains[name].se  # noqa: E731
    down = lambda name: -gains[name].mean > 2 * gains[name].se  # noqa: E731
    flat = not up("vote")
    told = f"while accuracy went {went('vote', 100, ' %')}"
    found = []
    if up("consensus") and flat and gains["vote"].mean < gains["consensus"].mean:
        found.append(f"consensus rose {went('consensus', 100, ' %')} {told}")
    if down("entropy") and flat:
        found.append(f"entropy of answers fell {went('entropy', 1, ' nats')} {told}")
    if up("copied") and flat:
        found.append(f"agents take over each other's answers more, {went('copied', 100, ' %')}, {told}")
    if "tokens" in before:
        short, long = sorted((mean(before, "tokens"), mean(after, "tokens")))
        if long > 1.5 * short:
            found.append(f"answers went {went('tokens', 1, ' tokens')}")
    return found


def _some(values: Sequence[object], what: str, item: str) -> None:
    if not values:
        raise TeamtuneError(f"{what} got nothing; give at least one {item}")
