"""The MAPoRL study on the house model: both tasks, several seeds, all baselines, incentives -> docs/results/maporl.md.

    python studies/maporl.py --out runs/maporl --task stories        # one task; run both at once on two cores
    python studies/maporl.py --out runs/maporl --task arithmetic
    python studies/maporl.py --write docs/results/maporl.md

For every seed, on problems of its own: a scorer; the team with all baselines, discussions of other sizes and the other
task; discussions of two turns with each incentive by itself. Every run is an ordinary `teamtune scorer train` or
`teamtune maporl` run folder; a killed study goes on where it was. What a finished run says is recorded in a file of its
own in `--records`, which the tables are made of; a recorded run is not made again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import tyro
import yaml
from tables import named_commits, over_runs, percent, record_of, recorded, table, tables_of, write_page, write_record

from teamtune.cli_options import file_arguments
from teamtune.memory import hold_freed_memory, keep_few_kernels
from teamtune.recipes import maporl, scorer
from teamtune.recipes.maporl_team import Rival
from teamtune.report import write_report
from teamtune.reporting import read, svg
from teamtune.reporting.discussion_sections import over_updates
from teamtune.transitions import CELLS, MAJORITY, MOVES
from teamtune.types import Row

SETTINGS = Path(__file__).with_name("maporl.yaml")
SCORER = Path(__file__).with_name("maporl_scorer.yaml")
TASKS = ("arithmetic", "stories")
LEVELS = {"stories": "4"}
"""stories one level up, where the untrained discussion leaves something to gain (docs/log.md)"""
FURTHER = {"arithmetic": ("stories:4",), "stories": ("arithmetic",)}
SIZES = ("3x3", "2x3", "5x2")
CURVES = ("accuracy", "score", "reward", "base_kl", "length")


PARTS = ("table", "incentives")


@dataclass(frozen=True)
class Study:
    out: Path = Path("runs/maporl")
    """folder of the study's runs"""
    records: Path = Path(__file__).parent.parent / "docs/results/maporl"
    """folder of what the finished runs say, a file each"""
    task: str = ""
    """run this task's experiments; empty: run nothing"""
    seeds: tuple[int, ...] = (0, 1, 2)
    parts: tuple[str, ...] = PARTS
    """which of the experiments to run, in this order for all seeds; both need the scorer, which is made first"""
    write: Path | None = None
    """write the tables of the recorded runs to this file, and its pictures beside it"""


def folder(study: Study, task: str, seed: int, part: str) -> Path:
    return study.out / f"maporl-{task}-{seed}-{part}"


def scorer_settings(study: Study, task: str, seed: int) -> scorer.ScorerTraining:
    """The scorer of a seed, on the first of the problems that it is given."""
    args = [*file_arguments(SCORER), "--task", task, "--out", str(folder(study, task, seed, "scorer"))]
    cfg = tyro.cli(scorer.ScorerTraining, args=[*args, "--seed", str(seed)])
    return replace(cfg, task=replace(cfg.task, data_seed=seed, level=LEVELS.get(task, "")))


def experiments(study: Study, task: str, seed: int) -> Mapping[str, maporl.Maporl]:
    """The runs of a seed, by part."""
    args = [*file_arguments(SETTINGS), "--task", task, "--out", str(study.out), "--seed", str(seed)]
    args += ["--scorer-from", str(folder(study, task, seed, "scorer"))]
    cfg = tyro.cli(maporl.Maporl, args=args)
    cfg = replace(cfg, task=replace(cfg.task, data_seed=seed, level=LEVELS.get(task, "")))
    out = lambda part: folder(study, task, seed, part)  # noqa: E731
    every = tuple(name for name in get_args(Rival) if name != "incentives")
    return {
        "table": replace(cfg, out=out("table"), baselines=every, sizes=SIZES, eval_tasks=FURTHER[task]),
        # Both turns learn: what beta pays for is said in the first.
        "incentives": replace(
            cfg,
            out=out("incentives"),
            turns=2,
            first_turn="trained",
            sizes=("2x2",),
            baselines=("off-the-shelf", "incentives"),
        ),
    }


