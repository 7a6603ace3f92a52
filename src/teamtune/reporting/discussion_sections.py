"""The sections of a report on trained discussions: the vote after every turn, how answers moved, what was learned."""

from __future__ import annotations

import re
from collections.abc import Sequence

from teamtune.amiss import amiss
from teamtune.credit.discussion import Incentives
from teamtune.credit.penalty import CAUSES
from teamtune.evaluate import Estimate
from teamtune.reporting import svg
from teamtune.reporting.table import NONE, estimated, make_section, make_table, percent, points
from teamtune.transitions import CELLS, KINDS, MAJORITY, MOVES
from teamtune.types import UNFIT, Row


def turns(rows: Sequence[Row], further: Sequence[tuple[str, Sequence[Row]]] = ()) -> Row:
    """Accuracy of the majority after every turn, on the test problems and on further tasks."""
    tables = [_accuracies("", rows)] if rows else []
    tables += [_accuracies(f"On {task}", found) for task, found in further if found]
    text = (
        "The majority of the agents' answers after each turn; a tie counts in parts, and what could not be read is one "
        "more answer, which yields in a tie. In brackets, the 95 % interval of "
        "the difference to the off-the-shelf discussion after the same turn, in points, from a paired bootstrap over "
        "problems."
    )
    return make_section("turns", "Turn by turn", [text] if tables else [], tables)


def _accuracies(title: str, rows: Sequence[Row]) -> Row:
    numbers = sorted({row["turn"] for row in rows})
    lines = []
    for name in dict.fromkeys(row["system"] for row in rows):
        own = {row["turn"]: row for row in rows if row["system"] == name}
        cells = []
        for number in numbers:
            row = own.get(number)
            told = NONE if row is None else estimated(Estimate(row["accuracy"], row["se"], row["n"]))
            if row is not None and row["diff"] is not None:
                told += f" ({points(row['diff'])} [{points(row['low'])}, {points(row['high'])}])"
            cells.append(told)
        lines.append([name, str(next(iter(own.values()))["n"]), *cells])
    return make_table(title, ["System", "n", *(f"Turn {number}" for number in numbers)], lines)


def moves(rows: Sequence[Row]) -> Row:
    """How agents' answers moved from one turn to the next."""
    later = [row for row in rows if row["turn"] > 1]
    moved, cells = [], []
    for row in later:
        name = [row["system"], str(row["turn"])]
        net = (row["corrected"] or 0) - (row["lost"] or 0)
        moved.append([*name, *(_percent(row[kind]) for kind in MOVES), points(net), str(row["moves"])])
        for kind, prefix, delta in KINDS:
            shown = [_percent(row[f"{prefix}{cell}"]) for cell in CELLS]
            cells.append([*name, kind, *shown, *(_points(row[f"{delta}_{n}"]) for n in (0, 1))])
    if not moved:
        return make_section("moves", "How answers moved")
    columns = ["System", "Turn", *MOVES, "Net, points", "Answers"]
    tables = [
        make_table("Since the turn before, % of agents' answers", columns, moved),
        make_table(
            "What incentives pay for, % of agents' answers",
            ["System", "Turn", "Of", *CELLS, "Δ0 = WRW − RWW", "Δ1 = WRR − RWR"],  # noqa: RUF001
            cells,
        ),
    ]
    whole = [
        [row["system"], str(row["turn"]), *(_percent(row[kind]) for kind in MAJORITY), _gained(row)]
        for row in later
        if row.get(MAJORITY[0]) is not None
    ]
    columns = ["System", "Turn", *MOVES, "Since turn 1, points"]
    tables[:0] = [make_table("The majority since the turn before, % of problems", columns, whole)] if whole else []
    text = (
        "Cells: of a revision, the agent's own answer before and after, and the majority of the others before; of an "
        "influence, the others' majority before and after, and the agent's own answer before. R right, W wrong."
    )
    return make_section("moves", "How answers moved", [text], tables)


def _gained(row: Row) -> str:
    """The majority's accuracy less that after the first turn, with its interval."""
    return f"{points(row['gain'])} [{points(row['gain_low'])}, {points(row['gain_high'])}]"


