"""The sections of a report on debates, further tasks and costs: tables of strings, as in sections.py."""

from __future__ import annotations

from collections.abc import Sequence

from teamtune.reporting.debates import BY_EMBEDDING, BY_LIKELIHOOD, BY_ROUND, FLIPS
from teamtune.reporting.table import NONE, estimated, make_section, make_table, percent
from teamtune.types import Row

IN_PERCENT = {"vote", "accuracy", "consensus", "disagreement", "copied"}
NAMED = {
    "vote": "Accuracy of the vote %",
    "accuracy": "Accuracy of answers %",
    "consensus": "Consensus %",
    "entropy": "Entropy, nats",
    "disagreement": "Disagreement %",
    "copied": "Took over an answer %",
    "tokens": "Tokens of an answer",
    "nll": "NLL a token",
    "nll_answer": "NLL an answer",
    "kl": "KL between agents",
    "k1": "k1",
    "k3": "k3",
    "base_kl": "KL to the base",
    "base_k1": "k1 to the base",
    "base_k3": "k3 to the base",
    "first_kl": "KL between generators",
    "first_base_kl": "KL of generators to the base",
    "dissimilarity": "Embedding dissimilarity",
    "dissimilarity_agreeing": "of agreeing answers",
}
"""Measure -> what its column is called."""


def labels(found: Sequence[Row]) -> Row:
    """Pseudo-labels against gold answers, iteration by iteration."""
    rows, fine = [], []
    bare = [one for one in found if "precision" not in one]
    for one in (one for one in found if one not in bare):
        name = one["iteration"]
        rows.append([name, f"{percent(one['precision'])} ± {percent(one['se'])}", str(one["n"])])
        for part in one["bins"]:
            told = f"{percent(part['precision'])} ± {percent(part['se'])}"
            fine.append([name, f"{part['margin']:.2f}", told, str(part["n"])])
    if bare and not rows:
        counts = ", ".join(f"{one['iteration']} {one['given']:,}" for one in bare)
        text = f"How many labels are right is not known: there are no graded training debates. Labels: {counts}."
        return make_section("labels", "Pseudo-labels", [text])
    if not rows:
        return make_section("labels", "Pseudo-labels")
    tables = [
        make_table("Labels that are right, % (± SE)", ["Iteration", "Right", "n"], rows),
        make_table("By the vote's margin", ["Iteration", "Margin", "Right", "n"], fine),
    ]
    text = (
        "The label of a training problem is the vote of the last round. Nothing was trained on gold answers; they are "
        "used here alone, to tell how good the labels are. The margin is the winner's share of the votes less that of "
        "the runner-up."
    )
    return make_section("labels", "Pseudo-labels", [text], tables)


def diversity(team: Row) -> Row:
    """How the members of every system differ, and what speaks for a collapse."""
    systems, warnings = team["systems"], team["warnings"]
    tables = []
    for title, names in (
        ("Agreement in the last round, means over problems (± SE)", ("vote", *BY_ROUND)),
        ("Likelihood and divergence, nats (± SE)", BY_LIKELIHOOD),
        ("Embeddings: mean of 1 − cosine over pairs (± SE)", BY_EMBEDDING),  # noqa: RUF001
    ):
        here = [name for name in names if any(name in one["values"] for one in systems)]
        rows = [[one["name"], *(_told(one["values"], name) for name in here)] for one in systems]
        if here:
            tables.append(make_table(title, ["System", *(NAMED[name] for name in here)], rows))
    text = [f"Warning, {row['system']}: {row['warning']}." for row in warnings]
    if systems:
        text.append(
            "NLL: last answers under the agents who did not give them, given the question alone. KL: given all that "
            "the author was shown, over the whole vocabulary; k1 and k3 estimate it from the sampled tokens, "
            "with a bias where top-p, top-k or a temperature other than 1 cut the distribution. Higher is "
            "more diverse; more diverse is not better by itself."
        )
        if not team["looked"]:
            text.append("No look for signs of a collapse: there are not two iterations to compare.")
        elif not warnings:
            text.append("No sign of a collapse: no iteration agreed more, or copied more, without being right more.")
    return make_section("diversity", "How the agents differ", text if tables else [], tables)


