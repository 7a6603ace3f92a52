"""Does a scorer that learned from untrained agents still tell right answers of trained ones from wrong ones?

    python bench/scores.py RUN ...        # finished runs of `teamtune maporl` with a learned scorer

Of the untrained and the trained team's discussions of test problems, those that are compared with all baselines: how
good the scores of their answers are, by turn. Answers of several agents to a problem are not independent, so that
errors by answers would be too small; none are given.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from teamtune.recipes.scorer_measures import calibration_rows, scored_rows
from teamtune.store import read_table


@dataclass(frozen=True)
class Bench:
    runs: tyro.conf.Positional[tuple[Path, ...]]


def main(cfg: Bench) -> None:
    for run in cfg.runs:
        problems = read_table(run / "problems/test").rows()
        for name in ("base", "team"):
            turns, grades = (read_table(run / "test" / name / one).rows() for one in ("turns", "grades"))
            for row in calibration_rows(scored_rows(turns, grades, problems)):
                if row["by"] in ("", "turn"):
                    told = "none" if row["auroc"] is None else f"{row['auroc']:.3f}"
                    mean = sum(one["n"] * one["score"] for one in row["curve"]) / row["n"]
                    print(f"{run.name}, {name}, {row['by']} {row['group']}: {row['n']} answers,", end=" ")
                    print(f"{row['right']:.3f} right, mean score {mean:.3f}, AUROC {told}, ECE {row['ece']:.3f}")


if __name__ == "__main__":
    main(tyro.cli(Bench))
