"""The tables and curves of the study of Multiagent Finetuning, made of its runs' records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from tables import Asked, Records, aligned, joined, named, over_runs, percent, seed_of, table, tables_of

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


def page(records: Mapping[str, Records], asked: Asked, last: int) -> list[str]:
    """The results page's tables, from whatever is recorded. last: the last iteration."""
    return [line for task, done in records.items() if done["table"] for line in of_task(task, records, asked, last)]


def of_task(task: str, records: Mapping[str, Records], asked: Asked, last: int) -> list[str]:
    """Everything on one task."""
    done = records[task]
    lines = [*asked.head(task, done), "### Baselines and ablations", ""]
    lines += compared(joined(done["table"], done["ablations"]))
    lines += ["### Round by round", "", *rounds(done["table"])]
    lines += ["### Costs", "", NOTE, "", *costs([*done["table"]])]
    for part in ("ablations", "five", "agents"):
        lines += [f"Of {part}:", "", *costs(done[part])] if done[part] else []
    for name in asked.further[task]:
        lines += transferred(task, name, records)
    lines += ["### How the agents differ", ""]
    lines += differences(done["table"], done["ablations"])
    lines += iterations(task, done["five"], done["table"], asked, last) if done["five"] else []
    lines += five_agents(done["agents"], done["table"]) if done["agents"] else []
    lines += ["### Pseudo-labels", "", *labels([*done["table"], *done["five"], *done["agents"]])]
    return [*lines, "### What was counted", "", *counted([done[part] for part in ("table", "ablations", "five")])]


# ---- systems ---------------------------------------------------------------------------------------------------------

SYSTEMS = "| system | accuracy % | SE | std over seeds | n | consensus % | calls | tokens | team minus this |"
NOTE = (
    "Seconds and memory are those of runs that shared their cores with other work, and of a stage that was killed and "
    "resumed its last part; compare tokens."
)


def system_line(row: Row, name: str = "", of_team: bool = True) -> str:
    """A line of SYSTEMS. of_team: the team that others are told against is this table's."""
    against = f"{percent(row['diff'], '+.1f')} ± {percent(row['half'])}" if of_team else ""
    return (
        f"| {name or row['system']} | {percent(row['accuracy'])} | {percent(row['se'])} | {percent(row['std'])} "
        f"| {row['n']} | {percent(row['consensus'])} | {row['calls']:.0f} "
        f"| {row['prompt_tokens'] + row['completion_tokens']:.0f} "
        f"| {against} |"
    )


def beside(what: str, one: Row, other: Row) -> list[str]:
    """The difference of two lines of other runs, whose records hold no answers to pair."""
    diff, half = one["accuracy"] - other["accuracy"], 1.96 * (one["se"] ** 2 + other["se"] ** 2) ** 0.5
    return [f"{what}: {percent(diff, '+.1f')} ± {percent(half)} points, not paired.", ""]


def compared(found: Sequence[list[Row]]) -> list[str]:
    """The systems of some seeds' runs."""
    return table(SYSTEMS, [system_line(row) for row in over_runs(list(found))])


def costs(records: Sequence[Row], name: str = "comparison") -> list[str]:
    """Means over seeds of what every system cost."""
    gathered = [costs_of(one, name) for one in records]
    lines = []
    for same in zip(*tables_of(records, name), strict=True):
        own = [found.get(aligned(row["system"]), {}) for found, row in zip(gathered, same, strict=True)]
        parameters, train, test = (
            averaged([one.get(key) for one in own]) for key in ("parameters", "train_seconds", "test_seconds")
        )
        a_row = by_role([one for row in same for one in row["trained"]])
        total = sum(row["trained_tokens"] for row in same) / len(same) / 1000
        peak = max((one["peak_mb"] for one in own if one.get("peak_mb") is not None), default=None)
        told = [number(parameters, 1000, " k"), number(train), number(test), number(peak)]
        lines.append(f"| {named(row['system'] for row in same)} | {total:.0f} k | {a_row} | {' | '.join(told)} |")
    head = "| system | trained tokens | of one agent | trainable parameters | s to train | s to answer | peak MB |"
    return table(head, lines)