def run(study: Study, task: str, seed: int, part: str) -> None:
    record = record_of(study.records, task, seed, part)
    if record.exists():
        print(f"{record} is there: not run again")
        return
    told = f"studies/maporl.py --task {task} --seeds {seed} --parts {part}"
    first = scorer_settings(study, task, seed)
    scorer.train(first, told)
    cfg = experiments(study, task, seed)[part]
    maporl.main(cfg, told)
    for file, out in ((record_of(study.records, task, seed, "scorer"), first.out), (record, cfg.out)):
        write_report(out)
        write_record(file, out, learned(out))


def learned(one: Path) -> Row:
    """What a run and its trainings took, in seconds and generated tokens, from which update on scores rose without
    accuracy, and the team's metrics of every turn over the updates."""
    stages, metrics = read.stages(one, read.options(one)["config"]), read.metrics(one)
    team = [row for row in metrics if row["stage"] == "ppo"]
    trained = [row for row in stages if row["name"].endswith("ppo")]
    lines = {row["name"]: [line for line in metrics if line["stage"] == row["name"]] for row in trained}
    return {
        "seconds": sum(row["seconds"] for row in stages if row["state"] == "sealed"),
        "trainings": {row["name"]: row["seconds"] for row in trained},
        "generated": {name: sum(line["generated_tokens"] for line in own) for name, own in lines.items()},
        "alarms": {name: [line["step"] for line in own if line["alarm"]] for name, own in lines.items()},
        "updates": {metric: over_updates(team, metric) for metric in CURVES},
    }


# ---- tables ----------------------------------------------------------------------------------------------------------


def turn_by_turn(tables: Sequence[list[Row]]) -> list[str]:
    """The majority's accuracy after every turn, means over seeds, whose problems are others; in brackets against the
    untrained discussion after the same turn."""
    systems = list(dict.fromkeys(row["system"] for row in tables[0]))
    turns = sorted({row["turn"] for row in tables[0]})
    lines = []
    for name in systems:
        cells, count = [], 0
        for turn in turns:
            same = [row for rows in tables for row in rows if row["system"] == name and row["turn"] == turn]
            count = sum(row["n"] for row in same) or count
            cells.append(after_turn(same))
        lines.append(f"| {name} | {count} | {' | '.join(cells)} |")
    return table(f"| system | n | {' | '.join(f'turn {turn}' for turn in turns)} |", lines)


def after_turn(rows: Sequence[Row]) -> str:
    """One cell: accuracy ± SE, and the difference with half of its 95 % interval."""
    if not rows:
        return ""
    k = len(rows)
    mean = sum(row["accuracy"] for row in rows) / k
    error = sum(row["se"] ** 2 for row in rows) ** 0.5 / k
    told = f"{percent(mean)} ± {percent(error)}"
    if any(row["diff"] is None for row in rows):
        return told
    diff = sum(row["diff"] for row in rows) / k
    half = sum(((row["high"] - row["low"]) / 2) ** 2 for row in rows) ** 0.5 / k
    return f"{told} ({percent(diff, '+.1f')} ± {percent(half)})"


def moves(tables: Sequence[list[Row]]) -> list[str]:
    """How answers moved, in % of all agents' answers of all seeds."""
    columns = (*MOVES, *CELLS)
    names = dict.fromkeys((row["system"], row["turn"]) for row in tables[0] if row["turn"] > 1)
    lines = []
    for name, turn in names:
        same = [row for rows in tables for row in rows if (row["system"], row["turn"]) == (name, turn)]
        whole = sum(row["moves"] for row in same)
        if any(row[column] is None for row in same for column in columns):
            continue
        part = {c: sum(row[c] * row["moves"] for row in same) / whole for c in columns}
        net = part["corrected"] - part["lost"]
        told = " | ".join(percent(part[c]) for c in MOVES)
        cells = " | ".join(percent(part[c]) for c in CELLS)
        lines.append(f"| {name} | {turn} | {told} | {percent(net, '+.1f')} | {cells} | {whole} |")
    head = f"| system | turn | {' | '.join(MOVES)} | net | {' | '.join(CELLS)} | answers |"
    return table(head, lines)


