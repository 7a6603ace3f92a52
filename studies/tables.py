"""Tables of studies: runs that differ in their seed, and so in their problems, as one line a system.

A study outlives its run folders in records, a file for each finished run that holds what its report says in numbers:

    {"run": "maft-stories-0-table", "commits": ["0b071a1"], "tables": {"comparison": [{"system": "Base", ...}], ...},
     "costs": [{"system": "Base", "test_seconds": 31.2, ...}],
     "further_costs": {"transfer/stories-4/comparison": [{"system": "Base", ...}]},
     "labels": [{"iteration": "iteration-1", ...}], "warnings": [],
     "measures": {"Debate": {"vote": {"mean": 0.85, "se": 0.02, "n": 340}, ...}, ...},
     "rounds": {"Debate": [{"round": 1, "values": {...}, "flips": None}, ...], ...},
     "counts": {"iteration-1/sft-rows": {"critic-1: corrected": 62, ...}, ...}}
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from teamtune.evaluate import over_seeds
from teamtune.reporting import facts, read
from teamtune.reporting.costs import costs, costs_elsewhere
from teamtune.store import read_table
from teamtune.types import Row

Records = Mapping[str, Sequence[Row]]
"""the records of a task's runs, by part"""


@dataclass(frozen=True)
class Asked:
    """What a page is about."""

    further: Mapping[str, Sequence[str]]
    """tasks that a task's systems are also tested on"""
    levels: Mapping[str, str]
    pictures: Path
    """the page, beside which its pictures lie"""

    def drawn(self, task: str, what: str, picture: str) -> str:
        """Write a picture beside the page; its name."""
        file = self.pictures.with_name(f"{self.pictures.stem}-{task}-{what}.svg")
        file.write_text(picture)
        return file.name

    def head(self, task: str, done: Records) -> list[str]:
        """What a task's tables stand on."""
        told = ", ".join(f"{len(found)} seeds of {part}" for part, found in done.items())
        made = named_commits(commit for found in done.values() for one in found for commit in one["commits"])
        level = f", level {self.levels[task]}" if task in self.levels else ""
        return [f"## {task}{level}", "", f"{told}; {made}.", ""]


def comparison(folder: Path) -> list[Row] | None:
    return read_table(folder / "comparison").rows() if (folder / "comparison" / "DONE.json").exists() else None


def write_record(file: Path, folder: Path, more: Row | None = None) -> None:
    """Keep what a finished run says: its tables that stand for whole systems, what they cost, how agents differ; and
    what is told by `more`."""
    stages = read.stages(folder, read.options(folder)["config"])
    last = ("comparison", "by-turn", "shifts", "calibration")
    names = [row["name"] for row in stages if row["state"] == "sealed" and row["name"].split("/")[-1] in last]
    team = facts.team(folder, stages)
    found = {
        "run": folder.name,
        "commits": sorted({str(json.loads(one.read_text())["commit"]) for one in folder.rglob("DONE.json")}),
        "tables": {name: read.table(folder, name) for name in names},
        "costs": costs(folder, stages),
        "further_costs": costs_elsewhere(folder, stages),
        "labels": team["labels"],
        "warnings": team["warnings"],
        "measures": {one["name"]: one["values"] for one in team["systems"]},
        "rounds": {one["name"]: one["rounds"] for one in team["systems"]},
        "counts": {row["name"]: row["counts"] for row in stages if row["state"] == "sealed" and row["counts"]},
        **(more or {}),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".part")
    beside.write_text(json.dumps(found, indent=1, default=asdict) + "\n")
    beside.rename(file)


def record_of(records: Path, task: str, seed: int, part: str) -> Path:
    """The file of a run's record."""
    return records / f"{task}-{seed}-{part}.json"


def recorded(records: Path, task: str, seeds: Sequence[int], parts: Iterable[str]) -> dict[str, list[Row]]:
    """The records of a task that are there, by part, in the order of seeds."""
    files = {part: [record_of(records, task, seed, part) for seed in seeds] for part in parts}
    return {part: [json.loads(file.read_text()) for file in own if file.exists()] for part, own in files.items()}


def take_over(source: Path, out: Path, names: Collection[str]) -> None:
    """Copy sealed stages of another run of the seed that this one will need: they are sealed by their inputs, which are
    the same. A training's curves come along."""
    taken = [name for name in names if (source / name / "DONE.json").exists() and not (out / name).exists()]
    for name in taken:
        beside = out / f"{name}.part"
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(source / name, beside)
        beside.rename(out / name)
    if taken:
        lines = (source / "metrics.jsonl").read_text().splitlines(keepends=True)
        with (out / "metrics.jsonl").open("a") as file:
            file.writelines(line for line in lines if json.loads(line)["stage"] in taken)


