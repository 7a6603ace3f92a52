"""What a report tells of debates: pseudo-labels against gold, how members differ, who took over whose answer. Pure.

Pseudo-labels of one iteration, by how clear the vote was:

    {"n": 480, "precision": 0.81, "se": 0.018,
     "bins": [{"margin": 0.333, "n": 120, "precision": 0.55, "se": 0.045}, ...]}

Means over problems of one system, each with its error:

    {"system": "iteration-1", "values": {"consensus": Estimate(...), "nll": Estimate(...), ...}}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from teamtune.diversity import FLIPS
from teamtune.evaluate import Estimate, estimate
from teamtune.types import Row, place_of

BY_ROUND = ("consensus", "entropy", "disagreement", "copied", "tokens")
BY_LIKELIHOOD = ("nll", "nll_answer", "kl", "k1", "k3", "base_kl", "base_k1", "base_k3", "first_kl", "first_base_kl")
BY_EMBEDDING = ("dissimilarity", "dissimilarity_agreeing")


def pseudo_labels(credit: Sequence[Row], grades: Sequence[Row]) -> Row | None:
    """How often the vote's label is right, in all and by margin; None where no episode has a label.

    What the label is worth is what the grader said of a turn that agrees with it. Gold is for this table alone.
    """
    score = {place_of(row): row["score"] for row in grades}
    labels: dict[tuple[str, int], tuple[float, float]] = {}
    for row in credit:
        place = place_of(row)
        if row["agrees"] and place in score:
            labels[place[:2]] = (row["margin"], score[place])
    if not labels:
        return None
    whole = estimate([right for _, right in labels.values()])
    bins = []
    for margin in sorted({round(margin, 6) for margin, _ in labels.values()}):
        here = estimate([right for one, right in labels.values() if round(one, 6) == margin])
        bins.append({"margin": margin, "n": here.n, "precision": here.mean, "se": here.se})
    return {"n": whole.n, "precision": whole.mean, "se": whole.se, "bins": bins}


def by_rounds(rows: Sequence[Row]) -> list[Row]:
    """Accuracy, vote and agreement of each round, and what agents did since the round before."""
    found = []
    for number in sorted({row["round"] for row in rows}):
        here = [row for row in rows if row["round"] == number]
        values = {name: [row[name] for row in here] for name in ("accuracy", "vote", *BY_ROUND)}
        told = {name: estimate(own) for name, own in values.items() if None not in own}
        moved = Counter({name: sum(row[name] for row in here) for name in FLIPS})
        found.append({"round": number, "values": told, "flips": dict(moved) if moved.total() else None})
    return found


def takeovers(rows: Sequence[Row]) -> dict[tuple[str, str], int]:
    """How often an agent took over an answer that another one had given: {(agent, source): count}."""
    return dict(Counter((pair["agent"], pair["source"]) for row in rows for pair in row["adopted"]))


def differences(
    rounds: Sequence[Row], likelihood: Sequence[Row] | None, embedded: Sequence[Row] | None
) -> dict[str, Estimate]:
    """Every measure of a system's last round, means over problems; what was not measured is left out."""
    last = max((row["round"] for row in rounds), default=0)
    tables = (
        ([row for row in rounds if row["round"] == last], ("vote", *BY_ROUND)),
        (likelihood or (), BY_LIKELIHOOD),
        (embedded or (), BY_EMBEDDING),
    )
    found = {}
    for rows, names in tables:
        for name in names:
            values = [row[name] for row in rows if row.get(name) is not None]
            if values:
                found[name] = estimate(values)
    return found
