"""The tables and curves of the study of Multiagent Finetuning, made of its runs' records alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tables import named, named_commits, over_runs, percent, table, tables_of

from teamtune.diversity import FLIPS
from teamtune.evaluate import Estimate
from teamtune.reporting import svg
from teamtune.reporting.debate_sections import IN_PERCENT, NAMED
from teamtune.types import Row

AGREEMENT = ("vote", "consensus", "entropy", "disagreement", "copied", "tokens")
APART = ("nll", "nll_answer", "kl", "k1", "k3", "base_kl", "base_k1", "base_k3", "first_kl", "first_base_kl")
APART += ("dissimilarity", "dissimilarity_agreeing")
SMALL = {name for name in APART if "k" in name}
"""KLs, which are told in thousandths of a nat"""
KEPT = ("Majority of 3", "Debate", "Majority FT", "MAFT, iteration 1")
"""the systems of three agents that those of five are held against; and what was learned on a task itself"""
Records = Mapping[str, Sequence[Row]]
"""the records of a task's runs, by part"""


@dataclass(frozen=True)
class Asked:
    """What the page is about."""

    further: Mapping[str, Sequence[str]]
    """tasks that a task's systems are also tested on"""
    levels: Mapping[str, str]
    iterations: int
    pictures: Path
    """the page, beside which its pictures lie"""


def page(records: Mapping[str, Records], asked: Asked) -> list[str]:
    """The results page's tables, from whatever is recorded."""
    return [line for task, done in records.items() if done["table"] for line in of_task(task, records, asked)]


def of_task(task: str, records: Mapping[str, Records], asked: Asked) -> list[str]:
    """Everything on one task."""
    done = records[task]
    told = ", ".join(f"{len(found)} seeds of {part}" for part, found in done.items())
    made = named_commits(commit for found in done.values() for one in found for commit in one["commits"])
    level = f", level {asked.levels[task]}" if task in asked.levels else ""
    lines = [f"## {task}{level}", "", f"{told}; {made}.", "", "### Baselines and ablations", ""]
    lines += compared(joined(done["table"], done["ablations"]))
    lines += ["### Round by round", "", *rounds([*done["table"]])]
    lines += ["### Costs", "", NOTE, "", *costs([*done["table"]])]
    for part in ("ablations", "five", "agents"):
        lines += [f"Of {part}:", "", *costs(done[part])] if done[part] else []
    for name in asked.further[task]:
        lines += transferred(task, name, records)
    lines += ["### How the agents differ", ""]
    lines += differences(done["table"], done["ablations"])
    lines += iterations(task, done["five"], asked) if done["five"] else []
    lines += five_agents(done["agents"], done["table"]) if done["agents"] else []
    return [*lines, "### Pseudo-labels", "", *labels([*done["table"], *done["five"], *done["agents"]])]


# ---- systems ---------------------------------------------------------------------------------------------------------

SYSTEMS = "| system | accuracy % | SE | std over seeds | n | consensus % | calls | tokens | team minus this |"
NOTE = (
    "Seconds and memory are those of runs that shared their cores with other work, and of a stage that was killed and "
    "resumed its last part; compare tokens."
)


def system_line(row: Row, name: str = "") -> str:
    return (
        f"| {name or row['system']} | {percent(row['accuracy'])} | {percent(row['se'])} | {percent(row['std'])} "
        f"| {row['n']} | {percent(row['consensus'])} | {row['calls']:.0f} "
        f"| {row['prompt_tokens'] + row['completion_tokens']:.0f} "
        f"| {percent(row['diff'], '+.1f')} ± {percent(row['half'])} |"
    )


def compared(found: Sequence[list[Row]]) -> list[str]:
    """The systems of some seeds' runs."""
    return table(SYSTEMS, [system_line(row) for row in over_runs(list(found))])


def joined(some: Sequence[Row], others: Sequence[Row]) -> list[list[Row]]:
    """The systems of two runs of every seed that has both, on the same problems beside the same team; the second run's
    where the first has them not, before the team itself, which stands last."""
    if not others:
        return tables_of(some)
    seeds = {seed_of(one): one for one in others}
    found = []
    for one in some:
        if (other := seeds.get(seed_of(one))) is not None:
            *own, last = one["tables"]["comparison"]
            names = {row["system"] for row in (*own, last)}
            found.append([*own, *(row for row in other["tables"]["comparison"] if row["system"] not in names), last])
    return found


