"""The MALT study on the house model: both tasks, several seeds, all baselines and ablations -> docs/results/malt.md.

    python studies/malt.py --out runs/study --task stories        # one task; run both at once on two cores
    python studies/malt.py --out runs/study --task arithmetic
    python studies/malt.py --out runs/study --write docs/results/malt.md

Every run is an ordinary `teamtune malt` or `teamtune eval` run folder; a killed study goes on where it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from tables import commits, comparison, main_table, over_runs, percent, table, write_page

from teamtune.cli_options import file_arguments
from teamtune.evaluate import estimate, paired_bootstrap
from teamtune.memory import hold_freed_memory, keep_few_kernels
from teamtune.recipes import evaluation, malt
from teamtune.recipes.systems import scores
from teamtune.report import write_report
from teamtune.store import read_table
from teamtune.tasks import TaskSpec

SETTINGS = Path(__file__).with_name("malt.yaml")
TASKS = ("arithmetic", "stories")
HARDER = {"arithmetic": "4", "stories": "4"}


@dataclass(frozen=True)
class Study:
    out: Path
    """folder of the study's runs"""
    task: str = ""
    """run this task's experiments; empty: run nothing"""
    seeds: tuple[int, ...] = (0, 1, 2)
    ablation_test: int = 400
    """test problems of an ablation that trains nothing: the first ones of the main run's"""
    write: Path | None = None
    """write the tables of the finished runs to this file"""


def settings(task: str, seed: int, out: Path) -> malt.Malt:
    """The main run of a seed, which also chooses the problems."""
    args = file_arguments(SETTINGS)
    cfg = tyro.cli(malt.Malt, args=[*args, "--task", task, "--out", str(out), "--seed", str(seed)])
    return replace(cfg, task=replace(cfg.task, data_seed=seed))


def main_folder(study: Study, task: str, seed: int) -> Path:
    return study.out / f"malt-{task}-{seed}"


def ablation_folder(study: Study, task: str, seed: int, name: str) -> Path:
    slug = "".join(c if c.isalnum() else "-" for c in name.lower())
    return study.out / f"malt-{task}-{seed}-{slug}"


def evaluations(cfg: malt.Malt, task: TaskSpec) -> Iterator[tuple[str, evaluation.Evaluation]]:
    """The ablations that need no training of their own, on the run of `cfg`."""
    base = evaluation.Evaluation(
        cfg.out, cfg.out, task=task, engine=cfg.engine, sampling=cfg.sampling, votes=cfg.votes, seed=cfg.seed
    )
    for seat in ("generator", "verifier", "refiner"):
        yield f"{seat} untrained", replace(base, untrained=(seat,))
    for roles in ("G", "GV", "GR"):
        yield f"roles {roles}", replace(base, roles=roles)


def harder(cfg: malt.Malt, task: TaskSpec) -> Iterator[tuple[str, evaluation.Evaluation]]:
    """The trained and the untrained team on a level that the run was not trained on."""
    base = evaluation.Evaluation(
        cfg.out,
        cfg.out,
        task=replace(task, level=HARDER[cfg.task.task]),
        engine=cfg.engine,
        sampling=cfg.sampling,
        votes=cfg.votes,
        seed=cfg.seed,
    )
    yield "harder level", base
    yield "harder level, untrained", replace(base, untrained=("generator", "verifier", "refiner"))


def trainings(cfg: malt.Malt) -> Iterator[tuple[str, malt.Malt]]:
    """The ablations that train again, on the same tree of turns."""
    again = replace(cfg, baselines="none")
    yield "threshold 0.3", replace(again, threshold=0.3)
    yield "threshold 0.7", replace(again, threshold=0.7)
    yield "generator by DPO too", replace(again, dpo_generator=True)


def run_main(study: Study, task: str, seed: int) -> None:
    folder = main_folder(study, task, seed)
    malt.main(settings(task, seed, folder), f"studies/malt.py --task {task} --seeds {seed}")
    write_report(folder)


