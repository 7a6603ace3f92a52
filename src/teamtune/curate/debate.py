"""Multiagent Finetuning's data: what each generator and each critic of a debate learns from (Subramaniam et al., 2025).

    D^G_n    generator n's first answers that equal the label
    D^C-_n   critic n's last answers that equal it where the first answer of its place did not: corrected
    D^C+_n   critic n's last answers that equal it where the first one did too: kept right
    D^C_n    share w of D^C-_n and 1 - w of D^C+_n, as many as both sides allow

One row is an SFT row (`curate/sft.py`) with the column "kind": "first", "corrected", "kept right", "between" (of a
debate of three rounds or more, for a single model that learns from all) or "own earlier turn".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from teamtune.credit.consensus import Judged, judgements, labelled
from teamtune.curate.sft import sft_row
from teamtune.store import Counted
from teamtune.types import UNFIT, UNSAID, Row, TeamtuneError, place_of
from teamtune.vote import lot

Masking = Literal["final", "all"]
"""Which turns of a critic's conversation bear loss: the last one, which is what is to be learned, or every answer of
the conversation, a wrong first one included (the published code)."""
GOOD = ("first", "corrected", "kept right", "between")


@dataclass(frozen=True, slots=True)
class Case:
    """One answer of an agent that may be learned from: its kind, its turn, and earlier turns that bear loss with it."""

    kind: str
    turn: Row
    earlier: Sequence[Row] = ()

    def rows(self, learner: str) -> list[Row]:
        last = {**sft_row(self.turn, 1.0), "agent": learner, "kind": self.kind}
        before = [
            {**sft_row(turn, 1.0), "agent": learner, "kind": "own earlier turn"}
            for turn in self.earlier
            if turn["finish"] not in UNFIT
        ]
        return [last, *before]


def debate_rows(
    turns: Sequence[Row],
    credit: Sequence[Row],
    learners: Mapping[str, str],
    weight: float | None = 0.5,
    masking: Masking = "final",
    seed: int = 0,
) -> Counted:
    """The training rows of a debate's agents, agent by agent, in order of problem and take.

    turns, credit: a Turn table and the rows that `credit.consensus` gives for it.
    learners: who learns from the turns of whom. {"generator-1": "generator-1", ...} is the method; one learner for all
        is a single model on the union of their data; who is left out teaches nobody.
    weight: w, the share of corrected answers among a critic's; None takes every answer that equals the label, those
        between the first and the last round too. Where one of the two sets is empty, and w is neither 0 nor 1, the
        other one is taken whole, and that is counted.

    Every answer of a learner's sources is counted once, by agent and kind (those between the first and the last round
    only where they are taken); what the weight leaves out is counted too.

    Raises TeamtuneError for a weight out of [0, 1].
    """
    if weight is not None and not 0 <= weight <= 1:
        raise TeamtuneError(f"weight is {weight}; it must lie in [0, 1]")
    judged = judgements(credit)
    counts: Counter[str] = Counter()
    sets: dict[str, dict[str, list[Case]]] = {source: {kind: [] for kind in GOOD} for source in learners}
    for rounds in labelled(turns, judged, counts):
        for case in cases(rounds, judged, masking, between=weight is None):
            source, finish = case.turn["agent"], case.turn["finish"]
            if source not in sets:
                continue
            fit = finish not in UNFIT
            counts[f"{source}: {case.kind}{'' if fit else ', ' + UNFIT[finish]}"] += 1
            if fit and case.kind in GOOD:
                sets[source][case.kind].append(case)
                counts.update(
                    f"{source}: own earlier turn, {UNFIT[t['finish']]}" for t in case.earlier if t["finish"] in UNFIT
                )
    rows: list[Row] = []
    for source, learner in learners.items():
        kinds = sets[source]
        both = [*kinds["between"], *kinds["corrected"], *kinds["kept right"]]
        later = both if weight is None else mixed(source, kinds["corrected"], kinds["kept right"], weight, seed, counts)
        rows += [row for case in (*kinds["first"], *later) for row in case.rows(learner)]
    return Counted(rows, counts)


def cases(rounds: Sequence[Sequence[Row]], judged: Judged, masking: Masking, between: bool = False) -> Iterator[Case]:
    """The first and the last answer of every place of an episode, by what they are good for; those `between` too."""
    agrees = lambda turn: judged[place_of(turn)]  # noqa: E731
    for place, opening in enumerate(rounds[0]):
        yield Case("first" if agrees(opening) else "first answer off the label", opening)
        for turn in (one[place] for one in rounds[1:-1] if between):
            yield Case("between" if agrees(turn) else "answer between off the label", turn)
        if len(rounds) > 1:
            last = rounds[-1][place]
            before = [one[place] for one in rounds[:-1]]
            good = "kept right" if agrees(opening) else "corrected"
            if any(turn["finish"] in UNSAID for turn in before):
                good = "last answer after one of its own that was never said"
            yield Case(good if agrees(last) else "last answer off the label", last, before if masking == "all" else [])


def mixed(
    agent: str, corrected: Sequence[Case], kept: Sequence[Case], weight: float, seed: int, counts: Counter[str]
) -> list[Case]:
    """As many answers as possible with share `weight` of corrected ones, to within one answer, drawn by lot."""
    if 0 < weight < 1 and bool(corrected) != bool(kept):
        counts[f"{agent}: no {'corrected' if kept else 'kept right'} answers, so all of the others"] += 1
        return [*corrected, *kept]
    total = min(
        len(corrected) / weight if weight > 0 else float("inf"),
        len(kept) / (1 - weight) if weight < 1 else float("inf"),
    )
    taken = drawn(corrected, round(weight * total), seed), drawn(kept, round((1 - weight) * total), seed)
    for kind, all_of, some in (("corrected", corrected, taken[0]), ("kept right", kept, taken[1])):
        if len(some) < len(all_of):
            counts[f"{agent}: {kind}, left out for the weight"] += len(all_of) - len(some)
    return [*taken[0], *taken[1]]


def drawn(some: Sequence[Case], count: int, seed: int) -> list[Case]:
    """`count` of the cases, those with the lowest lots, in their order."""
    name = lambda case: [case.turn[column] for column in ("agent", "problem", "take", "turn")]  # noqa: E731
    lots = sorted((lot(seed, *name(case)), number) for number, case in enumerate(some))
    return [some[number] for number in sorted(number for _, number in lots[:count])]
