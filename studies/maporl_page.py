"""The tables and curves of the study of MAPoRL, made of its runs' records alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tables import Asked, Records, joined, mean_and_half, over_runs, percent, seed_of, table, tables_of

from teamtune.reporting import svg
from teamtune.transitions import CELLS, MAJORITY, MOVES
from teamtune.types import Row

CURVES = ("accuracy", "score", "reward", "base_kl", "length")
COOLER = 0.7
"""the paper's temperature"""
TEAM = "ppo"
"""the training of the team, which every run of a seed has"""
SHIFTED = (*CELLS, "delta_0", "delta_1")
CALLED = (
    "WRR is an answer whose agent was wrong before and is right after, where most of the others were right before: "
    "own before, own after, others before, by the grader."
)
PAID = (
    f"{CALLED} α₀ pays WRW and fines RWW, α₁ pays WRR and fines RWR; β₀ and β₁ pay and fine an agent for the "
    "same moves of the other one. In brackets: points to the team that is paid none, half of a 95 % interval."
)


def page(records: Mapping[str, Records], asked: Asked) -> list[str]:
    """The results page's tables, from whatever is recorded."""
    return [line for task, done in records.items() if done["table"] for line in of_task(task, done, asked)]


def of_task(task: str, done: Records, asked: Asked) -> list[str]:
    """Everything on one task."""
    by_turn = joined(done["table"], done["rivals"], "by-turn")
    lines = [*asked.head(task, done), "### Accuracy by turn", "", *turn_by_turn(by_turn)]
    for name in (told.replace(":", "-") for told in asked.further[task]):
        found = tables_of(done["transfer"], f"transfer/{name}/by-turn")
        lines += [f"### Trained on {task}, tested on {name}", "", *turn_by_turn(found)] if found else []
    if found := tables_of(done["opening"], "by-turn"):
        lines += ["### The first turn trained too, and votes of the base", "", *turn_by_turn(found)]
    if found := tables_of(done["cooler"], "by-turn"):
        lines += [f"### Answers at temperature {COOLER}", "", *turn_by_turn(found)]
    lines += ["### Cost", "", *cost(joined(done["table"], done["rivals"])), *trainings(done)]
    majority = majorities(by_turn)
    bars = svg.stacked([one[:2] for one in majority], MOVES, "How the majority moved, % of problems")
    picture = asked.drawn(task, "moves", svg.standalone(bars))
    lines += ["### How the majority moved, %", "", *majority_table(majority), f"![moves]({picture})", ""]
    lines += ["### How answers moved, %", "", CALLED, "", *moves(by_turn)]
    for metric, curve in curves(done["table"]):
        lines += [f"![{metric} over updates]({asked.drawn(task, metric, curve)})", ""]
    picture = asked.drawn(task, "learning", learning(done))
    told = "How the last turn's answers come to be right, of every training of three turns:"
    lines += [told, "", f"![learning]({picture})", ""]
    every = [one for part in done if part.startswith("scorer") for one in done[part]]
    lines += ["### Scorer", "", *scorers(every), *calibrated(done["scorer"])]
    if done["incentives"]:
        found, turns = (tables_of(done["incentives"], name) for name in ("shifts", "by-turn"))
        lines += ["### Incentives, two agents over two turns", "", *turn_by_turn(turns)]
        lines += [PAID, "", *shifted(found, turns)]
    return lines


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
    return f"{told} ({around(*mean_and_half(rows))})"


def around(value: float, half: float) -> str:
    """A difference in points, with half of its interval."""
    return f"{percent(value, '+.1f')} ± {percent(half)}"


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


def majorities(tables: Sequence[list[Row]]) -> list[tuple[str, list[float], list[str]]]:
    """(system and turn, the shares in which the majority moved since the turn before, its gains since then and since
    the first turn with half of the 95 % interval), means over seeds, whose problems are others.

    What a majority gains on a problem is in [-1, 1], so that the mean of its square is at most that of its size, which
    is the share corrected and lost: the interval from the second turn to the third is made of that, and rather too wide
    where ties move in parts."""
    found = []
    for name, turn in dict.fromkeys((row["system"], row["turn"]) for row in tables[0] if row["turn"] > 1):
        same = [row for rows in tables for row in rows if (row["system"], row["turn"]) == (name, turn)]
        shares = [sum(row[kind] for row in same) / len(same) for kind in MAJORITY]
        steps = [row["majority corrected"] - row["majority lost"] for row in same]
        sizes = [row["majority corrected"] + row["majority lost"] for row in same]
        errors = [(size - step**2) / row["n"] for row, step, size in zip(same, steps, sizes, strict=True)]
        gain = mean_and_half(same, "gain", "gain_low", "gain_high")
        before = (sum(steps) / len(same), 1.96 * sum(errors) ** 0.5 / len(same))
        since = [gain if turn == 2 else before, gain]
        found.append((f"{name}, turn {turn}", shares, [around(*one) for one in since]))
    return found


def majority_table(found: Sequence[tuple[str, list[float], list[str]]]) -> list[str]:
    """How the majority moved, in % of problems."""
    lines = [f"| {name} | {' | '.join([*map(percent, shares), *told])} |" for name, shares, told in found]
    return table(f"| majority of | {' | '.join(MOVES)} | since the turn before, points | since turn 1, points |", lines)


