"""The Multiagent Finetuning study on the house model: both tasks, several seeds -> docs/results/maft.md.

    python studies/maft.py --out runs/maft --task stories         # one task; run both at once on two cores
    python studies/maft.py --out runs/maft --task arithmetic
    python studies/maft.py --out runs/maft --write docs/results/maft.md

For every seed, on problems of its own: all baselines and ablations with one iteration, and transfer to the other task
and a harder level; five iterations beside those of a single agent; five agents. Every run is an ordinary `teamtune
maft` run folder; a killed study goes on where it was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import get_args

import tyro
from tables import commits, comparison, named, over_runs, percent, table, write_page

from teamtune.cli_options import file_arguments
from teamtune.evaluate import Estimate
from teamtune.memory import hold_freed_memory
from teamtune.recipes import maft
from teamtune.recipes.maft_team import Rival
from teamtune.report import write_report
from teamtune.reporting import facts, read, svg
from teamtune.reporting.costs import costs as run_costs
from teamtune.reporting.debate_sections import IN_PERCENT, NAMED
from teamtune.types import Row

SETTINGS = Path(__file__).with_name("maft.yaml")
TASKS = ("arithmetic", "stories")
LEVELS = {"stories": "4"}
"""stories one level up: on dev problems of the usual one the untrained debate leaves nothing to gain (docs/log.md)"""
FURTHER = {"arithmetic": ("stories:4", "arithmetic:4"), "stories": ("arithmetic", "stories:5")}
ABLATIONS = ("without", "one generator", "unique ids", "cooperative", "temperature", "Single-agent FT")
ITERATIONS = 5
CURVES = ("vote", "consensus", "entropy", "disagreement", "copied", "nll", "kl", "base_kl", "first_kl", "first_base_kl")
CURVES += ("dissimilarity",)


@dataclass(frozen=True)
class Study:
    out: Path
    """folder of the study's runs"""
    task: str = ""
    """run this task's experiments; empty: run nothing"""
    seeds: tuple[int, ...] = (0, 1, 2)
    parts: tuple[str, ...] = ("table", "five", "agents")
    """which of the experiments to run, in this order for all seeds"""
    write: Path | None = None
    """write the tables of the finished runs to this file, and its pictures beside it"""


def settings(task: str, seed: int, out: Path) -> maft.Maft:
    """The options that all runs of a seed share; it also chooses the problems."""
    args = [*file_arguments(SETTINGS), "--task", task, "--out", str(out), "--seed", str(seed)]
    cfg = tyro.cli(maft.Maft, args=args)
    return replace(cfg, task=replace(cfg.task, data_seed=seed, level=LEVELS.get(task, "")))


def folder(study: Study, task: str, seed: int, part: str) -> Path:
    return study.out / f"maft-{task}-{seed}-{part}"


def experiments(study: Study, task: str, seed: int) -> Mapping[str, maft.Maft]:
    """The runs of a seed, by part."""

    def cfg(part: str) -> maft.Maft:
        return settings(task, seed, folder(study, task, seed, part))

    return {
        "table": replace(cfg("table"), baselines=get_args(Rival), eval_tasks=FURTHER[task]),
        "five": replace(cfg("five"), iterations=ITERATIONS, baselines=("debate", "single-ft")),
        "agents": replace(cfg("agents"), agents=5, baselines=("majority", "debate", "majority-ft")),
    }


def run(study: Study, task: str, seed: int, part: str) -> None:
    cfg = experiments(study, task, seed)[part]
    if part == "five":  # its first iteration is that of the table: sealed by their inputs, which are the same
        source = folder(study, task, seed, "table")
        same = ("problems", "iteration-1", "single-ft/iteration-1")
        for name in (*same, *(f"test/{place}" for place in ("base", "iteration-1", "single-ft-1"))):
            if comparison(source) is not None and not (cfg.out / name).exists():
                beside = cfg.out / f"{name}.part"
                shutil.rmtree(beside, ignore_errors=True)
                shutil.copytree(source / name, beside)
                beside.rename(cfg.out / name)
        copy_metrics(source, cfg.out, same)
    maft.main(cfg, f"studies/maft.py --task {task} --seeds {seed} --parts {part}")
    write_report(cfg.out)


