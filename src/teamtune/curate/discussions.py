"""The best discussions of a team, to learn from by plain finetuning: what MAPoRL is compared with (3.8)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil

from teamtune.credit.consensus import in_rounds
from teamtune.curate.sft import sft_row
from teamtune.store import Counted
from teamtune.types import UNFIT, Place, Row, TeamtuneError, by_episode, place_of
from teamtune.vote import lot, vote_score

BEST = 0.1
"""share of the discussions that are learned from"""


def best_discussions(
    turns: Sequence[Row],
    grades: Sequence[Row],
    scores: Mapping[Place, float],
    agents: Sequence[str],
    share: float = BEST,
    seed: int = 0,
) -> Counted:
    """SFT rows of `agents` from the best discussions: malformed ones are dropped, then those whose last majority is
    wrong (a tie is) and those that ended before any of `agents` spoke, and of all that there were the `share` with the
    highest mean score of the last answers is kept.

    scores: of answers; where there are none, discussions are drawn by `seed`. Every discussion is counted once.

    Raises TeamtuneError for a share out of (0, 1].
    """
    if not 0 < share <= 1:
        raise TeamtuneError(f"share of the best discussions is {share}; it must lie in (0, 1]")
    graded = {place_of(row): row for row in grades}
    counts: Counter[str] = Counter()
    found: list[tuple[float, int, list[Row]]] = []
    episodes = by_episode(turns)
    for key, group in episodes.items():
        rounds = in_rounds(group, "turn")
        last = [graded[place_of(turn)] for turn in rounds[-1]]
        if any(turn["finish"] in UNFIT or graded[place_of(turn)]["parsed"] is None for one in rounds for turn in one):
            counts["discussions left out, malformed"] += 1
        elif vote_score([one["parsed"] for one in last], [one["score"] for one in last], unparsed="class") < 1:
            counts["discussions left out, the majority is wrong"] += 1
        elif not any(turn["agent"] in agents for one in rounds for turn in one):
            counts["discussions left out, nobody spoke who learns"] += 1
        else:
            mean = sum(scores.get(place_of(turn), 0.0) for turn in rounds[-1]) / len(last)
            found.append((-mean, lot(seed, *key), [turn for one in rounds for turn in one]))
    kept = sorted(found, key=lambda one: one[:2])[: ceil(share * len(episodes))]
    counts["discussions kept"] = len(kept)
    counts["discussions left out, others are better"] = len(found) - len(kept)
    rows = [sft_row(turn, 1.0) for _, _, answers in kept for turn in answers if turn["agent"] in agents]
    counts.update(f"{row['agent']}: kept" for row in rows)
    return Counted(rows, counts)