def costs_of(record: Row, name: str) -> dict[str, Row]:
    """What every system of a run's comparison cost. A record of an older version does not tell seconds and memory of
    further tasks; what was trained is the same there as on the task itself."""
    told = {"comparison": record["costs"], **record.get("further_costs", {})}
    trained = [{key: row[key] for key in ("system", "parameters", "train_seconds")} for row in record["costs"]]
    return {aligned(row["system"]): row for row in told.get(name, trained)}


def by_role(trained: Sequence[Row]) -> str:
    """Mean tokens of an agent, of each role: "48 k of a generator, 17 k of a critic"; of a single model alone."""
    roles: dict[str, list[float]] = {}
    for one in trained:
        roles.setdefault(one["agent"].partition("-")[0], []).append(one["tokens"])
    means = {role: f"{sum(own) / len(own) / 1000:.0f} k" for role, own in roles.items()}
    return ", ".join(f"{told} of a {role}" if len(means) > 1 else told for role, told in means.items())


def averaged(values: Sequence[float | None]) -> float | None:
    """A mean; None where a seed does not tell."""
    told = [value for value in values if value is not None]
    return sum(told) / len(told) if len(told) == len(values) else None


def number(value: float | None, by: int = 1, unit: str = "") -> str:
    return "" if value is None else f"{value / by:.0f}{unit}"


def transferred(task: str, name: str, records: Mapping[str, Records]) -> list[str]:
    """Systems that learned on one task, on another; below them those that learned on that one, where they are known on
    the same problems."""
    runs = [
        one for one in records[task]["transfer"] if f"transfer/{name.replace(':', '-')}/comparison" in one["tables"]
    ]
    if not runs:
        return []
    found = over_runs(tables_of(runs, f"transfer/{name.replace(':', '-')}/comparison"))
    lines, told = [system_line(row) for row in found], []
    home, _, _ = name.partition(":")
    seeds = {seed_of(one) for one in runs}
    there = [one for one in records.get(home, {}).get("table", ()) if seed_of(one) in seeds] if home != task else []
    if len(there) == len(runs):
        own = [row for row in over_runs(tables_of(there)) if row["system"] in ("Base", *KEPT)]
        lines += [system_line(row, f"{row['system']}, of {home} itself", of_team=False) for row in own]
        told = beside(f"The team trained on {task} minus that trained on {home} itself", found[-1], own[-1])
    spent = costs(runs, f"transfer/{name.replace(':', '-')}/comparison")
    return [f"### Trained on {task}, tested on {name}", "", *table(SYSTEMS, lines), *told, "Costs:", "", *spent]


def five_agents(records: Sequence[Row], three: Sequence[Row]) -> list[str]:
    """Five agents, and three on the same problems."""
    seeds = {seed_of(one) for one in records}
    five = over_runs(tables_of(records))
    small = [
        row for row in over_runs(tables_of(one for one in three if seed_of(one) in seeds)) if row["system"] in KEPT
    ]
    lines = [system_line(row, f"{row['system']}, 5 agents") for row in five]
    lines += [system_line(row, f"{row['system']}, 3 agents", of_team=False) for row in small]
    told = beside("Five agents minus three", five[-1], small[-1])
    return ["### Five agents", "", *table(SYSTEMS, lines), *told, *rounds(records)]


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