def copy_metrics(source: Path, out: Path, stages: Sequence[str]) -> None:
    """The training curves of the stages that were copied; a run that has begun has them."""
    file = out / "metrics.jsonl"
    if not file.exists() and (source / file.name).exists():
        lines = (source / file.name).read_text().splitlines(keepends=True)
        out.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(line for line in lines if json.loads(line)["stage"].startswith(tuple(stages))))


# ---- tables ----------------------------------------------------------------------------------------------------------


def system_lines(rows: Sequence[Row]) -> list[str]:
    return [
        f"| {r['system']} | {percent(r['accuracy'])} | {percent(r['se'])} | {percent(r['std'])} | {r['n']} "
        f"| {percent(r['consensus'])} | {r['calls']:.0f} | {r['prompt_tokens'] + r['completion_tokens']:.0f} "
        f"| {percent(r['diff'], '+.1f')} ± {percent(r['half'])} |"
        for r in rows
    ]


SYSTEMS = "| system | accuracy % | SE | std over seeds | n | consensus % | calls | tokens | team minus this |"


def compared(found: Sequence[list[Row]], ablations: bool | None = None) -> list[str]:
    """The systems of the table runs: all, the baselines, or the ablations; the team is in each."""
    rows = over_runs(list(found))
    is_ablation = lambda row: any(part in row["system"] for part in ABLATIONS)  # noqa: E731
    kept = [r for r in rows if ablations is None or r is rows[-1] or is_ablation(r) == ablations]
    return table(SYSTEMS, system_lines(kept))


def costs(folders: Sequence[Path]) -> list[str]:
    """Means over seeds of what every system cost."""
    gathered = [{row["system"]: row for row in costs_of(one)} for one in folders]
    lines = []
    tables = [comparison(one) or [] for one in folders]
    for same in zip(*tables, strict=True):
        own = [found[row["system"]] for found, row in zip(gathered, same, strict=True)]
        mean = lambda key, own=own: sum(one[key] or 0 for one in own) / len(own)  # noqa: E731
        each = [one["tokens"] for row in same for one in row["trained"]]
        a_row = f"{sum(each) / len(each) / 1000:.0f} k" if each else ""
        total = sum(row["trained_tokens"] for row in same) / len(same) / 1000
        peak = max(one["peak_mb"] or 0 for one in own)
        lines.append(
            f"| {named(row['system'] for row in same)} | {total:.0f} k | {a_row} | {mean('parameters') / 1000:.0f} k "
            f"| {mean('train_seconds'):.0f} | {mean('test_seconds'):.0f} | {peak:.0f} |"
        )
    head = "| system | trained tokens | of one agent | trainable parameters | s to train | s to answer | peak MB |"
    return table(head, lines)


def costs_of(one: Path) -> list[Row]:
    return run_costs(one, read.stages(one, read.options(one)["config"]))


Told = Mapping[str, Mapping[str, Estimate]]


@cache
def followed(one: Path) -> Row:
    """What a report tells of a run's debates, gathered once: of a page's tables several need it."""
    return facts.team(one, read.stages(one, read.options(one)["config"]))


def told(one: Path) -> Told:
    """Every measure of every debate of a run, {system: {measure: estimate}}."""
    found = followed(one)
    return {system["name"]: system["values"] for system in found["systems"]}


def pooled(runs: Sequence[Told], system: str, measure: str) -> Estimate | None:
    """Over seeds, whose problems are others: the mean of means, its error, all problems."""
    own = [run[system][measure] for run in runs if measure in run.get(system, {})]
    if not own:
        return None
    se = sum(one.se**2 for one in own) ** 0.5 / len(own)
    return Estimate(sum(one.mean for one in own) / len(own), se, sum(one.n for one in own))


def cell(one: Estimate | None, measure: str) -> str:
    if one is None:
        return ""
    scale, digits = (100, 1) if measure in IN_PERCENT else (1, 3)
    return f"{scale * one.mean:.{digits}f} ± {scale * one.se:.{digits}f}"