def run_ablations(study: Study, task: str, seed: int) -> None:
    source = main_folder(study, task, seed)
    cfg = settings(task, seed, source)
    fewer = replace(cfg.task, test=study.ablation_test)
    for name, ablation in [*evaluations(cfg, fewer), *harder(cfg, fewer)]:
        out = ablation_folder(study, task, seed, name)
        evaluation.main(replace(ablation, out=out), f"studies/malt.py: {name}")
    for name, ablation in trainings(cfg):
        out = ablation_folder(study, task, seed, name)
        same = ("turns", "grades") if ablation.threshold != cfg.threshold else ("turns", "grades", "sft-rows", "sft")
        for stage in same:  # sealed by their inputs, which are the same
            if not (out / stage).exists():
                shutil.copytree(source / stage, out / stage)
        malt.main(replace(ablation, out=out), f"studies/malt.py: {name}")


# ---- tables ----------------------------------------------------------------------------------------------------------


def voted(folder: Path, played: str, votes: int) -> dict[str, float]:
    """Each problem's score by a vote of the run's passes."""
    return scores(
        read_table(folder / played / "turns").rows(), read_table(folder / played / "grades").rows(), votes=votes
    )


def ablation_table(study: Study, task: str, seeds: list[int]) -> list[str]:
    """Every ablation beside the whole team on the same problems, those of all seeds together."""
    cfg = settings(task, seeds[0], study.out)
    kinds = [
        *((name, "test/team") for name, _ in evaluations(cfg, cfg.task)),
        *((name, "test/malt") for name, _ in trainings(cfg)),
    ]
    lines = []
    for name, played in kinds:
        here: list[float] = []
        whole: list[float] = []
        for seed in seeds:
            folder = ablation_folder(study, task, seed, name)
            if comparison(folder) is None:
                continue
            by_problem = voted(folder, played, cfg.votes)
            full = voted(main_folder(study, task, seed), "test/malt", cfg.votes)
            here += by_problem.values()
            whole += [full[problem] for problem in by_problem]
        if here:
            mine, gap = estimate(here), paired_bootstrap(here, whole)
            lines.append(
                f"| {name} | {percent(mine.mean)} | {percent(mine.se)} | {percent(estimate(whole).mean)} | {mine.n} "
                f"| {percent(gap.diff, '+.1f')} [{percent(gap.low, '+.1f')}, {percent(gap.high, '+.1f')}] |"
            )
    head = f"| ablation (MV@{cfg.votes}) | accuracy % | SE | whole team % | n | minus the whole team |"
    return table(head, lines) if lines else []


def harder_table(study: Study, task: str, seeds: list[int]) -> list[str]:
    """Trained and untrained team on the harder level."""
    cfg = settings(task, seeds[0], study.out)
    found = {
        name: [rows for s in seeds if (rows := comparison(ablation_folder(study, task, s, name))) is not None]
        for name, _ in harder(cfg, cfg.task)
    }
    lines = []
    for name, tables in found.items():
        if tables:
            row = over_runs(tables)[-1]
            lines.append(f"| {name} | {percent(row['accuracy'])} | {percent(row['se'])} | {row['n']} |")
    return table(f"| level {HARDER[task]}, MV@{cfg.votes} | accuracy % | SE | n |", lines) if lines else []


def page(study: Study) -> list[str]:
    """The results page's tables, from whatever is finished."""
    lines: list[str] = []
    for task in TASKS:
        done = {s: rows for s in study.seeds if (rows := comparison(main_folder(study, task, s))) is not None}
        if not done:
            continue
        told = f"Seeds {', '.join(map(str, done))}; {commits(main_folder(study, task, s) for s in done)}."
        lines += [f"## {task}", "", told, "", *main_table(over_runs(list(done.values())))]
        lines += ablation_table(study, task, list(done))
        lines += harder_table(study, task, list(done))
    return lines


def main(study: Study) -> None:
    hold_freed_memory()
    keep_few_kernels()
    for work in (run_main, run_ablations):
        for seed in study.seeds if study.task else ():
            work(study, study.task, seed)
    if study.write is not None:
        write_page(study.write, "# MALT on the house model\n", SETTINGS, page(study))


if __name__ == "__main__":
    main(tyro.cli(Study))