def shifted(tables: Sequence[list[Row]], turns: Sequence[list[Row]]) -> list[str]:
    """How answers moved in the last turn, in % of all agents' answers, in brackets the points to the team that was
    paid no incentive; and how many of the wrong ones were corrected, of the right ones lost. Means over seeds."""
    last = max(row["turn"] for row in turns[0])
    lines = []
    for name in dict.fromkeys(row["system"] for row in turns[0]):
        own = [row for rows in turns for row in rows if (row["system"], row["turn"]) == (name, last)]
        # Of two agents, influence is the revision of the other one: the same numbers again.
        of = [row for rows in tables for row in rows if row["system"] == name and row["of"] == "revision"]
        told = [share_and_shift(own, [row for row in of if row["cell"] == cell], cell) for cell in SHIFTED]
        lines.append(f"| {name} | {' | '.join(told)} | {' | '.join(map(percent, rates(own)))} |")
    head = "| system | RWR | RWW | WRW | WRR | Δ0 = WRW − RWW | Δ1 = WRR − RWR "  # noqa: RUF001
    return table(f"{head}| corrected, of wrong | lost, of right |", lines)


def share_and_shift(own: Sequence[Row], shift: Sequence[Row], cell: str) -> str:
    """One cell: a share, and its difference with half of its 95 % interval."""
    share = sum(row[cell] for row in own) / len(own)
    return f"{percent(share)} ({around(*mean_and_half(shift))})" if shift else percent(share)


def rates(rows: Sequence[Row]) -> list[float | None]:
    """Of the answers that were wrong before, the part that was corrected; of the right ones, the part that was lost;
    None where there were none."""
    kept, corrected, lost, wrong = (sum(row[move] * row["moves"] for row in rows) for move in MOVES)
    return [part / whole if whole else None for part, whole in ((corrected, corrected + wrong), (lost, kept + lost))]


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


def trainings(done: Records) -> list[str]:
    """What the trainings of all seeds took, in minutes."""
    lines, told = [], []
    for part in (part for part in done if done[part] and "trainings" in done[part][0]):
        records = done[part]
        for name in dict.fromkeys(stage for one in records for stage in one["trainings"]):
            if name == TEAM and part in ("transfer", "rivals"):  # it is the table's
                continue
            same = [one for one in records if name in one["trainings"]]
            minutes = ", ".join(f"{one['trainings'][name] / 60:.1f}" for one in same)
            tokens = ", ".join(f"{one['generated'][name] / 1e6:.2f}" for one in same)
            alarms = ", ".join(str(one["alarms"][name][0]) if one["alarms"][name] else "none" for one in same)
            lines.append(f"| {name}, {part} | {minutes} | {tokens} | {alarms} |")
        whole = ", ".join(f"{one['seconds'] / 60:.0f}" for one in records)
        told.append(f"{part} {whole}")
    head = "| training | minutes, each seed | M tokens generated | scores rose without accuracy from update |"
    alone = ", ".join(f"{minutes / 60:.0f}" for minutes in by_itself(done))
    whole = "The method by itself (a scorer made and measured, the team trained, its discussions of test problems): "
    whole += f"{alone} minutes. Minutes of whole runs: {'; '.join(told)}. "
    whole += "What a run took over from another counts for both, and so does a time that a process was paused; "
    whole += "a stage that was resumed counts its last part."
    return [*table(head, lines), whole, ""]


def by_itself(done: Records) -> Iterator[float]:
    """Seconds that scorer, team and the team's test took, of every seed that has both."""
    scorers_ = {seed_of(one): one["seconds"] for one in done["scorer"]}
    for one in done["table"]:
        tested = next(row["test_seconds"] for row in one["costs"] if row["system"] == "MAPoRL")
        if seed_of(one) in scorers_:
            yield scorers_[seed_of(one)] + one["trainings"][TEAM] + tested


def learning(done: Records) -> str:
    """A picture of every training of three turns: the last turn's accuracy over the updates, mean over seeds."""
    found: dict[str, list[tuple[float, float]]] = {}
    for part in ("table", "rivals", "opening"):
        for name in dict.fromkeys(stage for one in done[part] for stage in one["updates"]):
            last = [one["updates"][name]["accuracy"][-1][1] for one in done[part] if name in one["updates"]]
            steps = zip(*last, strict=False)
            line = [(same[0][0], sum(value for _, value in same) / len(same)) for same in steps]
            team = "all turns" if part == "opening" else "the team"
            found.setdefault(team if name == TEAM else name.removesuffix("/ppo"), line)
    return svg.standalone(svg.lines_over(list(found.items()), list(found), "accuracy of the last turn", "update"))


def curves(records: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """(metric, picture): of every turn over the updates of the team's training, mean over seeds."""
    for metric in CURVES:
        runs = [dict(one["updates"][TEAM][metric]) for one in records]
        names = list(runs[0])
        found = []
        for name in names:
            steps = zip(*(one[name] for one in runs), strict=False)
            found.append((name, [(same[0][0], sum(value for _, value in same) / len(same)) for same in steps]))
        yield metric, svg.standalone(svg.lines_over(found, names, metric, "update"))


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
