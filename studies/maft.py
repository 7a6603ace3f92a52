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

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import get_args

import tyro
from maft_page import page
from tables import Asked, record_of, recorded, take_over, write_page, write_record

from teamtune.cli_options import file_arguments
from teamtune.identity import canonical
from teamtune.memory import hold_freed_memory, keep_few_kernels
from teamtune.recipes import maft
from teamtune.recipes.maft_team import Rival
from teamtune.report import write_report
from teamtune.reporting import read

SETTINGS = Path(__file__).with_name("maft.yaml")
TASKS = ("arithmetic", "stories")
LEVELS = {"stories": "4"}
"""stories one level up: on dev problems of the usual one the untrained debate leaves nothing to gain (docs/log.md)"""
FURTHER = {"arithmetic": ("stories:4", "arithmetic:4"), "stories": ("arithmetic", "stories:5")}
ITERATIONS = 5

BASELINES: tuple[Rival, ...] = ("majority", "debate", "star", "majority-ft", "single-ft", "union-ft")
ABLATIONS = ("debate", *(name for name in get_args(Rival) if name not in BASELINES))
TRANSFERRED: tuple[Rival, ...] = ("majority", "debate", "majority-ft", "single-ft")
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
    """run this task's experiments, or those of all; empty: run nothing"""
    seeds: tuple[int, ...] = (0, 1, 2)
    parts: tuple[str, ...] = PARTS
    """which of the experiments to run, in this order for all seeds"""
    again: bool = False
    """run nothing, and write the records of finished runs again"""
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
            take_over(source := folder(study, task, seed, other), cfg.out, shared(source, cfg))
    maft.main(cfg, f"studies/maft.py --task {task} --seeds {seed} --parts {part}")
    write_report(cfg.out)
    write_record(record, cfg.out)


def record_again(study: Study, task: str, seed: int, part: str) -> None:
    """Write the record of a finished run whose folder is there, with all that records hold by now."""
    out = folder(study, task, seed, part)
    if (out / "comparison" / "DONE.json").exists():
        write_record(record_of(study.records, task, seed, part), out)


def shared(source: Path, cfg: maft.Maft) -> list[str]:
    """The sealed stages of another run of the seed that this one will need. What a debate was measured for comes with
    it."""
    above = lambda name: name.rpartition("/")[0]  # noqa: E731
    needed = [name for name in read.expected(canonical(cfg, cfg.out, whole=True)) if name != "comparison"]
    played = {above(name) for name in needed if name.startswith("test/")} - {LAST}
    there = sorted(str(file.parent.relative_to(source)) for file in source.rglob("DONE.json"))
    return [name for name in there if above(name) in played or (name in needed and above(name) != LAST)]


def main(study: Study) -> None:
    hold_freed_memory()
    keep_few_kernels()
    for task in TASKS if study.task == "all" else filter(None, [study.task]):
        for part, seed in product(study.parts, study.seeds):
            (record_again if study.again else run)(study, task, seed, part)
    if study.write is not None:
        found = {task: recorded(study.records, task, study.seeds, PARTS) for task in TASKS}
        lines = page(found, Asked(FURTHER, LEVELS, study.write), ITERATIONS)
        write_page(study.write, "# Multiagent Finetuning on the house model\n", SETTINGS, lines)


if __name__ == "__main__":
    main(tyro.cli(Study))
