"""The Multiagent Finetuning study on the house model: both tasks, several seeds -> docs/results/maft.md.

    python studies/maft.py --out runs/maft --task stories         # one task; run both at once on two cores
    python studies/maft.py --out runs/maft --task arithmetic
    python studies/maft.py --write docs/results/maft.md

For every seed, on problems of its own: all baselines with one iteration; all ablations; transfer to the other task and
a harder level; five iterations beside those of a single agent; five agents. Every run is an ordinary `teamtune maft`
run folder, and takes over from the seed's other runs what is the same; a killed study goes on where it was. What a
finished run says is recorded in a file of its own in `--records`, which the tables are made of; a recorded run is not
made again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import tyro
from tables import (
    named,
    named_commits,
    over_runs,
    percent,
    record_of,
    recorded,
    table,
    tables_of,
    write_page,
    write_record,
)

from teamtune.cli_options import file_arguments
from teamtune.evaluate import Estimate
from teamtune.identity import canonical
from teamtune.memory import hold_freed_memory, keep_few_kernels
from teamtune.recipes import maft
from teamtune.recipes.maft_team import Rival
from teamtune.report import write_report
from teamtune.reporting import read, svg
from teamtune.reporting.debate_sections import IN_PERCENT, NAMED
from teamtune.types import Row

SETTINGS = Path(__file__).with_name("maft.yaml")
TASKS = ("arithmetic", "stories")
LEVELS = {"stories": "4"}
"""stories one level up: on dev problems of the usual one the untrained debate leaves nothing to gain (docs/log.md)"""
FURTHER = {"arithmetic": ("stories:4", "arithmetic:4"), "stories": ("arithmetic", "stories:5")}
ITERATIONS = 5
CURVES = ("vote", "consensus", "entropy", "disagreement", "copied", "nll", "kl", "base_kl", "first_kl", "first_base_kl")
CURVES += ("dissimilarity",)


BASELINES: tuple[Rival, ...] = ("majority", "debate", "star", "majority-ft", "single-ft", "union-ft")
ABLATIONS = ("debate", *(name for name in get_args(Rival) if name not in BASELINES))
TRANSFERRED: tuple[Rival, ...] = ("debate", "majority-ft", "single-ft")
SAME_TEAM = ("table", "ablations", "transfer", "five")
PARTS = (*SAME_TEAM, "agents")
LAST = "test/single-ft-solo"
"""the last iteration's, so that runs of other iterations have another"""


@dataclass(frozen=True)
class Study:
    out: Path = Path("runs/maft")
    """folder of the study's runs"""
    records: Path = Path(__file__).parent.parent / "docs/results/maft"
    """folder of what the finished runs say, a file each"""
    task: str = ""
    """run this task's experiments; empty: run nothing"""
    seeds: tuple[int, ...] = (0, 1, 2)
    parts: tuple[str, ...] = PARTS
    """which of the experiments to run, in this order for all seeds"""
    write: Path | None = None
    """write the tables of the recorded runs to this file, and its pictures beside it"""


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
        "table": replace(cfg("table"), baselines=BASELINES),
        "ablations": replace(cfg("ablations"), baselines=ABLATIONS),
        "transfer": replace(cfg("transfer"), baselines=TRANSFERRED, eval_tasks=FURTHER[task]),
        "five": replace(cfg("five"), iterations=ITERATIONS, baselines=("debate", "single-ft")),
        "agents": replace(cfg("agents"), agents=5, baselines=("majority", "debate", "majority-ft")),
    }


def run(study: Study, task: str, seed: int, part: str) -> None:
    record = record_of(study.records, task, seed, part)
    if record.exists():
        print(f"{record} is there: not run again")
        return
    cfg = experiments(study, task, seed)[part]
    for other in SAME_TEAM if part in SAME_TEAM else ():
        if other != part:
            take_over(folder(study, task, seed, other), cfg)
    maft.main(cfg, f"studies/maft.py --task {task} --seeds {seed} --parts {part}")
    write_report(cfg.out)
    write_record(record, cfg.out)