def moves(systems: Sequence[Row]) -> Row:
    """Round by round: accuracy, agreement, flips, and who took over whose answer."""
    rows, taken = [], []
    for one in systems:
        for step in one["rounds"]:
            values = step["values"]
            flips = [str(step["flips"][name]) for name in FLIPS] if step["flips"] else [NONE] * len(FLIPS)
            told = [_told(values, name) for name in ("accuracy", "vote", "consensus")]
            rows.append([one["name"], str(step["round"]), *told, *flips])
        for (agent, source), count in sorted(one["takeovers"].items()):
            taken.append([one["name"], agent, source, str(count)])
    if not rows:
        return make_section("rounds", "Round by round")
    columns = ["System", "Round", "Answers right %", "Vote right %", "Consensus %", *FLIPS]
    tables = [make_table("", columns, rows)]
    if taken:
        title = "Who took over whose answer (an answer that it did not give in the round before)"
        tables.append(make_table(title, ["System", "Agent", "From", "Times"], taken))
    text = "Flips count agents' answers, from the round before, against the gold answer."
    return make_section("rounds", "Round by round", [text], tables)


def spending(facts: Row) -> Row:
    """What each system cost: trained tokens agent by agent, parameters, seconds, memory; on further tasks too."""
    compared = [("", facts["comparison"], facts["costs"])]
    for one in facts["further"]:
        place = f"transfer/{one['task']}/comparison"
        compared.append((f"On {one['task']}", one, facts["further_costs"].get(place, [])))
    known = [(title, comparison, rows) for title, comparison, rows in compared if comparison and rows]
    if not known:
        return make_section("costs", "Costs")
    tables = [_spent(title, comparison, rows) for title, comparison, rows in known]
    trained = {row["system"]: row.get("trained") or [] for _, comparison, _ in known for row in comparison["rows"]}
    each = [[system, one["agent"], f"{one['tokens']:,}"] for system, group in trained.items() for one in group]
    if each:
        tables.append(make_table("Trained tokens, agent by agent", ["System", "Agent", "Tokens"], each))
    text = (
        "Seconds to train are those of all stages that a system stands on, rollouts included, so parts that systems "
        "share count for each, and none are told where another run trained the team or played what it learned from; a "
        "scorer's from elsewhere are left out. To answer, of all test problems. A stage that was resumed counts its "
        "last part. Parameters are those of adapters that answer. Peak memory is the highest of those stages: of the "
        "GPU where there is one, else of the process."
    )
    return make_section("costs", "Costs", [text], tables)


def _spent(title: str, comparison: Row, rows: Sequence[Row]) -> Row:
    """A line a system, of one task."""
    trained = {row["system"]: row.get("trained") or [] for row in comparison["rows"]}
    lines = []
    for row in rows:
        each = trained.get(row["system"], [])
        total = sum(one["tokens"] for one in each)
        mean = f"{total / len(each):,.0f}" if each else NONE
        told = [NONE if row[key] is None else f"{row[key]:,.0f}" for key in ("parameters", "train_seconds")]
        last = [NONE if row[key] is None else f"{row[key]:,.0f}" for key in ("test_seconds", "peak_mb")]
        lines.append([row["system"], f"{total:,}", str(len(each)), mean, *told, *last])
    columns = ["System", "Trained tokens", "Agents trained", "Tokens an agent", "Trainable parameters"]
    columns += ["Seconds to train", "Seconds to answer", "Peak MB"]
    return make_table(title, columns, lines)


def _told(values: Row, name: str) -> str:
    one = values.get(name)
    if one is None:
        return NONE
    if name in IN_PERCENT:
        return estimated(one)
    digits = 1 if name in ("tokens", "nll_answer") else 4 if {"kl", "k1", "k3"}.intersection(name.split("_")) else 3
    return f"{one.mean:.{digits}f} ± {one.se:.{digits}f}"
