"""Multiagent Finetuning's credit: the majority of the last round is the label, and nobody's gold answer is looked at.

In, turns of a debate of three over two rounds with the answers read in them:

    {"problem": "p", "take": 0, "turn": 0, "agent": "generator-1", "tag": "round-1", "parsed": "5"}   7, 5 beside it
    {"problem": "p", "take": 0, "turn": 6, "agent": "critic-1", "tag": "round-2", "parsed": "5"}      5, 7 beside it

Out, one row a turn that answers (summaries have none):

    {"problem": "p", "take": 0, "turn": 0, "agent": "generator-1", "tag": "round-1", "place": 0, "parsed": "5",
     "label": "5", "agrees": True, "share": 0.667, "margin": 0.333, "value": 1.0, "positive": True}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from teamtune.store import Counted
from teamtune.types import Place, Row, TeamtuneError, by_episode, place_of
from teamtune.vote import lot, majority

TiePolicy = Literal["random", "first", "last", "drop"]
Judged = Mapping[Place, bool]
"""Whether an answer agrees with its episode's label; answers of episodes without one are missing."""


def consensus(turns: Sequence[Row], parsed: Sequence[Row], ties: TiePolicy = "random", seed: int = 0) -> Counted:
    """Every answering turn against the pseudo-label of its episode, in the order of `turns` (4.1; Algorithm 1).

    turns: a Turn table of `protocols.exchange`; rounds are the tags "round-1" to "round-M".
    parsed: the answer read in each turn, None where there is none; equal answers have equal texts.
    ties: how a last round without a single winner is settled; "drop" leaves the episode without a label.

    `place` is the agent's number in its round, `share` the winner's votes over all voters, `margin` its share less that
    of the runner-up. An episode without a label (nobody's last answer could be read, or a dropped tie) gives no rows.

    Raises TeamtuneError where a turn has no parsed row.
    """
    answer = {place_of(row): row["parsed"] for row in parsed}
    rows: list[Row] = []
    counts = Counter({"episodes with a label": 0})
    for (problem, take), group in by_episode(turns).items():
        rounds = in_rounds(group)
        for turn in group:
            if (problem, take, turn["turn"]) not in answer:
                raise TeamtuneError(
                    f"problem {problem!r} take {take} turn {turn['turn']} was not parsed; parse its table"
                )
        final = [answer[problem, take, turn["turn"]] for turn in rounds[-1]]
        vote = majority(final, "random" if ties == "drop" else ties, lot(seed, problem, take))
        if vote.answer is None:
            counts["episodes without a readable last answer"] += 1
            continue
        if len(vote.tied) > 1:
            counts["episodes with a tie"] += 1
            if ties == "drop":
                counts["episodes dropped for a tie"] += 1
                continue
        counts["episodes with a label"] += 1
        tally = sorted(Counter(one for one in final if one is not None).values(), reverse=True)
        margin = (tally[0] - (tally[1] if len(tally) > 1 else 0)) / len(final)
        for place, turn in ((n, turn) for one in rounds for n, turn in enumerate(one)):
            found = answer[problem, take, turn["turn"]]
            agrees = found == vote.answer
            named = {name: turn[name] for name in ("problem", "take", "turn", "agent", "tag")}
            worth = {"value": float(agrees), "positive": agrees}
            said = {"place": place, "parsed": found, "label": vote.answer, "agrees": agrees}
            rows.append({**named, **said, "share": vote.share, "margin": margin, **worth})
    return Counted(rows, counts)


def in_rounds(group: Sequence[Row], name: str = "round") -> list[list[Row]]:
    """The answering turns of one episode, round by round, agents in their order; summaries and scores are left out.

    name: what the protocol's tags call a round: "round-1", or "turn-1" in a discussion.

    Raises TeamtuneError where there are none.
    """
    found: dict[int, list[Row]] = {}
    for turn in group:
        kind, _, number = turn["tag"].partition("-")
        if kind == name:
            found.setdefault(int(number), []).append(turn)
    if not found:
        played = "protocols.exchange" if name == "round" else "protocols.discussion"
        raise TeamtuneError(f"problem {group[0]['problem']!r} has no turns tagged {name}-1: play {played}")
    return [sorted(found[number], key=lambda turn: turn["turn"]) for number in sorted(found)]


def judgements(credit: Sequence[Row]) -> Judged:
    """What the rows of `consensus` say of every answer."""
    return {place_of(row): row["agrees"] for row in credit}


def labelled(turns: Sequence[Row], judged: Judged, counts: Counter[str]) -> Iterator[list[list[Row]]]:
    """The rounds of every episode that has a label; the others are counted."""
    for group in by_episode(turns).values():
        rounds = in_rounds(group)
        if place_of(rounds[0][0]) in judged:
            yield rounds
        else:
            counts["episodes without a label"] += 1
