"""The MAPoRL study on the house model: both tasks, several seeds, all baselines, incentives -> docs/results/maporl.md.

    python studies/maporl.py --out runs/maporl --task stories        # one task; run both at once on two cores
    python studies/maporl.py --out runs/maporl --task arithmetic
    python studies/maporl.py --write docs/results/maporl.md

For every seed, on problems of its own: a scorer, measured on other levels too; the team beside the untrained
discussion, in discussions of other sizes too; the team on the other task; the team beside all other baselines; a team
whose first turn learns too; the team at a lower temperature; discussions of two turns with each incentive by itself.
Every run is an ordinary run folder of `teamtune scorer`, `maporl` or `eval`, and takes over from the seed's other runs
what is the same; a killed study goes on where it was. What a finished run says is recorded in a file of its own in
`--records`, which the tables are made of; a recorded run is not made again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import tyro
import yaml
from maporl_page import COOLER, CURVES, page
from tables import Asked, record_of, recorded, take_over, write_page, write_record

from teamtune.cli_options import PRESETS, file_arguments
from teamtune.identity import canonical
from teamtune.memory import hold_freed_memory, keep_few_kernels
from teamtune.recipes import maporl, maporl_evaluation, scorer
from teamtune.recipes.maporl_team import Rival, alone
from teamtune.report import write_report
from teamtune.reporting import read
from teamtune.reporting.discussion_sections import over_updates
from teamtune.types import Row

SETTINGS = PRESETS / "maporl-house.yaml"
SCORER = PRESETS / "scorer-house.yaml"
SFT = {"rate": 1e-3, "epochs": 2}
"""the baseline's fit, as the study of Multiagent Finetuning has it"""
TASKS = ("arithmetic", "stories")
LEVELS = {"stories": "4"}
"""stories one level up, where the untrained discussion leaves something to gain (docs/log.md)"""
FURTHER = {"arithmetic": ("stories:4",), "stories": ("arithmetic",)}
ELSEWHERE = {"arithmetic": ("2", "4"), "stories": ("3", "5")}
"""levels that a scorer is also measured on, with fewer problems: each seed's own scorer, on its own level's sampling"""
PROBLEMS_ELSEWHERE = 100
SIZES = ("3x3", "2x3", "5x2")
UNTRAINED: tuple[Rival, ...] = ("off-the-shelf", "no-feedback")
APART: tuple[Rival, ...] = ("votes", "no-feedback", "hidden-scores", "incentives")
"""not among the rivals: elsewhere in the study, or (hidden-scores) left out for its time"""
SAME_TEAM = ("table", "transfer", "rivals")
PARTS = (*SAME_TEAM, "opening", "cooler", "incentives")
COOLER_SIZES = ("3x3", "9x1")
"""discussions, and votes of as many answers"""


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
    """which of the experiments to run, in this order for all seeds; all need the scorer, which is made first; cooler
    needs the run of table"""
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
    args = [*file_arguments(SETTINGS, ["scorer_questions"]), "--task", task, "--out", str(study.out)]
    args += ["--seed", str(seed), *(f"--sft.{name}={value}" for name, value in SFT.items())]
    args += ["--scorer-from", str(folder(study, task, seed, "scorer"))]
    rivals = tuple(name for name in get_args(Rival) if name not in APART)
    cfg = tyro.cli(maporl.Maporl, args=[*args, "--baselines", *rivals])
    cfg = replace(cfg, task=replace(cfg.task, data_seed=seed, level=LEVELS.get(task, "")))
    out = lambda part: folder(study, task, seed, part)  # noqa: E731
    return {
        "table": replace(alone(cfg), out=out("table"), baselines=UNTRAINED, sizes=SIZES),
        "transfer": replace(
            alone(cfg), out=out("transfer"), baselines=UNTRAINED[:1], sizes=SIZES[:1], eval_tasks=FURTHER[task]
        ),
        "rivals": replace(cfg, out=out("rivals"), sizes=SIZES[:1]),
        "opening": replace(
            alone(cfg), out=out("opening"), first_turn="trained", baselines=("off-the-shelf", "votes"), sizes=SIZES[:1]
        ),
        # Both turns learn: what beta pays for is said in the first.
        "incentives": replace(
            alone(cfg),
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
    measure_elsewhere(study, task, seed)
    out = folder(study, task, seed, part)
    if part == "cooler":
        maporl_evaluation.main(cooler(folder(study, task, seed, "table"), out), told)
    else:
        team(study, task, seed, part, told)
    for file, done in ((record_of(study.records, task, seed, "scorer"), first.out), (record, out)):
        write_report(done)
        write_record(file, done, learned(done))


def team(study: Study, task: str, seed: int, part: str, told: str) -> None:
    """A run of maporl, with what another run of the seed has already."""
    cfg = experiments(study, task, seed)[part]
    for other in SAME_TEAM if part in SAME_TEAM else ():
        if other != part:
            last = ("comparison", "by-turn")
            needed = read.expected(canonical(cfg, cfg.out, whole=True))
            take_over(folder(study, task, seed, other), cfg.out, [name for name in needed if name not in last])
    maporl.main(cfg, told)


def cooler(source: Path, out: Path) -> maporl_evaluation.MaporlEvaluation:
    """The evaluation of a team at a lower temperature than it was trained at."""
    cfg = replace(maporl_evaluation.defaults(source), run=source, out=out, sizes=COOLER_SIZES)
    return replace(cfg, sampling=replace(cfg.sampling, temperature=COOLER))


def measure_elsewhere(study: Study, task: str, seed: int) -> None:
    """The scorer of a seed on problems of other levels."""
    source = scorer_settings(study, task, seed)
    for level in ELSEWHERE.get(task, ()):
        record = record_of(study.records, task, seed, f"scorer-{level}")
        if record.exists():
            continue
        cfg = replace(
            scorer.defaults(source.out),
            run=source.out,
            out=folder(study, task, seed, f"scorer-{level}"),
            task=replace(source.task, level=level, test=PROBLEMS_ELSEWHERE),
        )
        scorer.evaluate(cfg, f"studies/maporl.py --task {task} --seeds {seed}")
        write_report(cfg.out)
        write_record(record, cfg.out)


def learned(one: Path) -> Row:
    """What a run and its trainings took, in seconds and generated tokens, from which update on scores rose without
    accuracy, and the metrics of every turn over the updates of every training. The seconds of trainings are those of
    their updates, however often they were resumed."""
    stages, metrics = read.stages(one, read.options(one)["config"]), read.metrics(one)
    trained = [row for row in stages if row["name"].endswith("ppo")]
    lines = {row["name"]: [line for line in metrics if line["stage"] == row["name"]] for row in trained}
    return {
        "seconds": sum(row["seconds"] for row in stages if row["state"] == "sealed"),
        "trainings": {name: sum(map(spent, own)) for name, own in lines.items()},
        "generated": {name: sum(line["generated_tokens"] for line in own) for name, own in lines.items()},
        "alarms": {name: [line["step"] for line in own if line["alarm"]] for name, own in lines.items()},
        "updates": {name: {metric: over_updates(own, metric) for metric in CURVES} for name, own in lines.items()},
    }


def spent(line: Row) -> float:
    """Seconds of an update."""
    return sum(value for name, value in line.items() if name.startswith("seconds/"))


def main(study: Study) -> None:
    hold_freed_memory()
    keep_few_kernels()
    for part in study.parts if study.task else ():
        for seed in study.seeds:
            run(study, study.task, seed, part)
    if study.write is not None:
        kept = lambda task: ("scorer", *(f"scorer-{one}" for one in ELSEWHERE.get(task, ())), *PARTS)  # noqa: E731
        found = {task: recorded(study.records, task, study.seeds, kept(task)) for task in TASKS}
        lines = page(found, Asked(FURTHER, LEVELS, study.write))
        own = json.dumps(yaml.safe_load(SCORER.read_text()))
        told = [f"Scorer: `{own}`", "", f"SFT: `{json.dumps(SFT)}`", ""]
        write_page(study.write, "# MAPoRL on the house model\n", SETTINGS, [*told, *lines])


if __name__ == "__main__":
    main(tyro.cli(Study))
