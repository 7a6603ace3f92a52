"""How good scores in [0, 1] are as probabilities. Pure; numpy only.

auroc([0.9, 0.2, 0.6], [True, False, False])      1.0     a right answer scores above a wrong one, so often
ece([0.9, 0.2, 0.6], [True, False, False])        0.3     mean distance of score and share of right ones, bin by bin
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from teamtune.evaluate import estimate
from teamtune.types import Row, TeamtuneError


def auroc(scores: Sequence[float], right: Sequence[bool]) -> float | None:
    """The probability that a right answer scores above a wrong one, half of it where they are equal; None where all
    answers are of one kind."""
    values, labels = _checked(scores, right)
    positive, negative = int(labels.sum()), int((~labels).sum())
    if not positive or not negative:
        return None
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # equal scores share their mean rank
    return float((ranks[labels].sum() - positive * (positive + 1) / 2) / (positive * negative))


def auroc_error(area: float, right: int, wrong: int) -> float:
    """The standard error of an AUROC of so many right and wrong answers, as if all were independent (Hanley and McNeil
    1982, eq. 1); several answers to a question make it too small."""
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (right - 1) * (first - area**2) + (wrong - 1) * (second - area**2)
    return max(0.0, spread / (right * wrong)) ** 0.5


def curve(scores: Sequence[float], right: Sequence[bool], bins: int = 10) -> list[Row]:
    """Score against share of right answers, in bins of equal width; empty bins are left out.

    {"low": 0.8, "high": 0.9, "n": 52, "score": 0.853, "right": 0.81, "se": 0.055}
    """
    values, labels = _checked(scores, right)
    found = []
    number = np.minimum((values * bins).astype(int), bins - 1)
    for one in sorted(set(number.tolist())):
        here = number == one
        share = estimate([float(label) for label in labels[here]])
        mean = float(values[here].mean())
        place = {"low": one / bins, "high": (one + 1) / bins, "n": int(here.sum())}
        found.append({**place, "score": mean, "right": share.mean, "se": share.se})
    return found


def ece(scores: Sequence[float], right: Sequence[bool], bins: int = 10) -> float:
    """Expected calibration error: mean over answers of |mean score - share of right ones| of their bin."""
    rows = curve(scores, right, bins)
    return sum(row["n"] * abs(row["score"] - row["right"]) for row in rows) / len(scores)


def accuracy(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Share of answers that a threshold of one half puts on their side."""
    values, labels = _checked(scores, right)
    return float(((values > 0.5) == labels).mean())


def _checked(
    scores: Sequence[float], right: Sequence[bool]
) -> tuple[Float[np.ndarray, " answers"], Bool[np.ndarray, " answers"]]:
    if not len(scores) or len(scores) != len(right):
        raise TeamtuneError(
            f"{len(scores)} scores and {len(right)} labels; give one of each an answer, and some answers"
        )
    values, labels = np.asarray(scores, dtype=float), np.asarray(right, dtype=bool)
    if not ((values >= 0) & (values <= 1)).all():
        raise TeamtuneError("a score lies outside [0, 1]; these are measures of probabilities")
    return values, labels


def drift(history: Sequence[tuple[float, float]], window: int = 8) -> str:
    """What speaks for policies that please the scorer and are not right more often; empty where nothing does.

    history: (mean score, share of right answers) of every update. The last `window` updates against the first ones:
    the score is up by more than two standard errors, and accuracy is not, and by less than half as much.
    """
    if len(history) < 2 * window:
        return ""
    gains = []
    for column in (0, 1):
        first, last = (np.array([row[column] for row in part]) for part in (history[:window], history[-window:]))
        error = float(np.sqrt((first.var(ddof=1) + last.var(ddof=1)) / window))
        gains.append((float(first.mean()), float(last.mean()), error))
    (score, score_now, score_error), (right, right_now, right_error) = gains
    up, right_up = score_now - score, right_now - right
    if up <= 2 * score_error or right_up > 2 * right_error or right_up >= up / 2:
        return ""
    return (
        f"the mean score went from {score:.3f} to {score_now:.3f} while accuracy went from {100 * right:.1f} to "
        f"{100 * right_now:.1f} %: the policies may please the scorer without being right"
    )
