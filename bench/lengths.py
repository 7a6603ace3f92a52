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

from teamtune.evaluate import estimate
from teamtune.store import read_table
from teamtune.types import SCORER, Row, by_episode, place_of


@dataclass(frozen=True)
class Bench:
    runs: tyro.conf.Positional[tuple[Path, ...]]
    wide: int = 100
    """ids of a class of lengths"""


def unanimous(folder: Path) -> Iterator[tuple[str, int, bool]]:
    """(problem, ids, whether it is lost) of every answer before which all agents were right."""
    right = {place_of(row): row["score"] == 1 for row in read_table(folder / "grades").rows()}
    for episode in by_episode(read_table(folder / "turns").rows()).values():
        turns: dict[str, list[Row]] = defaultdict(list)
        for turn in episode:
            if turn["agent"] != SCORER:
                turns[turn["tag"]].append(turn)
        rounds = [turns[f"turn-{number}"] for number in range(1, len(turns) + 1)]
        for before, now in pairwise(rounds):
            if all(right[place_of(turn)] for turn in before):
                for turn in now:
                    ids = len(turn["prompt_ids"] or ()) + len(turn["token_ids"] or ())
                    yield turn["problem"], ids, not right[place_of(turn)]


def main(cfg: Bench) -> None:
    for run in cfg.runs:
        for name in ("base", "team"):
            lost: dict[int, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
            for folder in sorted((run / "test").glob(f"{name}*")):
                for problem, ids, wrong in unanimous(folder):
                    lost[ids // cfg.wide][problem].append(wrong)
            print(f"{run.name}, {name}")
            for part, own in sorted(lost.items()):
                if len(own) > 1:
                    found = estimate([sum(wrong) / len(wrong) for wrong in own.values()])
                    span = f"{part * cfg.wide} to {(part + 1) * cfg.wide - 1} ids"
                    told = f"{100 * found.mean:.1f} ± {100 * found.se:.1f} % lost"
                    print(f"  {span}: {told}, {sum(map(len, own.values()))} answers, {len(own)} problems")


if __name__ == "__main__":
    main(tyro.cli(Bench))
