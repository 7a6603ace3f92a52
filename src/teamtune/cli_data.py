"""The commands about data and graders: `teamtune tasks`, `validate-data`, `audit-grader`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table as Printed

from teamtune.cli_options import parsed
from teamtune.grading import Grader, find_grader
from teamtune.grading.audit import (
    Audit,
    audit,
    confusion,
    graded_rows,
    judged,
    read_verdicts,
    write_disagreements,
)
from teamtune.tasks import DATASETS, MADE, TaskSpec, find
from teamtune.tasks.dataset import Columns, Dataset, common
from teamtune.tasks.pool import Place, places
from teamtune.tasks.source import rows_of
from teamtune.tasks.stages import problem_row
from teamtune.tasks.validate import validate
from teamtune.types import TeamtuneError

# Names of other data sets' answers, as recorded outputs have them.
KIN = {"mr_gsm8k": "number", "addsub": "number", "aqua_rat": "choice"}


@dataclass(frozen=True)
class Tasks:
    """List the tasks; or, with --task, print problems of one as JSON lines (--limit of them)."""

    show: Annotated[TaskSpec, tyro.conf.arg(name="")] = TaskSpec(task="", train=5, test=5)
    training: bool = False
    """print problems to train on (--train of them) instead"""


@dataclass(frozen=True)
class Validate:
    """Check every row of a data file, and say what is wrong with which."""

    file: tyro.conf.Positional[str]
    """a file, a folder, a hub name, or - for standard input"""
    split: str = "train"
    """which split of a folder or of the hub"""
    task: str = ""
    """a built-in data set, if the file is in that one's form"""
    grader: str = ""
    """also check that this grader takes the gold answers for right"""
    unlabelled: bool = False
    """look at questions alone: problems to train maft on, whose labels are votes"""
    question_column: str = ""
    answer_column: str = ""
    choices_column: str = ""
    id_column: str = ""
    level_column: str = ""
    subject_column: str = ""
    shown: int = 20
    """how many errors to print"""


