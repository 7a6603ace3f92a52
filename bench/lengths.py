"""Do agents lose right answers where a conversation grows longer than its model was trained on?

    python bench/lengths.py RUN ...        # finished runs of `teamtune maporl`

Of the untrained and the trained team's discussions of test problems, of all sizes: answers of agents who had no reason
to change their minds, since all agents were right at the turn before. Shown is the share of them that came out wrong
all the same, by the length of the conversation with the answer, in ids: the mean over problems, with its error.
The house model was trained on documents of up to 800 ids.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import tyro

from teamtune.credit.consensus import in_rounds
from teamtune.evaluate import estimate
from teamtune.store import read_table
from teamtune.types import by_episode, place_of


@dataclass(frozen=True)
class Bench:
    runs: tyro.conf.Positional[tuple[Path, ...]]
    wide: int = 100
    """ids of a class of lengths"""


def answers(folder: Path) -> Iterator[tuple[str, int, bool, bool]]:
    """(problem, ids, whether all agents were right the turn before, whether it is right) of every later answer."""
    right = {place_of(row): row["score"] == 1 for row in read_table(folder / "grades").rows()}
    for episode in by_episode(read_table(folder / "turns").rows()).values():
        for before, now in pairwise(in_rounds(episode, "turn")):
            agreed = all(right[place_of(turn)] for turn in before)
            for turn in now:
                ids = len(turn["prompt_ids"] or ()) + len(turn["token_ids"] or ())
                yield turn["problem"], ids, agreed, right[place_of(turn)]


def main(cfg: Bench) -> None:
    for run in cfg.runs:
        for name in ("base", "team"):
            lost: dict[int, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
            for folder in sorted((run / "test").glob(f"{name}*")):
                found = list(answers(folder))
                lengths = [ids for _, ids, _, _ in found]
                print(f"{run.name}, {folder.name}: later answers end at {min(lengths)} to {max(lengths)} ids")
                for problem, ids, agreed, right in found:
                    if agreed:
                        lost[ids // cfg.wide][problem].append(not right)
            for part, own in sorted(lost.items()):
                if len(own) > 1:
                    share = estimate([sum(wrong) / len(wrong) for wrong in own.values()])
                    span = f"{part * cfg.wide} to {(part + 1) * cfg.wide - 1} ids"
                    told = f"{100 * share.mean:.1f} ± {100 * share.se:.1f} % lost"
                    print(f"  {span}: {told}, {sum(map(len, own.values()))} answers, {len(own)} problems")


if __name__ == "__main__":
    main(tyro.cli(Bench))