def seed_of(record: Row) -> str:
    """The 1 of maft-stories-1-table."""
    return record["run"].split("-")[-2]


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


def transferred(task: str, name: str, records: Mapping[str, Records]) -> list[str]:
    """Systems that learned on one task, on another; below them those that learned on that one, where they are known on
    the same problems."""
    runs = [
        one for one in records[task]["transfer"] if f"transfer/{name.replace(':', '-')}/comparison" in one["tables"]
    ]
    if not runs:
        return []
    found = tables_of(runs, f"transfer/{name.replace(':', '-')}/comparison")
    lines = [system_line(row) for row in over_runs(found)]
    home, _, _ = name.partition(":")
    seeds = {seed_of(one) for one in runs}
    there = [one for one in records.get(home, {}).get("table", ()) if seed_of(one) in seeds] if home != task else []
    if len(there) == len(runs):
        own = [row for row in over_runs(tables_of(there)) if row["system"] in ("Base", *KEPT)]
        lines += [system_line(row, f"{row['system']}, of {home} itself") for row in own]
    return [f"### Trained on {task}, tested on {name}", "", *table(SYSTEMS, lines)]


def five_agents(records: Sequence[Row], three: Sequence[Row]) -> list[str]:
    """Five agents, and three on the same problems."""
    seeds = {seed_of(one) for one in records}
    lines = [system_line(row, f"{row['system']}, 5 agents") for row in over_runs(tables_of(records))]
    small = over_runs(tables_of(one for one in three if seed_of(one) in seeds))
    lines += [system_line(row, f"{row['system']}, 3 agents") for row in small if row["system"] in KEPT]
    return ["### Five agents", "", *table(SYSTEMS, lines)]


# ---- debates ---------------------------------------------------------------------------------------------------------

Told = Mapping[str, Mapping[str, Estimate]]


def told(record: Row) -> Told:
    """Every measure of every debate of a run, {system: {measure: estimate}}."""
    found = record["measures"].items()
    return {name: {key: Estimate(**value) for key, value in values.items()} for name, values in found}


def mean(own: Sequence[Estimate]) -> Estimate:
    """Over seeds, whose problems are others: the mean of means, its error, all problems."""
    se = sum(one.se**2 for one in own) ** 0.5 / len(own)
    return Estimate(sum(one.mean for one in own) / len(own), se, sum(one.n for one in own))


def pooled(runs: Sequence[Told], system: str, measure: str) -> Estimate | None:
    own = [run[system][measure] for run in runs if measure in run.get(system, {})]
    return mean(own) if own else None


def cell(one: Estimate | None, measure: str) -> str:
    if one is None:
        return ""
    scale, digits = (100, 1) if measure in IN_PERCENT else (1000, 2) if measure in SMALL else (1, 3)
    return f"{scale * one.mean:.{digits}f} ± {scale * one.se:.{digits}f}"


def called(measure: str) -> str:
    return f"{NAMED[measure]}, 10⁻³" if measure in SMALL else NAMED[measure]


def differences(*parts: Sequence[Row]) -> list[str]:
    """Agreement, and how far apart agents are, of every system that debates or votes."""
    return [line for measures in (AGREEMENT, APART) for line in measured(parts, measures)]


def measured(parts: Sequence[Sequence[Row]], measures: Sequence[str]) -> list[str]:
    """A line a system; of one that stands in several parts the first part's. What was not measured has no column."""
    rows: dict[str, list[Estimate | None]] = {}
    for runs in ([told(one) for one in records] for records in parts if records):
        for system in runs[0]:
            rows.setdefault(system, [pooled(runs, system, measure) for measure in measures])
    here = [n for n in range(len(measures)) if any(cells[n] is not None for cells in rows.values())]
    lines = [f"| {name} | {' | '.join(cell(cells[n], measures[n]) for n in here)} |" for name, cells in rows.items()]
    return table(f"| system | {' | '.join(called(measures[n]) for n in here)} |", lines) if here else []


