"""The facts as titled tables of strings: what both the Markdown and the page show.

One section:

    {"id": "results", "title": "Results", "text": ["..."], "tables": [
        {"title": "", "columns": ["System", "Accuracy %"], "rows": [["MALT + MV@3", "8.3"]], "strong": [0]}]}

`strong` are the rows to bring out. The first column is text, the others are numbers.
"""

from __future__ import annotations

from teamtune.reporting import debate_sections, discussion_sections, scorer_section
from teamtune.reporting.facts import Facts
from teamtune.reporting.measures import BINS, MOVES
from teamtune.reporting.names import MADE
from teamtune.reporting.table import NONE, estimated, make_section, make_table, percent, points
from teamtune.types import Row


def sections(facts: Facts) -> list[Row]:
    """All sections that the run has something to say in, in order."""
    team = facts["team"]
    made = [
        results(facts),
        discussion_sections.turns(facts["by_turn"], facts["further_turns"]),
        discussion_sections.moves(facts["by_turn"]),
        discussion_sections.shifted(facts["shifts"], facts["incentives"]),
        further(facts),
        scorer_section.scorer(facts["scorer"]),
        debate_sections.labels(team["labels"]),
        training(facts),
        discussion_sections.learning(facts["metrics"]),
        debate_sections.diversity(team),
        debate_sections.moves(team["systems"]),
        roles(facts),
        correction(facts),
        values(facts),
        debate_sections.spending(facts),
        stages(facts),
    ]
    return [section for section in made if section["text"] or section["tables"]]


def head(facts: Facts) -> list[tuple[str, str]]:
    """What was run: names and values."""
    run, config = facts["run"], facts["run"]["config"]
    task = config.get("task") or {}
    told = [f"{task.get('task', '?')}", f"level {task['level']}" if task.get("level") else ""]
    trains = any(row["name"] == "problems/train" for row in facts["stages"])
    counts = [f"{task[key]} {key}" for key in (["train"] if trains else []) + ["test"] if key in task]
    sampling = config.get("sampling") or {}
    seeds = [
        ("seed", config.get("seed")),
        ("data seed", task.get("data_seed")),
        ("test draws", run["test_seed"]),
    ]
    rows = [
        ("Command", run["command"] or "not recorded"),
        ("Recipe", run["recipe"]),
        ("Model", run["model"] or "not known"),
        ("Team of", config.get("run", "")),
        ("Task", ", ".join(filter(None, [*told, *counts])) if task else "not known"),
        ("Seeds", ", ".join(f"{name} {seed}" for name, seed in seeds if seed is not None)),
        ("Sampling", ", ".join(f"{k} {v}" for k, v in sampling.items() if k != "__type__")),
        (
            "Tree",
            f"width {config['width']}: {config['width'] ** 3} answers a problem" if "width" in config else "",
        ),
        ("Commit", run["commit"] or "not recorded"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in sorted(run["versions"].items()))),
    ]
    return [(name, str(value)) for name, value in rows if value]


def state(facts: Facts) -> str:
    """One sentence on what is missing; empty for a finished run."""
    open_ = [row for row in facts["stages"] if row["state"] != "sealed"]
    if not open_:
        return "" if facts["stages"] else "This run holds no stage yet."
    told = [f"{row['name']} ({row['state']}{_logged(row)})" for row in open_]
    more = f" and {len(told) - 8} more" if len(told) > 8 else ""
    return f"This run is not finished: {', '.join(told[:8])}{more}. The report tells of what is there."


def results(facts: Facts) -> Row:
    comparison = facts["comparison"]
    if comparison is None and facts["scorer"]:
        return make_section("results", "Results")
    if comparison is None:
        text = "There is no comparison in this run yet; it is made last, from the test stages of all systems."
        return make_section("results", "Results", [text])
    rows, against = comparison["rows"], comparison["against"]
    text = [
        f"Calls and tokens are per question. The last column is the accuracy of {against} minus that of the line, in "
        "points, with a 95 % interval from a paired bootstrap over problems: above zero means that "
        f"{against} is better. SE is the standard error over n problems. Consensus is the share of voters who gave the "
        "answer that won."
    ]
    others = [row for row in rows if row["system"] != against]
    apart = [row["system"] for row in others if round(row["low"], 9) > 0 or round(row["high"], 9) < 0]
    if others:
        names = f": {', '.join(apart)}" if apart else ""
        text.append(f"Differences with an interval without zero: {len(apart)} of {len(others)}{names}.")
    if any(not round(row["low"], 9) and not round(row["high"], 9) for row in others):
        text.append("The interval [0.0, 0.0] means that both score the same on every problem.")
    if any(row["accuracy"] in (0, 1) for row in rows):
        text.append("At 0 or 100 % the standard error is 0 by its formula; this does not mean certainty.")
    return make_section("results", "Results", text, [comparison_table("", comparison)])