def paying(incentives: Incentives) -> str:
    """What each incentive pays for and fines, by its table: "alpha_0 for +WRW −RWW of revisions; ..." """
    told: dict[str, list[str]] = {}
    for kind, table in zip(("revisions", "influence"), incentives.tables, strict=True):
        for name in dict.fromkeys(name for _, name in table.values()):
            cells = sorted(((sign, cell) for cell, (sign, one) in table.items() if one == name), reverse=True)
            letters = " ".join(
                ("+" if sign > 0 else "−") + "".join("R" if right else "W" for right in cell)  # noqa: RUF001
                for sign, cell in cells
            )
            told.setdefault(name, []).append(f"{letters} of {kind}")
    return "; ".join(f"{name} for {' and '.join(own)}" for name, own in sorted(told.items()))


def shifted(rows: Sequence[Row], incentives: Incentives) -> Row:
    """What each incentive shifted, beside the team that was paid none."""
    lines = []
    cells = [*CELLS, "delta_0", "delta_1"]
    for key in dict.fromkeys((row["system"], row["turn"], row["of"]) for row in rows):
        own = {row["cell"]: row for row in rows if (row["system"], row["turn"], row["of"]) == key}
        told = [f"{points(own[c]['diff'])} [{points(own[c]['low'])}, {points(own[c]['high'])}]" for c in cells]
        lines.append([key[0], str(key[1]), key[2], *told])
    if not lines:
        return make_section("shifts", "What incentives shifted")
    columns = ["System", "Turn", "Of", *CELLS, "Δ0 = WRW − RWW", "Δ1 = WRR − RWR"]  # noqa: RUF001
    text = (
        "Shares of agents' answers less those of the team that was paid no incentives, in points, with 95 % intervals "
        f"from a paired bootstrap over {rows[0]['n']} problems. Paid (+) and fined (−): {paying(incentives)}."  # noqa: RUF001
    )
    return make_section("shifts", "What incentives shifted", [text], [make_table("", columns, lines)])


def _percent(share: float | None) -> str:
    return NONE if share is None else percent(share)


def _points(share: float | None) -> str:
    return NONE if share is None else points(share)


ABOUT = ("reward", "base", "incentive", "accuracy", "score", "penalties", "length", "corrected", "lost")
POLICIES = ("base_kl", "entropy", "clipped", "gap")
WHY = ("paid", "charged", *(f"penalty: {cause}" for cause in CAUSES), *(f"finish: {finish}" for finish in UNFIT))


def learning(metrics: Sequence[Row]) -> Row:
    """How the numbers of every training went, from the mean of its first updates to that of its last."""
    tables, text = [], []
    for stage in stages(metrics):
        lines = [line for line in metrics if line["stage"] == stage]
        agents = dict.fromkeys(key.partition("/")[0] for line in lines for key in line if key.endswith("/reward"))
        rows = [[agent, *(_went(lines, f"{agent}/{name}") for name in ABOUT)] for agent in agents]
        tables.append(make_table(f"{stage}: agents and turns, first → last", ["Agent and turn", *ABOUT], rows))
        policies = dict.fromkeys(key.partition("/")[0] for line in lines for key in line if key.endswith("/base_kl"))
        errors = {p: f"{p}/value_error" if p in agents else f"{p}-value/error" for p in policies}
        rows = [[p, *(_went(lines, f"{p}/{n}") for n in POLICIES), _went(lines, errors[p])] for p in policies]
        tables.append(make_table(f"{stage}: policies", ["Policy", *POLICIES, "value error"], rows))
        tables += _why(stage, lines, list(agents))
        text += _early(stage, lines, list(agents))
        text += [f"Warning, {stage}: {told}." for line in lines[:1] if line["step"] == 0 for told in amiss(line)]
        alarms = [line["step"] for line in lines if line.get("alarm")]
        if alarms:
            text.append(f"Warning, {stage}: scores rose and accuracy did not clearly, from update {alarms[0]} on.")
    if tables:
        text.append("Each number is the mean over an eighth of the updates, the first and the last.")
    return make_section("learning", "Learning", text, tables)