def take_over(source: Path, cfg: maft.Maft) -> None:
    """Copy the sealed stages of another run of the seed that this one will need: they are sealed by their inputs, which
    are the same. What a debate was measured for comes with it, and a fit's curves."""
    above = lambda name: name.rpartition("/")[0]  # noqa: E731
    needed = [name for name in read.expected(canonical(cfg, cfg.out, whole=True)) if name != "comparison"]
    played = {above(name) for name in needed if name.startswith("test/")} - {LAST}
    there = sorted(str(file.parent.relative_to(source)) for file in source.rglob("DONE.json"))
    wanted = [name for name in there if above(name) in played or (name in needed and above(name) != LAST)]
    taken = [name for name in wanted if not (cfg.out / name).exists()]
    for name in taken:
        beside = cfg.out / f"{name}.part"
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(source / name, beside)
        beside.rename(cfg.out / name)
    if taken:
        lines = (source / "metrics.jsonl").read_text().splitlines(keepends=True)
        with (cfg.out / "metrics.jsonl").open("a") as file:
            file.writelines(line for line in lines if json.loads(line)["stage"] in taken)


# ---- tables ----------------------------------------------------------------------------------------------------------


def system_lines(rows: Sequence[Row]) -> list[str]:
    return [
        f"| {r['system']} | {percent(r['accuracy'])} | {percent(r['se'])} | {percent(r['std'])} | {r['n']} "
        f"| {percent(r['consensus'])} | {r['calls']:.0f} | {r['prompt_tokens'] + r['completion_tokens']:.0f} "
        f"| {percent(r['diff'], '+.1f')} ± {percent(r['half'])} |"
        for r in rows
    ]


SYSTEMS = "| system | accuracy % | SE | std over seeds | n | consensus % | calls | tokens | team minus this |"


def compared(found: Sequence[list[Row]]) -> list[str]:
    """The systems of some seeds' runs."""
    return table(SYSTEMS, system_lines(over_runs(list(found))))


def costs(records: Sequence[Row]) -> list[str]:
    """Means over seeds of what every system cost."""
    gathered = [{row["system"]: row for row in one["costs"]} for one in records]
    lines = []
    for same in zip(*tables_of(records), strict=True):
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


Told = Mapping[str, Mapping[str, Estimate]]


def told(record: Row) -> Told:
    """Every measure of every debate of a run, {system: {measure: estimate}}."""
    found = record["measures"].items()
    return {name: {key: Estimate(**value) for key, value in values.items()} for name, values in found}


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


def labels(records: Sequence[Row]) -> list[str]:
    """Right pseudo-labels of every iteration's debates."""
    lines = []
    for one in records:
        for row in one["labels"]:
            margins = "; ".join(f"{b['margin']:.2f}: {percent(b['precision'])} ({b['n']})" for b in row["bins"])
            told_ = f"{percent(row['precision'])} ± {percent(row['se'])}"
            lines.append(f"| {one['run']} | {row['iteration']} | {told_} | {row['n']} | {margins} |")
    return table("| run | iteration | right labels % | n | by margin: % (n) |", lines) if lines else []


def warnings(records: Sequence[Row]) -> list[str]:
    found = [(one["run"], row) for one in records for row in one["warnings"]]
    rows = [f"* {run}: {row['system']}: {row['warning']}." for run, row in found]
    return [*rows, ""] if rows else ["None.", ""]


def page(study: Study, pictures: Path) -> list[str]:
    """The results page's tables, from whatever is recorded."""
    lines: list[str] = []
    for task in TASKS:
        done = recorded(study.records, task, study.seeds, PARTS)
        tables, ablations, _, five, agents = (tables_of(done[part]) for part in PARTS)
        if not tables:
            continue
        level = f", level {LEVELS[task]}" if task in LEVELS else ""
        seeds = ", ".join(f"{len(done[part])} seeds of {part}" for part in PARTS)
        made = named_commits(commit for part in PARTS for one in done[part] for commit in one["commits"])
        lines += [f"## {task}{level}", "", f"{seeds}; {made}.", ""]
        lines += ["### Baselines", "", *compared(tables)]
        lines += ["### Ablations", "", *compared(ablations)] if ablations else []
        lines += ["### Costs", "", *costs(done["table"])]
        for name in (told_.replace(":", "-") for told_ in FURTHER[task]):
            found = tables_of(done["transfer"], f"transfer/{name}/comparison")
            lines += [f"### Trained on {task}, tested on {name}", "", *compared(found)] if found else []
        lines += ["### How the agents differ", ""]
        for part in ("table", "ablations"):
            runs = [told(one) for one in done[part]]
            lines += differences(runs, list(runs[0])) if runs else []
        if five:
            lines += ["### Five iterations", "", *compared(five)]
            runs = [told(one) for one in done["five"]]
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
    keep_few_kernels()
    for part in study.parts if study.task else ():
        for seed in study.seeds:
            run(study, study.task, seed, part)
    if study.write is not None:
        write_page(study.write, "# Multiagent Finetuning on the house model\n", SETTINGS, page(study, study.write))


if __name__ == "__main__":
    main(tyro.cli(Study))