def tables_of(records: Iterable[Row], name: str = "comparison") -> list[list[Row]]:
    """A table of every record that has it."""
    return [one["tables"][name] for one in records if one["tables"].get(name)]


def joined(some: Sequence[Row], others: Sequence[Row], name: str = "comparison") -> list[list[Row]]:
    """The systems of two runs of every seed that has both, on the same problems beside the same team; the second run's
    where the first has them not, before the team itself, which stands last."""
    if not others:
        return tables_of(some, name)
    seeds = {seed_of(one): one for one in others}
    found = []
    for one in some:
        if (other := seeds.get(seed_of(one))) is not None:
            rows = one["tables"][name]
            team, names = rows[-1]["system"], {row["system"] for row in rows}
            more = [row for row in other["tables"][name] if row["system"] not in names]
            own = lambda row, team=team: row["system"] == team  # noqa: E731
            found.append([*(row for row in rows if not own(row)), *more, *filter(own, rows)])
    return found


def seed_of(record: Row) -> str:
    """The 1 of maft-stories-1-table."""
    return record["run"].split("-")[-2]


def over_runs(tables: list[list[Row]]) -> list[Row]:
    """One row a system: mean and standard deviation over seeds, and the error of the mean over problems.

    Seeds have problems of their own, so variances add up; so do those of the intervals of the differences.
    """
    rows = []
    by_name = [{aligned(row["system"]): row for row in one} for one in tables]
    for name in dict.fromkeys(name for one in by_name for name in one):
        same = [one[name] for one in by_name if name in one]
        count = len(same)
        mean = lambda key, same=same, count=count: sum(row[key] for row in same) / count  # noqa: E731
        accuracies = [row["accuracy"] for row in same]
        diff, half = mean_and_half(same)
        columns = ("accuracy", "calls", "prompt_tokens", "completion_tokens", "trained_tokens")
        shared = [row.get("consensus") for row in same]
        rows.append(
            {
                "system": named(row["system"] for row in same),
                "consensus": None if None in shared else sum(shared) / count,
                "std": over_seeds(accuracies).std if count > 1 else None,
                "se": sum(row["se"] ** 2 for row in same) ** 0.5 / count,
                "n": sum(row["n"] for row in same),
                "diff": diff,
                "half": half,
                **{key: mean(key) for key in columns},
            }
        )
    return rows


def mean_and_half(
    rows: Sequence[Row], value: str = "diff", low: str = "low", high: str = "high"
) -> tuple[float, float]:
    """The mean over seeds, whose problems are others, of a number, and half of its 95 % interval."""
    half = sum(((row[high] - row[low]) / 2) ** 2 for row in rows) ** 0.5 / len(rows)
    return sum(row[value] for row in rows) / len(rows), half


def named(names: Iterable[str]) -> str:
    """One name for a line; where a number in it depends on the seed, n stands for it."""
    different = set(names)
    return different.pop() if len(different) == 1 else re.sub(r"\d+", "n", different.pop())


def aligned(name: str) -> str:
    """A name without the number of answers that depends on the seed, those of equal calls or tokens."""
    return re.sub(r"\d+ \(equal", "n (equal", name)


def percent(value: float | None, form: str = ".1f") -> str:
    return "" if value is None else format(100 * value, form)


def table(head: str, rows: list[str]) -> list[str]:
    return [head, "|" + " --- |" * (head.count("|") - 1), *rows, ""]


def main_table(rows: list[Row]) -> list[str]:
    return table(
        "| system | accuracy % | SE | std over seeds | n | calls | prompt tokens | completion tokens "
        "| tokens trained | trained team minus this |",
        [
            f"| {r['system']} | {percent(r['accuracy'])} | {percent(r['se'])} | {percent(r['std'])} | {r['n']} "
            f"| {r['calls']:.0f} | {r['prompt_tokens']:.0f} | {r['completion_tokens']:.0f} "
            f"| {r['trained_tokens'] / 1e6:.2f} M | {percent(r['diff'], '+.1f')} ± {percent(r['half'])} |"
            for r in rows
        ],
    )


def commits(folders: Iterable[Path]) -> str:
    """The commits that runs ended at, as text."""
    return named_commits(json.loads((one / "comparison" / "DONE.json").read_text())["commit"] for one in folders)


def named_commits(found: Iterable[str]) -> str:
    return f"commit {', '.join(sorted({str(one)[:7] for one in found}))}"


def write_page(file: Path, title: str, settings: Path, lines: Sequence[str]) -> None:
    """Write the tables below the marker; the words above it stay."""
    options: dict[str, Any] = yaml.safe_load(settings.read_text())
    text = file.read_text() if file.exists() else title
    head = text.split("<!-- tables -->")[0].rstrip()
    file.write_text("\n".join([head, "", "<!-- tables -->", "", f"Settings: `{json.dumps(options)}`", "", *lines]))
    print(file)