def majorities(tables: Sequence[list[Row]]) -> list[tuple[str, list[float], str]]:
    """(system and turn, the shares in which the majority moved since the turn before, its gain since the first turn
    with half of the 95 % interval), means over seeds, whose problems are others."""
    found = []
    for name, turn in dict.fromkeys((row["system"], row["turn"]) for row in tables[0] if row["turn"] > 1):
        same = [row for rows in tables for row in rows if (row["system"], row["turn"]) == (name, turn)]
        shares = [sum(row[kind] for row in same) / len(same) for kind in MAJORITY]
        gain = sum(row["gain"] for row in same) / len(same)
        half = sum(((row["gain_high"] - row["gain_low"]) / 2) ** 2 for row in same) ** 0.5 / len(same)
        found.append((f"{name}, turn {turn}", shares, f"{percent(gain, '+.1f')} ± {percent(half)}"))
    return found


def majority_table(found: Sequence[tuple[str, list[float], str]]) -> list[str]:
    """How the majority moved, in % of problems."""
    lines = [f"| {name} | {' | '.join(map(percent, shares))} | {gain} |" for name, shares, gain in found]
    return table(f"| majority of | {' | '.join(MOVES)} | since turn 1, points |", lines)


def shifted(tables: Sequence[list[Row]]) -> list[str]:
    """What each incentive shifted, in points of all agents' answers, against the team that was paid none."""
    cells = (*CELLS, "delta_0", "delta_1")
    lines = []
    # Of two agents, influence is the revision of the other one: the same numbers again.
    for key in dict.fromkeys((r["system"], r["turn"], r["of"]) for r in tables[0] if r["of"] == "revision"):
        told = []
        for cell in cells:
            same = [
                r for rows in tables for r in rows if (r["system"], r["turn"], r["of"]) == key and r["cell"] == cell
            ]
            k = len(same)
            diff, without = (sum(row[name] for row in same) / k for name in ("diff", "without"))
            half = sum(((row["high"] - row["low"]) / 2) ** 2 for row in same) ** 0.5 / k
            told.append(f"{percent(without)} {percent(diff, '+.1f')} ± {percent(half)}")
        lines.append(f"| {key[0]} | {' | '.join(told)} |")
    head = "| system | RWR | RWW | WRW | WRR | Δ0 = WRW − RWW | Δ1 = WRR − RWR |"  # noqa: RUF001
    return table(head, lines)


def scorers(records: Sequence[Row]) -> list[str]:
    """How good the scorers are, on answers to test problems, whole and by level and length."""
    lines = []
    for one in records:
        for row in one["tables"]["calibration"]:
            auroc = "" if row["auroc"] is None else f"{row['auroc']:.3f}"
            group = f"{row['by']} {row['group']}".strip()
            told = f"{percent(row['right'])} | {percent(row['accuracy'])} | {auroc} | {row['ece']:.3f}"
            lines.append(f"| {one['run']} | {group} | {row['n']} | {told} |")
    return table("| run | answers | n | right % | accuracy % | AUROC | ECE |", lines)


def calibrated(records: Sequence[Row]) -> list[str]:
    """Calibration curves: the share of right answers among those of about one score."""
    lines = []
    for one in records:
        for part in one["tables"]["calibration"][0]["curve"]:
            cells = f"{part['score']:.2f} | {percent(part['right'])} | {part['n']}"
            lines.append(f"| {one['run']} | {cells} |")
    return table("| run | mean score | right % | answers |", lines)


def trainings(records: Sequence[Row]) -> list[str]:
    """What the trainings of all seeds took, in minutes."""
    lines = []
    for name in dict.fromkeys(stage for one in records for stage in one["trainings"]):
        same = [one for one in records if name in one["trainings"]]
        minutes = ", ".join(f"{one['trainings'][name] / 60:.1f}" for one in same)
        tokens = ", ".join(f"{one['generated'][name] / 1e6:.2f}" for one in same)
        alarms = ", ".join(str(one["alarms"][name][0]) if one["alarms"][name] else "none" for one in same)
        lines.append(f"| {name} | {minutes} | {tokens} | {alarms} |")
    whole = ", ".join(f"{one['seconds'] / 60:.0f}" for one in records)
    told = table(
        "| training | minutes, each seed | M tokens generated | scores rose without accuracy from update |", lines
    )
    return [*told, f"The whole run, evaluations on all tasks included: {whole} minutes.", ""]