def seeds_of(runs: Sequence[Told], system: str, measure: str) -> str:
    """Says so where not all seeds have a measure: a run of an older version lacks the later ones."""
    count = sum(measure in run.get(system, {}) for run in runs)
    return f" ({count} of {len(runs)} seeds)" if 0 < count < len(runs) else ""


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
    rows: dict[str, tuple[int, list[str]]] = {}
    for runs in ([told(one) for one in records] for records in parts if records):
        for system in (name for name in runs[0] if name not in rows):
            found = [pooled(runs, system, measure) for measure in measures]
            cells = [cell(one, name) + seeds_of(runs, system, name) for one, name in zip(found, measures, strict=True)]
            rows[system] = max((one.n for one in found if one is not None), default=0), cells
    here = [n for n in range(len(measures)) if any(cells[n] for _, cells in rows.values())]
    lines = [f"| {name} | {count} | {' | '.join(cells[n] for n in here)} |" for name, (count, cells) in rows.items()]
    return table(f"| system | n | {' | '.join(called(measures[n]) for n in here)} |", lines) if here else []


def rounds(records: Sequence[Row]) -> list[str]:
    """Accuracy and agreement of every round, over seeds, and how many answers moved since the round before."""
    measures = ("accuracy", "vote", "consensus")
    lines, whole = [], [one for one in records if "rounds" in one]
    for name in whole[0]["rounds"] if whole else ():
        for number, step in enumerate(whole[0]["rounds"][name]):
            same = [one["rounds"][name][number] for one in whole]
            own = [mean([Estimate(**one["values"][measure]) for one in same]) for measure in measures]
            cells = " | ".join(cell(one, measure) for one, measure in zip(own, measures, strict=True))
            moved = [str(sum(one["flips"][flip] for one in same)) if step["flips"] else "" for flip in FLIPS]
            lines.append(f"| {name} | {step['round']} | {cells} | {' | '.join(moved)} |")
    few = f"These are {len(whole)} of {len(records)} seeds; a run of an older version does not tell." if lines else ""
    head = f"| system | round | {' | '.join(map(called, measures))} | {' | '.join(FLIPS)} |"
    return [*table(head, lines), *([few, ""] if len(whole) < len(records) else [])]


def iterations(task: str, records: Sequence[Row], single: Sequence[Row], asked: Asked, last: int) -> list[str]:
    """Every iteration of the team and of the single agent, with curves of all measures; above them what the base does
    on the same problems by voting alone, with as many calls or tokens as a debate."""
    seeds = {seed_of(one) for one in records}
    voting = [row for row in over_runs(tables_of(one for one in single if seed_of(one) in seeds)) if votes(row)]
    systems = [*(system_line(row, of_team=False) for row in voting), *map(system_line, over_runs(tables_of(records)))]
    lines = ["### Five iterations", "", *table(SYSTEMS, systems), *rounds(records), *differences(records)]
    for measure, picture in curves([told(one) for one in records], last):
        lines += [f"![{NAMED[measure]} over iterations]({asked.drawn(task, measure, picture)})", ""]
    return [*lines, "Signs of a collapse:", "", *warnings(records)]


def votes(row: Row) -> bool:
    return row["system"].startswith("Majority of")


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
            title = called(measure) + seeds_of(runs, f"MAFT, iteration {last}", measure)
            yield measure, svg.standalone(svg.lines_over(lines, methods, title, "iteration"))


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


def counted(parts: Sequence[Sequence[Row]]) -> list[str]:
    """What was kept, dropped, cut off or tied, of all agents and seeds; a stage in several parts is the first one's."""
    found: dict[str, Counter[str]] = {}
    for records in parts:
        whole = [one["counts"] for one in records if "counts" in one]
        for stage in dict.fromkeys(name for one in whole for name in one if name not in found):
            of_stage: Counter[str] = Counter()
            for label, n in (pair for one in whole for pair in one.get(stage, {}).items()):
                of_stage[label.rpartition(": ")[2]] += n
            found[stage] = of_stage
    lines = [f"| {stage} | {'; '.join(f'{what} {n:,}' for what, n in own.items())} |" for stage, own in found.items()]
    return table("| stage | what, and how many |", lines)


def warnings(records: Sequence[Row]) -> list[str]:
    found = [(one["run"], row) for one in records for row in one["warnings"]]
    rows = [f"* {run}: {row['system']}: {row['warning']}." for run, row in found]
    return [*rows, ""] if rows else ["None.", ""]