def rounds(records: Sequence[Row]) -> list[str]:
    """Accuracy and agreement of every round, over seeds, and how many answers moved since the round before."""
    measures = ("accuracy", "vote", "consensus")
    lines = []
    for name in records[0]["rounds"]:
        for number, step in enumerate(records[0]["rounds"][name]):
            same = [one["rounds"][name][number] for one in records]
            own = [mean([Estimate(**one["values"][measure]) for one in same]) for measure in measures]
            cells = " | ".join(cell(one, measure) for one, measure in zip(own, measures, strict=True))
            moved = [str(sum(one["flips"][flip] for one in same)) if step["flips"] else "" for flip in FLIPS]
            lines.append(f"| {name} | {step['round']} | {cells} | {' | '.join(moved)} |")
    return table(f"| system | round | {' | '.join(map(called, measures))} | {' | '.join(FLIPS)} |", lines)


def iterations(task: str, records: Sequence[Row], asked: Asked) -> list[str]:
    """Every iteration of the team and of the single agent, with curves of all measures."""
    lines = ["### Five iterations", "", *compared(tables_of(records)), *differences(records)]
    for measure, picture in curves([told(one) for one in records], asked.iterations):
        file = asked.pictures.with_name(f"{asked.pictures.stem}-{task}-{measure}.svg")
        file.write_text(picture)
        lines += [f"![{NAMED[measure]} over iterations]({file.name})", ""]
    return [*lines, "Signs of a collapse:", "", *warnings(records)]


def curves(runs: Sequence[Told], last: int) -> Iterator[tuple[str, str]]:
    """(measure, picture) over the iterations of the team and of the single agent; 0 is the untrained debate."""
    methods = ("MAFT", "Single-agent FT")
    for measure in (*AGREEMENT, *APART):
        scale = 100 if measure in IN_PERCENT else 1000 if measure in SMALL else 1
        lines = []
        for method in methods:
            names = ["Debate", *(f"{method}, iteration {n}" for n in range(1, last + 1))]
            found = [(float(n), pooled(runs, name, measure)) for n, name in enumerate(names)]
            points = [(n, scale * one.mean) for n, one in found if one is not None]
            lines += [(method, points)] if len(points) > 1 else []
        if lines:
            yield measure, svg.standalone(svg.lines_over(lines, methods, called(measure), "iteration"))


def labels(records: Sequence[Row]) -> list[str]:
    """Right pseudo-labels of every iteration's debates of the team, over runs of the same seeds' problems."""
    found: dict[tuple[str, str], list[Row]] = {}
    for one in records:
        part = one["run"].rpartition("-")[2]
        for row in one["labels"]:
            # Later iterations are those of five; the first one is the same in all runs of a team.
            if row["iteration"].startswith("iteration-") and (part != "five" or row["iteration"] != "iteration-1"):
                found.setdefault(("5 agents" if part == "agents" else "3 agents", row["iteration"]), []).append(row)
    lines = []
    for (agents, iteration), rows in sorted(found.items()):
        whole = mean([Estimate(row["precision"], row["se"], row["n"]) for row in rows])
        margins: dict[float, list[Row]] = {}
        for part in (part for row in rows for part in row["bins"]):
            margins.setdefault(round(part["margin"], 2), []).append(part)
        counted = {margin: sum(part["n"] for part in own) for margin, own in sorted(margins.items())}
        right = {margin: sum(part["n"] * part["precision"] for part in own) for margin, own in margins.items()}
        by_margin = "; ".join(f"{m:.2f}: {percent(right[m] / n)} ({n})" for m, n in counted.items())
        cells = f"{percent(whole.mean)} ± {percent(whole.se)} | {whole.n} | {by_margin}"
        lines.append(f"| {agents} | {iteration} | {cells} |")
    return table("| team | iteration | right labels % | n | by margin of the vote: % (n) |", lines) if lines else []


def warnings(records: Sequence[Row]) -> list[str]:
    found = [(one["run"], row) for one in records for row in one["warnings"]]
    rows = [f"* {run}: {row['system']}: {row['warning']}." for run, row in found]
    return [*rows, ""] if rows else ["None.", ""]