@dataclass(frozen=True)
class Audited:
    """Measure how far the graders agree with recorded labels, and list every disagreement."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """files of responses: id, question, gold, response, label, and dataset, source, choices where there are any"""
    grader: str = ""
    """grade all by this one; empty takes that of each data set, or the one that fits the gold answer"""
    verdicts: Path | None = None
    """JSON lines of disagreements that were read: id, whose (label, ours, open), why"""
    out: Path | None = None
    """write the disagreements here, as JSON lines"""
    shown: int = 20
    """how many disagreements to print"""


def tasks(cfg: Tasks) -> None:
    if cfg.show.task:
        for problem in cfg.show.load("train" if cfg.training else "test"):
            print(json.dumps(problem_row(problem), ensure_ascii=False))
        return
    printed = Printed(box=None, padding=(0, 1))
    for head in ("Task", "Published", "Here, or where from", "What"):
        printed.add_column(head, overflow="fold")
    for name in MADE:
        printed.add_row(name, "train, dev, test: without end", "made on the fly", first_line(name))
    for name in DATASETS:
        data: Dataset = find(name).DATASET
        sizes = ", ".join(f"{split} {size:,}" for split, size in data.sizes.items())
        printed.add_row(name, sizes, where(data), first_line(name))
    console = Console()
    console.print(printed)
    base = os.environ.get("TEAMTUNE_DATA")
    console.print(f"Local data are looked for in TEAMTUNE_DATA ({base or 'not set'}).", markup=False, highlight=False)


def where(data: Dataset) -> str:
    """How many problems of a data set are on this machine, by split; else its place on the hub."""
    ours = dict.fromkeys(split for part in data.parts for split in {**data.splits, **part.splits})
    counts = {split: sum(map(rows_here, here(data, split))) for split in ours}
    local = ", ".join(f"{split} {count:,}" for split, count in counts.items() if count)
    return f"here: {local}" if local else (data.hub or data.parts[0].hub)


def here(data: Dataset, split: str) -> list[Place]:
    """The places on this machine that hold problems of a split, whatever parts of it."""
    return [place for place in places(data, split) if Path(place.source).is_dir()]


def rows_here(place: Place) -> int:
    return sum(1 for _ in rows_of(place.source, place.split))


def first_line(name: str) -> str:
    return (find(name).__doc__ or "").strip().split("\n\n")[0].split(" (")[0].replace("\n", " ").rstrip(".")


def validate_data(cfg: Validate) -> None:
    columns = Columns(*(getattr(cfg, f"{name}_column") for name in Columns.__slots__))
    if cfg.task and not hasattr(find(cfg.task), "DATASET"):
        raise TeamtuneError(f"task {cfg.task!r} makes its own problems and has no form of a file; leave out --task")
    for option, told in (("--task", cfg.task), ("--grader", cfg.grader), ("--answer-column", cfg.answer_column)):
        if cfg.unlabelled and told:
            raise TeamtuneError(f"{option} goes by answers, and --unlabelled looks at none; leave one of them out")
    read = find(cfg.task).DATASET.read if cfg.task else partial(common, columns=columns, bare=cfg.unlabelled)
    grader = find_grader(cfg.grader) if cfg.grader else (find(cfg.task).grade if cfg.task else None)
    found = validate(rows_of(cfg.file, cfg.split), read, grader)
    for line in found.errors[: cfg.shown]:
        print(line)
    if len(found.errors) > cfg.shown:
        print(f"... and {len(found.errors) - cfg.shown} more")
    for line in found.warnings:
        print(f"note: {line}")
    print(f"{found.rows:,} rows, {len(found.errors):,} errors")
    if found.errors:
        raise TeamtuneError(f"{cfg.file} has {len(found.errors):,} errors; mend or drop these rows")


def audit_grader(cfg: Audited) -> None:
    if not cfg.files:
        raise TeamtuneError("no file to audit; give files of responses with labels")
    if cfg.out and not cfg.out.resolve().parent.is_dir():
        raise TeamtuneError(f"--out {str(cfg.out)!r} cannot be written: there is no such folder")
    rows = [row for path in cfg.files for row in graded_rows(path)]
    named = {row.get("dataset") for row in rows}
    grader_of: dict[str, Grader] = {}
    if not cfg.grader:
        grader_of = {name: find(name).grade for name in named if name in DATASETS}
        grader_of |= {name: find_grader(KIN[name]) for name in named if name in KIN}
    done = audit(rows, grader_of, find_grader(cfg.grader or "fitting"))
    verdicts = read_verdicts(cfg.verdicts) if cfg.verdicts else {}
    console = Console()
    for by in ("file", "dataset", "source"):
        console.print(confusion_table(done, by))
    for row in done.disagreements[: cfg.shown]:
        verdict = verdicts.get(row["id"])
        told = f" [{verdict['whose']}: {verdict['why']}]" if verdict else ""
        console.print(
            f"{row['id']}: label {row['label']}, ours {row['ours']}; {row['rule']}; {row['reason']}{told}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if len(done.disagreements) > cfg.shown:
        console.print(f"... and {len(done.disagreements) - cfg.shown} more (--shown, or --out FILE for all)")
    if cfg.out:
        write_disagreements(done.disagreements, cfg.out)
    summary(console, done, verdicts)


def confusion_table(done: Audit, by: str) -> Printed:
    printed = Printed(box=None, padding=(0, 1))
    for head in (by, "n", "both right", "both wrong", "ours alone right", "label alone right", "agree %"):
        printed.add_column(head, justify="left" if head == by else "right")
    for row in confusion(done.rows, by):
        cells = [str(row[name]) for name in (by, "n", "right", "wrong", "ours alone right", "label alone right")]
        printed.add_row(*cells, f"{100 * (row['right'] + row['wrong']) / row['n']:.2f}")
    return printed


def summary(console: Console, done: Audit, verdicts: dict[str, dict[str, str]]) -> None:
    n, apart = len(done.rows), len(done.disagreements)
    whose = judged(done.disagreements, verdicts)
    told = ", ".join(f"{who} {count}" for who, count in whose.items()) if verdicts else "no verdicts given"
    rate = n / done.seconds if done.seconds else float("inf")
    console.print(
        f"{n:,} responses, {apart} disagreements ({100 * apart / n:.2f} %; mistakes of: {told}); "
        f"{done.seconds:.1f} s, {rate:,.0f} a second",
        highlight=False,
        soft_wrap=True,
    )


def run(name: str, args: Sequence[str]) -> None:
    """One of the commands, by its name."""
    if name == "tasks":
        tasks(parsed(Tasks, "teamtune tasks", args))
    elif name == "validate-data":
        validate_data(parsed(Validate, "teamtune validate-data", args))
    else:
        audit_grader(parsed(Audited, "teamtune audit-grader", args))
