"""`gather(folder)`: everything that a report says about a run, as one plain dict.

Whatever stages there are give what they can; what is not there yet is None or an empty list.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from teamtune.credit.tree import hoeffding
from teamtune.evaluate import accuracy_by_agent
from teamtune.recipes.systems import scores
from teamtune.reporting import debates, measures, read
from teamtune.reporting.costs import costs
from teamtune.reporting.trees import FULL, LIGHT, kind_of, mix, problem_trees, right_shares
from teamtune.types import Row, answering

Facts = dict[str, Any]
Tables = tuple[list[Row], list[Row]]
"""Turns (light columns) and grades of one system."""

NAMES = {
    "base-solo": "Untrained single agent",
    "base": "Untrained team",
    "debate": "Debate, untrained",
    "star-solo": "Single agent after SFT (STaR)",
    "star": "Team after SFT (STaR)",
    "malt": "Trained team",
    "team": "Evaluated team",
    "unique-id": "Debate, unique ids",
    "star-single": "STaR",
    "majority-ft": "Majority FT",
    "single-ft-solo": "Single-agent FT, alone",
    "temperature-2": "Single-agent FT, temperature 2",
    "union-ft": "One model, all agents' data",
    "no-critic": "MAFT without critics",
    "no-interaction": "MAFT, one generator",
    "no-summary": "MAFT without summaries",
    "cooperative-base": "Debate, cooperative",
    "cooperative": "MAFT, cooperative",
}
MADE = {"sft-rows": "SFT rows", "pairs": "DPO pairs", "ppo-rows": "PPO rows"}
NUMBERED = {"iteration-": "MAFT, iteration ", "single-ft-": "Single-agent FT, iteration "}
LIMITS = ((40, 20), (40, 12), (30, 8), (20, 5), (20, 2))
"""Problems shown of training and of each test system: the first that keeps the page small enough."""
MOST_BYTES = 2_600_000


def gather(folder: Path) -> Facts:
    """Read a run folder."""
    facts, metrics = outline(folder), read.metrics(folder)
    played = {name: tables for name in systems_on_test(facts["stages"]) if (tables := _played(folder, name))}
    return {
        **facts,
        "training": [_training(folder, prefix, facts["stages"]) for prefix in _rounds(facts["stages"])],
        "metrics": metrics,
        "curves": measures.curves(metrics),
        "by_turn": read.table(folder, "by-turn") or [],
        "shifts": read.table(folder, "shifts") or [],
        "further_turns": [
            (name.split("/")[1], read.table(folder, name) or [])
            for name in (row["name"] for row in facts["stages"])
            if name.startswith("transfer/") and name.endswith("/by-turn")
        ],
        "roles": _roles(played),
        "debates": [_debate(name, *tables) for name, tables in played.items() if _has_rounds(tables[0])],
        "moves": _moves(played, facts["run"]["config"].get("votes", 1)),
        "hoeffding": _hoeffding(facts),
        "team": team(folder, facts["stages"]),
        "costs": costs(folder, facts["stages"]),
        "viewer": _viewer(folder, facts["stages"], played),
    }


def outline(folder: Path) -> Facts:
    """What can be told without opening large tables: the run's options, its stages and the comparison."""
    settings = read.options(folder)
    config = settings["config"]
    stages = read.stages(folder, config)
    sealed = {row["name"]: row for row in stages if row["state"] == "sealed"}
    teams = [row["inputs"]["team"] for row in sealed.values() if "team" in (row["inputs"] or {})]
    tests = [row["inputs"] for name, row in sealed.items() if name.startswith("test/") and "how" in row["inputs"]]
    run = {
        "name": folder.resolve().name,
        "recipe": config.get("__type__", "unknown"),
        "config": config,
        "command": settings["command"],
        "commit": settings["commit"],
        "versions": settings["versions"],
        "model": config.get("model") or next((team["model"] for team in teams), None),
        "test_seed": next((inputs["how"].get("seed") for inputs in tests), None),
    }
    found = [name for name in sealed if name.endswith("/comparison")]
    further = [{"task": name.split("/")[1], **one} for name in found if (one := _compared(folder, name, sealed))]
    told = {"comparison": _compared(folder, "comparison", sealed), "further": further}
    return {"run": run, "stages": stages, **told, "scorer": read.table(folder, "calibration") or []}


