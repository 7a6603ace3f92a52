"""A scorer that another run made: where it lies, and the problems that it was trained on, which a team that learns from
its scores must not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from teamtune.recipes.maporl_team import Maporl
from teamtune.recipes.scorer import making_of
from teamtune.scorer import check_scorer
from teamtune.store import read_table
from teamtune.tasks import TaskSpec, problems_in
from teamtune.tasks.find import seen_in
from teamtune.types import SCORER, Problem, TeamtuneError

PROBLEMS = ("problems/first", "problems/train")
"""of a run of maporl, and of scorer train: what the scorer was trained on"""


def scorer_folder(told: str) -> str:
    """The folder of a scorer, told as that or as the run that made it. Raises TeamtuneError where it is none."""
    path = Path(told)
    if not path.is_dir():
        raise TeamtuneError(f"no folder at {told!r} to take a scorer from; check --scorer-from")
    inside = path / "scorer" / "fit" / SCORER
    if (path / "config.json").exists() and not inside.exists():
        raise TeamtuneError(f"run {told!r} has no scorer that is whole: it made none, or did not end; let it end first")
    folder = str(inside) if inside.exists() else told
    check_scorer(folder)
    return folder


def run_of(told: str) -> Path | None:
    """The run that made a scorer; None for a folder that was taken elsewhere."""
    path = Path(told).absolute()
    return next((one for one in (path, *path.parents[:3]) if (one / "config.json").exists()), None)


def trained_on(told: str) -> list[Problem]:
    """The problems that a scorer was trained on; none where the run that made it cannot be found."""
    run = run_of(told)
    tables = [] if run is None else [run / name for name in PROBLEMS if (run / name / "DONE.json").exists()]
    return problems_in(read_table(tables[0]).rows()) if tables else []


def questions_before(told: str, task: TaskSpec) -> int:
    """How many training problems of a task to pass over: those of a scorer that was made on the same task, which are
    the first ones where both have the same --data-seed."""
    run = run_of(told)
    if run is None:
        return 0
    theirs = making_of(run).task
    lot = lambda one: replace(one, train=0, test=0, held_out="test", allow_leaks=False)  # noqa: E731
    return theirs.train if lot(theirs) == lot(task) else 0


def check_bits(cfg: Maporl) -> None:
    """Raises TeamtuneError where the scorer was, or will be, trained on a base of other bits than the team's, on which
    it is to judge."""
    run = run_of(cfg.scorer_from) if cfg.scorer_from else None
    if cfg.scorer != "learned" or (cfg.scorer_from and run is None):
        return
    made = cfg.making if run is None else making_of(run).scorer
    if made.lora.bits != cfg.lora.bits:
        raise TeamtuneError(
            f"the scorer's base is held in {made.lora.bits} bits and the team's in {cfg.lora.bits} (lora.bits); a "
            "scorer judges on the base that it was trained on: take the same for both"
        )


def check_unseen(told: str, **splits: Sequence[Problem]) -> None:
    """Raises TeamtuneError where a scorer was trained on problems that a team is to be trained or tested on."""
    before = trained_on(told)
    for split, problems in splits.items():
        both = seen_in(before, problems)
        if both:
            raise TeamtuneError(
                f"{len(both)} of {len(problems)} {split} problems were the scorer's, {both[0].id!r} among them; give "
                "another --data-seed, make the scorer in this run, or allow it with --allow-leaks"
            )
