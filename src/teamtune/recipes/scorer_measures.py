"""How good a scorer is: its scores of answers to test problems beside what a grader says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from teamtune import calibration
from teamtune.credit.discussion import scores_in
from teamtune.engines import EngineSpec
from teamtune.protocols.discussion import discussion
from teamtune.recipes.systems import TEST_SEED, play_test
from teamtune.rollout import Rollout
from teamtune.store import Run, Table
from teamtune.tasks import Split, problems_in
from teamtune.types import Row, Team, place_of
from teamtune.warn import warn

LEAST_AUROC = 0.6
"""of a scorer that a team can learn something from"""


def measured(run: Run, team: Team, speakers: list[list[str]], test: Split, engine: EngineSpec, how: Rollout) -> Table:
    """Score answers to the test problems, of discussions that show scores where there are several agents or turns: the
    stages test/scorer/..., scored and calibration."""
    protocol = partial(discussion, speakers=speakers, scored=True)
    played = play_test(run, "test/scorer", test, team, protocol, engine, replace(how, seed=how.seed + TEST_SEED))
    scored = run.stage("scored", scored_rows, played.turns, played.grades, test.sealed(run))
    table = run.stage("calibration", calibration_rows, scored)
    if told := unable(table.rows()):
        warn(told)
    return table


def unable(calibration_: Sequence[Row]) -> str:
    """What speaks for a scorer that cannot tell right answers from wrong ones; empty where nothing does."""
    whole = calibration_[0]
    if whole["auroc"] is None:
        kind = "right" if whole["right"] else "wrong"
        return f"all {whole['n']} answers to test problems are {kind}, so that nobody knows how good the scorer is"
    right = round(whole["right"] * whole["n"])
    error = calibration.auroc_error(whole["auroc"], right, whole["n"] - right)
    if whole["auroc"] >= LEAST_AUROC and whole["auroc"] - 2 * error > 0.5:
        return ""
    return (
        f"the scorer tells right answers from wrong ones with an AUROC of {whole['auroc']:.2f} ± {error:.2f} on "
        f"{whole['n']} answers to test problems (0.5 is chance), and a team learns from its scores; give it more "
        "questions and answers, or have its head told how likely the base finds an answer (scoring.surprise)"
    )


def scored_rows(turns: Sequence[Row], grades: Sequence[Row], problems: Sequence[Row]) -> list[Row]:
    """One row an answer that has a score.

    {"problem": "sums/3", "take": 0, "turn": 0, "score": 0.873, "right": True, "tokens": 61, "level": "3",
     "number": "1"}
    """
    graded, scores = {place_of(row): row for row in grades}, scores_in(turns)
    level = {problem.id: str(problem.meta.get("level", "")) for problem in problems_in(problems)}
    rows = []
    for turn in turns:
        place = place_of(turn)
        if place in scores:
            told = {"score": scores[place], "right": graded[place]["score"] == 1}
            told |= {"tokens": len(turn["token_ids"] or ()), "level": level[turn["problem"]]}
            told |= {"number": turn["tag"].removeprefix("turn-")}
            rows.append({**{name: turn[name] for name in ("problem", "take", "turn")}, **told})
    return rows


GROUPS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("", lambda row: "all"),
    ("level", lambda row: row["level"]),
    ("turn", lambda row: row["number"]),
    ("tokens", lambda row: f"{row['tokens'] // 40 * 40} to {row['tokens'] // 40 * 40 + 39}"),
)


def calibration_rows(scored: Sequence[Row]) -> list[Row]:
    """How good the scores are: of all answers, by level, turn and length.

    {"by": "level", "group": "3", "n": 480, "right": 0.52, "accuracy": 0.81, "auroc": 0.89, "ece": 0.04,
     "curve": [{"low": 0.8, "high": 0.9, "n": 52, "score": 0.853, "right": 0.81, "se": 0.055}, ...]}

    auroc is None where all answers of a group are right, or all wrong. Errors of n answers overstate what is known
    where several answers are to one question.
    """
    rows = []
    for by, of in GROUPS:
        names = sorted({of(row) for row in scored}, key=lambda name: (len(name.split(" ")[0]), name))
        for name in names if by == "" or len(names) > 1 else ():
            own = [row for row in scored if of(row) == name]
            scores, right = [row["score"] for row in own], [row["right"] for row in own]
            told = {"by": by, "group": name, "n": len(own), "right": sum(right) / len(own)}
            told |= {"accuracy": calibration.accuracy(scores, right), "auroc": calibration.auroc(scores, right)}
            rows.append({**told, "ece": calibration.ece(scores, right), "curve": calibration.curve(scores, right)})
    return rows