def _compared(folder: Path, name: str, sealed: dict[str, Row]) -> Row | None:
    """A comparison and the name of the system that the others are compared with."""
    rows = read.table(folder, name)
    if not rows:
        return None
    inputs = sealed.get(name, {}).get("inputs") or {}
    return {"rows": rows, "against": inputs.get("against", rows[-1]["system"])}


def team(folder: Path, stages: Sequence[Row]) -> Row:
    """What is special to debates: pseudo-labels, differences between agents, warnings."""
    sealed = [row["name"] for row in stages if row["state"] == "sealed"]
    labels = []
    for name in sealed:
        if name.endswith("/credit"):
            place = name.removesuffix("/credit")
            credit, grades = read.table(folder, name) or [], read.table(folder, f"{place}/grades") or []
            found = debates.pseudo_labels(credit, grades)
            labels += [{"iteration": place, **found}] if found else []
    systems, names = [], named(stages)
    for place in systems_on_test(stages):
        rounds = read.table(folder, f"test/{place}/rounds")
        if rounds:
            others = (read.table(folder, f"test/{place}/{name}") for name in ("likelihood", "embedded"))
            told = {"values": debates.differences(rounds, *others), "rounds": debates.by_rounds(rounds)}
            systems.append(
                {
                    "name": names.get(place, system_name(place)),
                    "place": place,
                    **told,
                    "takeovers": debates.takeovers(rounds),
                }
            )
    looked = [name for name in sealed if name.startswith("collapse/")]
    warned = [row for name in looked for row in read.table(folder, name) or []]
    return {"labels": labels, "systems": systems, "warnings": warned, "looked": bool(looked)}


def named(stages: Sequence[Row]) -> dict[str, str]:
    """What the comparison calls the system of each test stage; none where it is not made."""
    by_key = {row["key"]: row["name"] for row in stages if row["state"] == "sealed"}
    inputs = next((row["inputs"] for row in stages if row["name"] == "comparison"), None) or {}
    found = {one["name"]: by_key.get(one["played"]["turns"]["table"], "") for one in inputs.get("systems", ())}
    return {stage.split("/")[1]: name for name, stage in found.items() if stage.startswith("test/")}


def systems_on_test(stages: Sequence[Row]) -> list[str]:
    """Names of the systems that were played and graded on test problems, in the recipe's order."""
    sealed = [row["name"] for row in stages if row["state"] == "sealed"]
    names = [name.split("/")[1] for name in sealed if name.startswith("test/") and name.endswith("/turns")]
    return [name for name in names if f"test/{name}/grades" in sealed]


def system_name(name: str) -> str:
    """What a report calls the system of a test stage."""
    for prefix, told in NUMBERED.items():
        if name.removeprefix(prefix).isdigit():
            return told + name.removeprefix(prefix)
    return NAMES.get(name, name)


def _played(folder: Path, name: str) -> Tables | None:
    turns, grades = read.table(folder, f"test/{name}/turns", LIGHT), read.table(folder, f"test/{name}/grades")
    return (answering(turns), grades) if turns and grades else None


def _rounds(stages: Sequence[Row]) -> list[str]:
    """Prefixes of the training rounds that have begun: "" or "round-1/", "round-2/"."""
    mine = [row["name"] for row in stages if row["state"] != "missing" and not row["name"].startswith("test/")]
    return list(dict.fromkeys(name[: -len("turns")] for name in mine if name.split("/")[-1] == "turns"))


def _training(folder: Path, prefix: str, stages: Sequence[Row]) -> Row:
    """One round: what was kept for training and what was dropped, and the values of its turns."""
    by_name = {row["name"]: row for row in stages}
    made = []
    for name, what in MADE.items():
        stage = by_name.get(f"{prefix}{name}")
        if stage and stage["state"] == "sealed":
            rows = read.table(folder, f"{prefix}{name}", ("agent", "problem")) or []
            agents = dict.fromkeys(row["agent"] for row in rows)
            size = {a: [row["problem"] for row in rows if row["agent"] == a] for a in agents}
            trained = {a: {"rows": len(names), "problems": len(set(names))} for a, names in size.items()}
            made.append({"what": what, "counts": measures.outcomes(stage["counts"]), "agents": trained})
    values = read.table(folder, f"{prefix}values", ("agent", "value", "positive")) or []
    return {"round": prefix.rstrip("/"), "made": made, "values": measures.spread_of_values(values)}


def _has_rounds(turns: Sequence[Row]) -> bool:
    return any(row["tag"].startswith("round-") for row in turns)