def further(facts: Facts) -> Row:
    """The comparisons on further tasks."""
    tables = [comparison_table(one["task"], one) for one in facts["further"]]
    text = ["The same systems on problems of tasks that none of them was trained on here."] if tables else []
    return make_section("further", "Further tasks", text, tables)


COLUMNS = ("System", "Accuracy %", "SE", "n", "Calls", "Prompt tokens", "Completion tokens", "Trained tokens")


def comparison_table(title: str, comparison: Row) -> Row:
    rows, against = comparison["rows"], comparison["against"]
    strong = [index for index, row in enumerate(rows) if row["system"] == against]
    lines = [compared(row, against) for row in rows]
    agreed = any(row.get("consensus") is not None for row in rows)
    if agreed:
        for line, row in zip(lines, rows, strict=True):
            share = row.get("consensus")
            line.insert(4, NONE if share is None else percent(share))
    columns = [*COLUMNS[:4], *(["Consensus %"] if agreed else []), *COLUMNS[4:], "Difference [95 %]"]
    return make_table(title, columns, lines, strong)


def compared(row: Row, against: str) -> list[str]:
    """A line of the comparison as text."""
    gap = f"{points(row['diff'])} [{points(row['low'])}, {points(row['high'])}]"
    return [
        row["system"],
        percent(row["accuracy"]),
        percent(row["se"]),
        str(row["n"]),
        f"{row['calls']:g}",
        *(NONE if row[key] is None else f"{row[key]:,.0f}" for key in ("prompt_tokens", "completion_tokens")),
        f"{row['trained_tokens']:,}",
        NONE if row["system"] == against else gap,
    ]


def training(facts: Facts) -> Row:
    """What was trained on and how the loss went."""
    tables = []
    for one in facts["training"]:
        where = f" ({one['round']})" if one["round"] else ""
        tables += [counted_rows(made, where) for made in one["made"]]
    lines = []
    for curve in facts["curves"]:
        first_last = [_first_last(curve, key) for key in ("loss", "accuracy", "margin")]
        lines.append([f"{curve['stage']}: {curve['agent']}", str(len(curve["steps"])), *first_last])
    if lines:
        columns = ["Fit", "Steps", "Loss, first → last", "Pair accuracy", "Margin"]
        if not any("margin" in curve for curve in facts["curves"]):
            columns, lines = columns[:3], [line[:3] for line in lines]
        tables.append(make_table("Training curves", columns, lines))
    text = []
    if any(one["made"] for one in facts["training"]):
        text.append(
            "Each turn, and each candidate pair, is counted once, under the first reason that holds for it. A group is "
            "the answers to one prompt; a unanimous one, all positive or all negative, offers no pair."
        )
    return make_section("training", "What was trained", text, tables)


def counted_rows(made: Row, where: str) -> Row:
    """What was kept and dropped of each agent's turns. Where somebody else learns from them, it has a column too."""
    counts, learners = made["counts"], made["agents"]
    others = [name for name in learners if name not in counts]
    agents = [*counts, *others]
    reasons = _kept_first(dict.fromkeys(reason for found in counts.values() for reason in found))
    rows = [[why, *(str(counts[a].get(why, 0)) if a in counts else NONE for a in agents)] for why in reasons]
    size = lambda name: str(learners[name]["problems"]) if name in learners else NONE if others else "0"  # noqa: E731
    rows.append([f"problems with {made['what']}", *map(size, agents)])
    counted = "Pairs" if made["what"] == MADE["pairs"] else "Turns"
    return make_table(f"{made['what']}{where}", [counted, *agents], rows, [0])


def _kept_first(reasons: dict[str, None]) -> list[str]:
    order = ["kept", "pairs kept", "groups", "unanimous groups"]
    return sorted(reasons, key=lambda reason: order.index(reason) if reason in order else len(order))


def _first_last(curve: Row, key: str) -> str:
    found = curve.get(key)
    return f"{found[0]:.3f} → {found[-1]:.3f}" if found else NONE