def curves(records: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """(metric, picture): of every turn over the updates of the team's training, mean over seeds."""
    for metric in CURVES:
        runs = [dict(one["updates"][metric]) for one in records]
        names = list(runs[0])
        found = []
        for name in names:
            steps = zip(*(one[name] for one in runs), strict=False)
            found.append((name, [(same[0][0], sum(value for _, value in same) / len(same)) for same in steps]))
        yield metric, svg.standalone(svg.lines_over(found, names, metric, "update"))


def page(study: Study, pictures: Path) -> list[str]:
    """The results page's tables, from whatever is finished."""
    lines: list[str] = []
    for task in TASKS:
        done = recorded(study.records, task, study.seeds, ("scorer", *PARTS))
        if not done["table"]:
            continue
        made = named_commits(commit for found in done.values() for one in found for commit in one["commits"])
        level = f", level {LEVELS[task]}" if task in LEVELS else ""
        lines += [f"## {task}{level}", "", f"{len(done['table'])} seeds; {made}.", ""]
        by_turn = tables_of(done["table"], "by-turn")
        lines += ["### Accuracy by turn", "", *turn_by_turn(by_turn)]
        for name in (told.replace(":", "-") for told in FURTHER[task]):
            found = tables_of(done["table"], f"transfer/{name}/by-turn")
            lines += [f"### Trained on {task}, tested on {name}", "", *turn_by_turn(found)] if found else []
        lines += ["### Cost", "", *cost(tables_of(done["table"])), *trainings(done["table"])]
        majority = majorities(by_turn)
        bars = svg.stacked([one[:2] for one in majority], MOVES, "How the majority moved, % of problems")
        file = pictures.with_name(f"{pictures.stem}-{task}-moves.svg")
        file.write_text(svg.standalone(bars))
        lines += ["### How the majority moved, %", "", *majority_table(majority), f"![moves]({file.name})", ""]
        lines += ["### How answers moved, %", "", *moves(by_turn)]
        for metric, picture in curves(done["table"]):
            file = pictures.with_name(f"{pictures.stem}-{task}-{metric}.svg")
            file.write_text(picture)
            lines += [f"![{metric} over updates]({file.name})", ""]
        lines += ["### Scorer", "", *scorers(done["scorer"]), *calibrated(done["scorer"])]
        if done["incentives"]:
            found, turns = (tables_of(done["incentives"], name) for name in ("shifts", "by-turn"))
            lines += ["### Incentives, two agents over two turns", "", *turn_by_turn(turns), *shifted(found)]
    return lines


def cost(tables: list[list[Row]]) -> list[str]:
    """Calls, tokens and training of every system, a vote of the last answers."""
    lines = [
        f"| {r['system']} | {percent(r['accuracy'])} | {percent(r['se'])} | {percent(r['std'])} | {r['n']} "
        f"| {r['calls']:.0f} | {r['prompt_tokens'] + r['completion_tokens']:.0f} | {r['trained_tokens'] / 1e6:.2f} M "
        f"| {percent(r['diff'], '+.1f')} ± {percent(r['half'])} |"
        for r in over_runs(tables)
    ]
    head = "| system | accuracy % | SE | std over seeds | n | calls | tokens | tokens trained | MAPoRL minus this |"
    return table(head, lines)


def main(study: Study) -> None:
    hold_freed_memory()
    keep_few_kernels()
    for part in study.parts if study.task else ():
        for seed in study.seeds:
            run(study, study.task, seed, part)
    if study.write is not None:
        lines = page(study, study.write)
        own = yaml.safe_load(SCORER.read_text())
        write_page(study.write, "# MAPoRL on the house model\n", SETTINGS, [f"Scorer: `{own}`", "", *lines])


if __name__ == "__main__":
    main(tyro.cli(Study))
