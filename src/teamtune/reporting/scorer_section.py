"""The section of a report on a learned scorer: how good its scores are on problems that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence

from teamtune.reporting import svg
from teamtune.reporting.table import NONE, make_section, make_table, percent
from teamtune.types import Row


def scorer(rows: Sequence[Row]) -> Row:
    """rows: of `recipes.scorer_measures.calibration_rows`."""
    if not rows:
        return make_section("scorer", "Scorer")
    whole = rows[0]
    lines = [_line(row) for row in rows]
    fine = [
        [
            f"{one['low']:.1f} to {one['high']:.1f}",
            f"{one['score']:.3f}",
            f"{percent(one['right'])} ± {percent(one['se'])}",
            str(one["n"]),
        ]
        for one in whole["curve"]
    ]
    tables = [
        make_table("", ["Answers", "n", "Right %", "Accuracy %", "AUROC", "ECE"], lines, [0]),
        make_table("Calibration, all answers", ["Score", "Mean score", "Right %", "n"], fine),
    ]
    text = (
        "Answers to test problems. Accuracy: a score above one half is taken for "
        "right. AUROC: how often a right answer scores above a wrong one. ECE: mean distance between score and share "
        "of right answers over ten bins. Several answers are to one problem, so errors are too small."
    )
    return make_section("scorer", "Scorer", [text], tables)


def _line(row: Row) -> list[str]:
    name = " ".join(filter(None, [row["by"], row["group"]]))
    told = [percent(row["right"]), percent(row["accuracy"])]
    return [name, str(row["n"]), *told, NONE if row["auroc"] is None else f"{row['auroc']:.3f}", f"{row['ece']:.3f}"]


def picture(rows: Sequence[Row]) -> str:
    """Share of right answers over the score, beside what a perfectly calibrated scorer would have."""
    found = [(one["score"], one["right"]) for one in rows[0]["curve"]]
    lines = [("scorer", found), ("calibrated", [(0.0, 0.0), (1.0, 1.0)])]
    return svg.lines_over(lines, ["scorer", "calibrated"], "Share of right answers over the score", "score")