def roles(facts: Facts) -> Row:
    """Accuracy of each role's turns, and of a debate's rounds."""
    tables, found, called = [], facts["roles"], facts["called"]
    if found:
        names = [called[name] for name in found["systems"]]
        rows = []
        gains = any("gain" in row for row in found["rows"])
        for row in found["rows"]:
            cells = [estimated(row["systems"].get(name)) for name in found["systems"]]
            gain = row.get("gain")
            told = f"{points(gain.diff)} [{points(gain.low)}, {points(gain.high)}]" if gain else NONE
            rows.append([row["agent"], *cells, *([told] if gains else [])])
        extra = [f"{called[found['after']]} − untrained [95 %]"] if gains else []  # noqa: RUF001
        tables.append(make_table("Accuracy % (± SE) of each role's turns", ["Role", *names, *extra], rows))
    for debate in facts["debates"]:
        rows = [[tag, estimated(one)] for tag, one in debate["rounds"].items()]
        tables.append(make_table(f"{called[debate['system']]}, round by round", ["Round", "Accuracy %"], rows))
    text = ["Every turn is graded by the answer it ends with; a verifier's is the answer it believes in."]
    return make_section("roles", "Accuracy by role", text if tables else [], tables)


def correction(facts: Facts) -> Row:
    """Both self-correction tables."""
    found, tables, text, called = facts["moves"], [], [], facts["called"]
    columns = [*(name.replace("->", " → ") for name in MOVES), "n"]
    if found["inside"]:
        rows = [[called[row["system"]], *_moves(row)] for row in found["inside"]]
        tables.append(make_table("(a) First turn → last turn of the same pass, %", ["System", *columns], rows))
        text.append(
            "(a) follows each pass from its generator's answer to its refiner's (in a debate, each place's first to "
            "last answer); n counts passes, and passes on one problem are not independent."
        )
    if found["across"]:
        votes = f", MV@{found['votes']}" if found["votes"] > 1 else ""
        rows = [[f"→ {called[row['system']]}{votes}", *_moves(row)] for row in found["across"]]
        tables.append(
            make_table("(b) Untrained single agent → vote of the team, %", ["From one answer", *columns], rows)
        )
        text.append(
            "(b) compares one answer of the untrained single agent with the vote of a whole team on the same problem, "
            "as MALT's paper does; trained teams do not correct that very answer, and the untrained one's first answer "
            "is drawn as that one is, so that its line shows what roles and votes do without training. A tied vote "
            "counts in parts."
        )
    return make_section("correction", "Self-correction", text, tables)


def values(facts: Facts) -> Row:
    """The distribution of values, and how little the bound certifies."""
    tables = []
    for one in facts["training"]:
        rows = [
            [row["agent"], str(row["n"]), f"{row['mean']:.2f}", percent(row["positive"])]
            + [percent(share) for share in row["bins"]]
            for row in one["values"]
        ]
        where = f" ({one['round']})" if one["round"] else ""
        title = f"Values of training turns{where}, % in each range"
        if rows:
            columns = ["Role", "Turns", "Mean", "Positive %", *BINS]
            tables.append(make_table(title, columns, rows, heat=4))
    text, bound = [], facts["hoeffding"]
    if bound:
        text.append(
            f"A generator turn's value is the mean of {bound['leaves']} leaves. Hoeffding's bound puts all "
            f"{bound['width']} values of a problem's generator turns within ± {bound['half']:.2f} of the truth with "
            "95 % probability"
            + (
                ", which is uninformative: a value lies in [0, 1] to begin with. (The leaves under one verifier turn "
                "share it, so they are not even independent, as the bound asks.)"
                if bound["half"] > 0.25
                else ", if leaves were independent, which those under one verifier turn are not."
            )
        )
    return make_section("values", "Values", text if tables or bound else [], tables)


def stages(facts: Facts) -> Row:
    """Every stage with what it holds, and how far its engine was from training."""
    rows, told = [], any(row["gap"] is not None for row in facts["stages"])
    for row in facts["stages"]:
        size = NONE if row["rows"] is None else f"{row['rows']:,}"
        seconds = NONE if row["seconds"] is None else f"{row['seconds']:,.1f}"
        gap = [] if not told else [NONE if row["gap"] is None else f"{row['gap']:.2g}"]
        rows.append([row["name"], size, seconds, row["state"] + _logged(row), *gap])
    columns = ["Stage", "Rows", "Seconds", "State", *(["Gap"] if told else [])]
    text = "Gap: before the stage every seat with an adapter of its own answered a fixed question; the greatest mean "
    text += "distance of a token's log-probability between the engine and training, in nats."
    tables = [make_table("", columns, rows)] if rows else []
    # What became of rows to train on stands above, round by round.
    counting = [row for row in facts["stages"] if row["name"].split("/")[-1] not in MADE]
    if counted := [[row["name"], what, f"{n:,}"] for row in counting for what, n in row["counts"].items()]:
        tables.append(make_table("What was counted: dropped, cut off, tied", ["Stage", "What", "How many"], counted))
    return make_section("stages", "Stages", [text] if told else [], tables)


def _moves(row: Row) -> list[str]:
    return [*(percent(row[name]) for name in MOVES), str(row["n"])]


def _logged(row: Row) -> str:
    return f", {row['logged']} lines logged" if row["logged"] else ""