def _why(stage: str, lines: Sequence[Row], agents: Sequence[str]) -> list[Row]:
    """What answers were paid, charged and penalised for over the whole training, and how they ended that did not end by
    themselves; nothing where none was."""
    shares = {(agent, name): _share(lines, agent, name) for agent in agents for name in WHY}
    found = [name for name in WHY if any(shares[agent, name] for agent in agents)]
    rows = [[agent, *(percent(shares[agent, name]) for name in found)] for agent in agents]
    title = f"{stage}: incentives, penalties and ends of all updates, % of answers"
    return [make_table(title, ["Agent and turn", *found], rows)] if found else []


def _share(lines: Sequence[Row], agent: str, name: str) -> float:
    """The share of an agent's answers at a turn, of all updates in which any discussion came to it."""
    there = [line for line in lines if f"{agent}/{name}" in line]
    weights = [line.get(f"{agent}/discussions", 1.0) for line in there]
    return sum(w * line[f"{agent}/{name}"] for w, line in zip(weights, there, strict=True)) / max(1.0, sum(weights))


def _early(stage: str, lines: Sequence[Row], agents: Sequence[str]) -> list[str]:
    """How long discussions were, where some ended before the last turn that any came to."""
    last = max((int(agent.rpartition("-")[2]) for agent in agents), default=0)
    if all(line.get("turns", last) == last for line in lines):
        return []
    return [f"{stage}: some discussions ended early; turns of a discussion {_went(lines, 'turns')}, of {last}."]


def stages(metrics: Sequence[Row]) -> list[str]:
    """The stages that trained discussions."""
    return list(dict.fromkeys(line["stage"] for line in metrics if "kl_weight" in line))


def _went(lines: Sequence[Row], key: str) -> str:
    values = [line[key] for line in lines if key in line]
    if not values:
        return NONE
    part = max(1, len(values) // 8)
    mean = lambda some: sum(some) / len(some)  # noqa: E731
    return f"{mean(values[:part]):.3g} → {mean(values[-part:]):.3g}"


def pictures(rows: Sequence[Row], metrics: Sequence[Row]) -> dict[str, list[tuple[str, str]]]:
    """{section: [(title, picture)]}: accuracy over turns, how the majority moved, and accuracy over updates."""
    made: dict[str, list[tuple[str, str]]] = {}
    names = list(dict.fromkeys(row["system"] for row in rows))
    lines = [
        (name, [(float(row["turn"]), 100 * row["accuracy"]) for row in rows if row["system"] == name]) for name in names
    ]
    lines = [(name, points_) for name, points_ in lines if len(points_) > 1]
    if lines:
        title = "Accuracy of the majority after every turn, %"
        made["turns"] = [(title, svg.lines_over(lines, names, title, "turn"))]
    later = [row for row in rows if row["turn"] > 1 and row.get(MAJORITY[0]) is not None]
    if later:
        title = "How the majority moved since the turn before, % of problems"
        bars = [(f"{row['system']}, turn {row['turn']}", [row[kind] for kind in MAJORITY]) for row in later]
        made["moves"] = [(title, svg.stacked(bars, MOVES, title))]
    for stage in stages(metrics):
        own = [line for line in metrics if line["stage"] == stage]
        found = over_updates(own, "accuracy")
        if any(len(points_) > 1 for _, points_ in found):
            title = f"Share of right answers over updates, {stage}"
            picture = svg.lines_over(found, [name for name, _ in found], title, "update")
            made.setdefault("learning", []).append((title, picture))
    return made


def over_updates(lines: Sequence[Row], name: str) -> list[tuple[str, list[tuple[float, float]]]]:
    """A metric of every turn, mean over agents, over the updates."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        turns_: dict[str, list[float]] = {}
        for key, value in line.items():
            match = re.fullmatch(rf"agent-\d+-(turn-\d+)/{name}", key)
            if match:
                turns_.setdefault(match[1], []).append(value)
        for turn, values in turns_.items():
            found.setdefault(turn, []).append((float(line["step"]), sum(values) / len(values)))
    return sorted(found.items())
