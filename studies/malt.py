"""The MALT study on the house model: both tasks, several seeds, all baselines and ablations -> docs/results/malt.md.

    python studies/malt.py --out runs/study --task stories        # one task; run both at once on two cores
    python studies/malt.py --out runs/study --task arithmetic
    python studies/malt.py --out runs/study --write docs/results/malt.md

Every run is an ordinary `teamtune malt` or `teamtune eval` run folder; a killed study goes on where it was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro
import yaml

from teamtune.cli import file_arguments
from teamtune.evaluate import over_seeds
from teamtune.recipes import evaluation, malt
from teamtune.report import write_report
from teamtune.store import read_table
from teamtune.types import Row

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
    write: Path | None = None
    """write the tables of the finished runs to this file"""


def settings(task: str, seed: int, out: Path) -> malt.Malt:
    args = file_arguments(SETTINGS)
    cfg = tyro.cli(malt.Malt, args=[*args, "--task", task, "--out", str(out), "--seed", str(seed)])
    return replace(cfg, task=replace(cfg.task, data_seed=seed))


def evaluations(cfg: malt.Malt, folder: Path) -> Iterator[tuple[str, evaluation.Evaluation]]:
    """The ablations that need no training of their own, on the run in `folder`."""
    base = evaluation.Evaluation(
        run=cfg.out, out=folder, task=cfg.task, engine=cfg.engine, sampling=cfg.sampling, votes=cfg.votes, seed=cfg.seed
    )
    for seat in ("generator", "verifier", "refiner"):
        yield f"{seat} untrained", replace(base, untrained=(seat,))
    for roles in ("G", "GV", "GR"):
        yield f"roles {roles}", replace(base, roles=roles)
    yield "no DPO (STaR)", replace(base, stage="sft")
    harder = replace(cfg.task, level=HARDER[cfg.task.task])
    yield f"harder level {harder.level}", replace(base, task=harder)
    yield (
        f"harder level {harder.level}, untrained",
        replace(base, task=harder, untrained=("generator", "verifier", "refiner")),
    )


def trainings(cfg: malt.Malt) -> Iterator[tuple[str, malt.Malt]]:
    """The ablations that train again, on the same tree of turns."""
    yield "threshold 0.3", replace(cfg, threshold=0.3, baselines="none")
    yield "threshold 0.7", replace(cfg, threshold=0.7, baselines="none")
    yield "generator by DPO too", replace(cfg, dpo_generator=True, baselines="none")


def run(study: Study, task: str, seed: int) -> None:
    main_folder = study.out / f"malt-{task}-{seed}"
    cfg = settings(task, seed, main_folder)
    malt.main(cfg, f"studies/malt.py --task {task} --seeds {seed}")
    write_report(main_folder)
    for name, ablation in evaluations(cfg, main_folder):
        out = study.out / f"{main_folder.name}-{slug(name)}"
        evaluation.main(replace(ablation, out=out), f"studies/malt.py: {name}")
    for name, ablation in trainings(cfg):
        out = study.out / f"{main_folder.name}-{slug(name)}"
        for stage in ("turns", "grades"):  # sealed by their inputs, which are the same
            if not (out / stage).exists():
                shutil.copytree(main_folder / stage, out / stage)
        malt.main(replace(ablation, out=out), f"studies/malt.py: {name}")


def slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def comparison(folder: Path) -> list[Row] | None:
    return read_table(folder / "comparison").rows() if (folder / "comparison" / "DONE.json").exists() else None


def mean_rows(tables: list[list[Row]]) -> list[Row]:
    """One row a system: means over seeds, the standard deviation over seeds, and the pooled standard error."""
    rows = []
    for same in zip(*tables, strict=True):
        spread = over_seeds([row["accuracy"] for row in same])
        count = len(same)
        pooled = sum(row["se"] ** 2 for row in same) ** 0.5 / count
        mean = lambda key, same=same, count=count: sum(row[key] for row in same) / count  # noqa: E731
        columns = ("calls", "prompt_tokens", "completion_tokens", "trained_tokens", "diff", "low", "high")
        rows.append(
            {
                "system": same[0]["system"],
                "accuracy": spread.mean,
                "std": spread.std,
                "se": pooled,
                "n": sum(row["n"] for row in same),
                **{key: mean(key) for key in columns},
            }
        )
    return rows


def markdown(rows: list[Row]) -> list[str]:
    head = (
        "| system | accuracy % | SE | std over seeds | n | calls | prompt tokens | completion tokens "
        "| tokens trained | trained team minus this |"
    )
    lines = [head, "|" + " --- |" * 10]
    for r in rows:
        lines.append(
            f"| {r['system']} | {100 * r['accuracy']:.1f} | {100 * r['se']:.1f} | {100 * r['std']:.1f} | {r['n']} "
            f"| {r['calls']:.0f} | {r['prompt_tokens']:.0f} | {r['completion_tokens']:.0f} "
            f"| {r['trained_tokens'] / 1e6:.2f} M "
            f"| {100 * r['diff']:+.1f} [{100 * r['low']:+.1f}, {100 * r['high']:+.1f}] |"
        )
    return lines


def tables(study: Study) -> list[str]:
    """The results page's tables, from whatever is finished."""
    lines: list[str] = []
    for task in TASKS:
        runs = {s: study.out / f"malt-{task}-{s}" for s in study.seeds}
        done = {s: rows for s, folder in runs.items() if (rows := comparison(folder)) is not None}
        if not done:
            continue
        commits = {json.loads((runs[s] / "comparison" / "DONE.json").read_text())["commit"] for s in done}
        lines += [
            f"## {task}",
            "",
            f"Seeds {', '.join(map(str, done))}; commit {', '.join(sorted(map(str, commits)))}.",
            "",
        ]
        lines += [*markdown(mean_rows(list(done.values()))), ""]
        lines += [*ablation_lines(study, task, list(done)), ""]
    return lines


def ablation_lines(study: Study, task: str, seeds: list[int]) -> list[str]:
    cfg = settings(task, seeds[0], study.out / "unused")
    names = [name for name, _ in [*evaluations(cfg, cfg.out), *trainings(cfg)]]
    rows: list[Row] = []
    for name in names:
        found = [comparison(study.out / f"malt-{task}-{s}-{slug(name)}") for s in seeds]
        last = [[table[-1]] for table in found if table is not None]
        if last:
            rows.append({**mean_rows(last)[0], "system": name})
    if not rows:
        return []
    lines = [
        f"Ablations (all MV@{cfg.votes}):",
        "",
        "| ablation | accuracy % | SE | std over seeds | n |",
        "|" + " --- |" * 5,
    ]
    return lines + [
        f"| {r['system']} | {100 * r['accuracy']:.1f} | {100 * r['se']:.1f} | {100 * r['std']:.1f} | {r['n']} |"
        for r in rows
    ]


def main(study: Study) -> None:
    for seed in study.seeds if study.task else ():
        run(study, study.task, seed)
    if study.write is not None:
        options: dict[str, Any] = yaml.safe_load(SETTINGS.read_text())
        page = study.write.read_text() if study.write.exists() else "# MALT on the house model\n"
        head = page.split("<!-- tables -->")[0].rstrip()
        shown = json.dumps(options)
        study.write.write_text("\n".join([head, "", "<!-- tables -->", "", f"Settings: `{shown}`", "", *tables(study)]))
        print(study.write)


if __name__ == "__main__":
    main(tyro.cli(Study))
