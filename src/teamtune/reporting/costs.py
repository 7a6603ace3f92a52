"""What each system of a comparison cost, followed back through the stages that it stands on.

    {"system": "MAFT, iteration 1", "parameters": 1123456, "train_seconds": 412.0, "test_seconds": 93.1,
     "peak_mb": 911.2}

Keys chain: a stage names the tables it read by their keys and adapters by their folders, so the records of a run say by
themselves what a system took. Seconds of a stage that was killed and resumed are those of its last part.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from teamtune.reporting import read
from teamtune.types import SCORER, Row


def costs(folder: Path, stages: Sequence[Row], comparison: str = "comparison") -> list[Row]:
    """One row a system of a comparison; empty where it is not made, or its record does not tell."""
    sealed = {row["name"]: row for row in stages if row["state"] == "sealed"}
    by_key = {row["key"]: row for row in sealed.values()}
    rows = []
    for system in ((sealed.get(comparison) or {}).get("inputs") or {}).get("systems", ()):
        turns = by_key.get(system["played"]["turns"]["table"])
        if turns is None or "team" not in turns["inputs"]:
            return []
        before = upstream(turns, sealed, by_key)
        seats = [agent for agent in turns["inputs"]["team"]["agents"] if agent["adapter"]]
        elsewhere = any(not one["adapter"].startswith("run:") for one in seats if one.get("name") != SCORER)
        elsewhere |= any(borrowed(row["inputs"], by_key) for row in (*before, turns))
        takes = turns["inputs"].get("how", {}).get("takes", 1)
        peaks = [row["peak_mb"] for row in (*before, turns) if row["peak_mb"] is not None]
        rows.append(
            {
                "system": system["name"],
                "parameters": parameters(folder, turns["inputs"]["team"], speaking(folder, turns)),
                # Where another run trained the team, or played what it learned from, the seconds stand there; so do
                # those of such a scorer, alone.
                "train_seconds": None if elsewhere else sum(row["seconds"] for row in before),
                "test_seconds": turns["seconds"] * (system["votes"] / takes if system["votes"] else 1 / takes),
                "peak_mb": max(peaks, default=None),
            }
        )
    return rows


def costs_elsewhere(folder: Path, stages: Sequence[Row]) -> dict[str, list[Row]]:
    """The same of every comparison on a further task, by its stage: seconds and memory to answer are of that task."""
    found = [row["name"] for row in stages if row["name"].endswith("/comparison")]
    return {name: own for name in found if (own := costs(folder, stages, name))}


def upstream(stage: Row, sealed: Mapping[str, Row], by_key: Mapping[str, Row]) -> list[Row]:
    """Every stage that a stage stands on, without the problems."""
    found: dict[str, Row] = {}
    ahead = [stage]
    while ahead:
        for name in named(ahead.pop()["inputs"], sealed, by_key):
            if name not in found and not name.startswith("problems/"):
                found[name] = sealed[name]
                ahead.append(sealed[name])
    found.pop(stage["name"], None)
    return list(found.values())


def named(value: Any, sealed: Mapping[str, Row], by_key: Mapping[str, Row]) -> Iterator[str]:
    """Names of the stages that a stage's inputs name: tables by key, folders by path."""
    if isinstance(value, Mapping):
        if len(value) == 1 and (table := by_key.get(value.get("table", ""))):
            yield table["name"]
        for one in value.values():
            yield from named(one, sealed, by_key)
    elif isinstance(value, list):
        for one in value:
            yield from named(one, sealed, by_key)
    elif isinstance(value, str) and value.startswith("run:"):
        name = value.removeprefix("run:").rpartition("/")[0]  # an adapter lies in its stage's folder
        if name in sealed:
            yield name


def borrowed(value: Any, by_key: Mapping[str, Row]) -> bool:
    """Whether a stage's inputs name a table that another run made."""
    if isinstance(value, Mapping):
        if len(value) == 1 and "table" in value and value["table"] not in by_key:
            return True
        return any(borrowed(one, by_key) for one in value.values())
    return isinstance(value, list) and any(borrowed(one, by_key) for one in value)


def speaking(folder: Path, turns: Row) -> set[str]:
    """The seats that answered in a stage of turns, all of the team where they cannot be read; a scorer does not."""
    rows = read.table(folder, turns["name"], ("agent",))
    found = turns["inputs"]["team"]["agents"] if rows is None else rows
    return {one.get("name" if rows is None else "agent", "") for one in found} - {SCORER}


def parameters(folder: Path, team: Row, seats: Container[str]) -> int | None:
    """Trainable parameters of some seats of a team: those of their adapters. None where an adapter is gone."""
    from safetensors import SafetensorError, safe_open

    total = 0
    answering = (agent for agent in team["agents"] if agent.get("name", "") in seats)
    for adapter in {agent["adapter"] for agent in answering if agent["adapter"]}:
        path = folder / adapter.removeprefix("run:") if adapter.startswith("run:") else Path(adapter)
        try:
            with safe_open(path / "adapter_model.safetensors", framework="np") as file:
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        except (OSError, SafetensorError):
            return None
    return total
