"""`gather(folder)`: everything that a report says about a run, as one plain dict.

Whatever stages there are give what they can; what is not there yet is None or an empty list.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from teamtune.credit.discussion import Incentives
from teamtune.credit.tree import hoeffding
from teamtune.evaluate import accuracy_by_agent
from teamtune.recipes.systems import scores
from teamtune.reporting import debates, measures, read
from teamtune.reporting.costs import costs, costs_elsewhere
from teamtune.reporting.names import (
    MADE,
    further_roots,
    named,
    names_of,
    system_name,
    systems_on_test,
    training_rounds,
)
from teamtune.reporting.trees import LIGHT
from teamtune.reporting.viewer import Tables, viewer
from teamtune.types import Row, answering

Facts = dict[str, Any]


def gather(folder: Path) -> Facts:
    """Read a run folder."""
    facts, metrics = outline(folder), read.metrics(folder)
    roots = ["test", *further_roots(facts["stages"])]
    tests = {root: _systems(folder, root, facts["stages"]) for root in roots}
    played = tests["test"]
    called = names_of(facts["stages"], facts["run"]["recipe"], [name for one in tests.values() for name in one])
    return {
        **facts,
        "training": [_training(folder, prefix, facts["stages"]) for prefix in training_rounds(facts["stages"])],
        "called": called,
        "metrics": metrics,
        "curves": measures.curves(metrics),
        "by_turn": read.table(folder, "by-turn") or [],
        "shifts": read.table(folder, "shifts") or [],
        "incentives": _incentives(facts["run"]["config"]),
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
        "further_costs": costs_elsewhere(folder, facts["stages"]),
        "viewer": viewer(folder, facts["stages"], tests, called),
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
            told = {"iteration": place, "given": len({(row["problem"], row["take"]) for row in credit})}
            labels += [told | (found or {"bins": []})] if credit else []
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


def _systems(folder: Path, root: str, stages: Sequence[Row]) -> dict[str, Tables]:
    """The turns and grades of every system that was played at a place."""
    found: dict[str, Tables] = {}
    for name in systems_on_test(stages, root):
        turns, grades = read.table(folder, f"{root}/{name}/turns", LIGHT), read.table(folder, f"{root}/{name}/grades")
        if turns and grades:
            found[name] = answering(turns), grades
    return found


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
    """Self-correction: inside each system, and from the untrained single agent to the votes of the teams, of which the
    trained one is of the last iteration where there are some."""
    inside = [
        {"system": name, "problems": len({row["problem"] for row in turns}), **found}
        for name, (turns, grades) in played.items()
        if (found := measures.moves(measures.first_to_last(turns, grades)))
    ]
    across = []
    if "base-solo" in played:
        turns, grades = played["base-solo"]
        before = scores([row for row in turns if row["take"] == 0], grades)
        iterations = [name for name in played if name.startswith("iteration-")]
        for name in ("base", "star", "malt", "team", *iterations[-1:]):
            if name not in played:
                continue
            after = scores(*played[name], votes)
            found = measures.moves([(before[p], after[p]) for p in before if p in after])
            across += [{"system": name, **found}] if found else []
    return {"inside": inside, "across": across, "votes": votes}


def _incentives(config: Row) -> Incentives:
    """The table of incentives that a run of MAPoRL goes by."""
    told = (config.get("rewards") or {}).get("incentives") or {}
    return Incentives(table=told.get("table", "paper"), cells=tuple(told.get("cells", ())))


def _hoeffding(facts: Facts) -> Row | None:
    """How well the values of a problem's generator turns are known, where trees were rolled out."""
    width = facts["run"]["config"].get("width")
    if not isinstance(width, int) or not training_rounds(facts["stages"]):
        return None
    return {"width": width, "leaves": width**2, "half": hoeffding(width**2, nodes=width)}