def differences(runs: Sequence[Told], systems: Sequence[str], measures: Sequence[str] = CURVES) -> list[str]:
    lines = [f"| {s} | {' | '.join(cell(pooled(runs, s, m), m) for m in measures)} |" for s in systems]
    return table(f"| system | {' | '.join(NAMED[m] for m in measures)} |", lines)


def curves(runs: Sequence[Told]) -> Iterator[tuple[str, str]]:
    """(measure, picture) over the iterations of the team and of the single agent; 0 is the untrained debate."""
    methods = ("MAFT", "Single-agent FT")
    for measure in CURVES:
        lines = []
        for method in methods:
            names = ["Debate", *(f"{method}, iteration {n}" for n in range(1, ITERATIONS + 1))]
            found = [(float(n), pooled(runs, name, measure)) for n, name in enumerate(names)]
            points = [(n, one.mean) for n, one in found if one is not None]
            lines += [(method, points)] if len(points) > 1 else []
        if lines:
            yield measure, svg.standalone(svg.lines_over(lines, methods, NAMED[measure], "iteration"))


def labels(folders: Sequence[Path]) -> list[str]:
    """Right pseudo-labels of every iteration's debates."""
    lines = []
    for one in folders:
        for row in followed(one)["labels"]:
            margins = "; ".join(f"{b['margin']:.2f}: {percent(b['precision'])} ({b['n']})" for b in row["bins"])
            told_ = f"{percent(row['precision'])} ± {percent(row['se'])}"
            lines.append(f"| {one.name} | {row['iteration']} | {told_} | {row['n']} | {margins} |")
    return table("| run | iteration | right labels % | n | by margin: % (n) |", lines) if lines else []


def warnings(folders: Sequence[Path]) -> list[str]:
    rows = [f"* {one.name}: {row['system']}: {row['warning']}." for one in folders for row in followed(one)["warnings"]]
    return [*rows, ""] if rows else ["None.", ""]


def page(study: Study, pictures: Path) -> list[str]:
    """The results page's tables, from whatever is finished."""
    lines: list[str] = []
    for task in TASKS:
        done = {
            part: [f for s in study.seeds if comparison(f := folder(study, task, s, part)) is not None]
            for part in ("table", "five", "agents")
        }
        tables, five, agents = ([comparison(f) or [] for f in done[part]] for part in ("table", "five", "agents"))
        if not tables:
            continue
        level = f", level {LEVELS[task]}" if task in LEVELS else ""
        lines += [f"## {task}{level}", "", f"{len(tables)} seeds; {commits(done['table'])}.", ""]
        lines += ["### Baselines", "", *compared(tables, ablations=False)]
        lines += ["### Ablations", "", *compared(tables, ablations=True)]
        lines += ["### Costs", "", *costs(done["table"])]
        for name in (told_.replace(":", "-") for told_ in FURTHER[task]):
            found = [rows for f in done["table"] if (rows := read.table(f, f"transfer/{name}/comparison"))]
            lines += [f"### Trained on {task}, tested on {name}", "", *compared(found)] if found else []
        runs = [told(f) for f in done["table"]]
        lines += ["### How the agents differ", "", *differences(runs, list(runs[0]))]
        if five:
            lines += ["### Five iterations", "", *compared(five)]
            runs = [told(f) for f in done["five"]]
            lines += differences(runs, list(runs[0]))
            for measure, picture in curves(runs):
                file = pictures.with_name(f"{pictures.stem}-{task}-{measure}.svg")
                file.write_text(picture)
                lines += [f"![{NAMED[measure]} over iterations]({file.name})", ""]
            lines += ["Signs of a collapse:", "", *warnings(done["five"])]
        if agents:
            lines += ["### Five agents", "", *compared(agents)]
        lines += ["### Pseudo-labels", "", *labels([*done["table"], *done["five"], *done["agents"]])]
    return lines


def main(study: Study) -> None:
    hold_freed_memory()
    for part in study.parts if study.task else ():
        for seed in study.seeds:
            run(study, study.task, seed, part)
    if study.write is not None:
        write_page(study.write, "# Multiagent Finetuning on the house model\n", SETTINGS, page(study, study.write))


if __name__ == "__main__":
    main(tyro.cli(Study))