def _roles(played: dict[str, Tables]) -> Row | None:
    """Accuracy by role of the systems that are teams with roles."""
    teams = {n: t for n, t in played.items() if not n.endswith("-solo") and not _has_rounds(t[0])}
    if not teams:
        return None
    after = next((name for name in ("malt", "team") if name in teams), list(teams)[-1])
    return {
        "before": "base",
        "after": after,
        "systems": list(teams),
        "rows": measures.by_role(teams, "base", after),
    }


def _debate(name: str, turns: list[Row], grades: list[Row]) -> Row:
    """Accuracy of a debate's answers round by round."""
    steps = [{**row, "agent": row["tag"]} for row in turns]
    return {"system": name, "rounds": accuracy_by_agent(grades, steps)}


def _moves(played: dict[str, Tables], votes: int) -> Row:
    """Self-correction: inside each system, and from the untrained single agent to the votes of the teams."""
    inside = [
        {"system": name, "problems": len({row["problem"] for row in turns}), **found}
        for name, (turns, grades) in played.items()
        if (found := measures.moves(measures.first_to_last(turns, grades)))
    ]
    across = []
    if "base-solo" in played:
        turns, grades = played["base-solo"]
        before = scores([row for row in turns if row["take"] == 0], grades)
        for name in ("base", "star", "malt", "team"):
            if name not in played:
                continue
            after = scores(*played[name], votes)
            found = measures.moves([(before[p], after[p]) for p in before if p in after])
            across += [{"system": name, **found}] if found else []
    return {"inside": inside, "across": across, "votes": votes}


def _hoeffding(facts: Facts) -> Row | None:
    """How well the values of a problem's generator turns are known, where trees were rolled out."""
    width = facts["run"]["config"].get("width")
    if not isinstance(width, int) or not _rounds(facts["stages"]):
        return None
    return {"width": width, "leaves": width**2, "half": hoeffding(width**2, nodes=width)}


def _viewer(folder: Path, stages: Sequence[Row], played: dict[str, Tables]) -> Row:
    """The trees to show, as many problems as keep the page small."""
    sets: list[Row] = []
    for number, (train, test) in enumerate(LIMITS):
        sets = [found for prefix in _rounds(stages) if (found := _training_set(folder, prefix, train))]
        sets += _test_sets(folder, played, test)
        size = len(json.dumps(sets, ensure_ascii=False).encode())
        if size <= MOST_BYTES or number == len(LIMITS) - 1:
            break
    return {"sets": sets, "most": LIMITS[0], "shortened": number > 0}


def _training_set(folder: Path, prefix: str, limit: int) -> Row | None:
    light = answering(read.table(folder, f"{prefix}turns", LIGHT) or [])
    if not light:
        return None
    grades, values = (read.table(folder, f"{prefix}{name}") or [] for name in ("grades", "values"))
    pairs = read.table(folder, f"{prefix}pairs", PAIR) or []
    sft = read.table(folder, f"{prefix}sft-rows", ("problem", "take", "turn")) or []
    shares, paired = right_shares(light, grades), {row["problem"] for row in pairs}
    chosen = mix(list(shares), lambda p: kind_of(shares[p], p in paired), limit)
    turns = read.table(folder, f"{prefix}turns", FULL, chosen) or []
    title = f"Training trees, {prefix[:-1]}" if prefix else "Training trees"
    shown = problem_trees(turns, grades, values, sft, pairs)
    return {"key": f"{prefix}turns", "title": title, "total": len(shares), "problems": shown}


PAIR = ("problem", "take", "chosen_turn", "rejected_take", "rejected_turn")


def _test_sets(folder: Path, played: dict[str, Tables], limit: int) -> list[Row]:
    """The same problems of every system, a mix of those that the first and the last of them get right or wrong."""
    shares = {name: right_shares(*tables) for name, tables in played.items()}
    if not shares:
        return []
    first = shares.get("base") or next(iter(shares.values()))
    last = list(shares.values())[-1]
    chosen = mix(list(last), lambda p: (first.get(p, 0.0) > 0.5, last[p] > 0.5), limit)
    sets = []
    for name in reversed(played):  # the trained team first
        turns = read.table(folder, f"test/{name}/turns", FULL, chosen) or []
        shown = problem_trees(turns, played[name][1])
        sets.append(
            {
                "key": f"test/{name}",
                "title": f"Test: {system_name(name)}",
                "total": len(last),
                "problems": shown,
            }
        )
    return sets
