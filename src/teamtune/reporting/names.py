"""What the stages of a run hold, by their names: which systems were played, what they are called, which rounds trained.

systems_on_test(stages)     ["base-solo", "base", "iteration-1"]
system_name("iteration-1")  "MAFT, iteration 1"
training_rounds(stages)     ["iteration-1/", "union-ft/iteration-1/"], and [""] of one round of MALT
"""

from __future__ import annotations

from collections.abc import Sequence

from teamtune.types import Row

NAMES = {
    "base-solo": "Untrained single agent",
    "base": "Untrained team",
    "debate": "Debate, untrained",
    "star-solo": "Single agent after SFT (STaR)",
    "star": "Team after SFT (STaR)",
    "malt": "Trained team",
    "team": "Evaluated team",
    "scorer": "Base, answers for the scorer",
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
TESTED = ("test/", "transfer/")
"""how the stages of test problems begin"""
MADE = {"sft-rows": "SFT rows", "pairs": "DPO pairs", "ppo-rows": "PPO rows"}
NUMBERED = {"iteration-": "MAFT, iteration ", "single-ft-": "Single-agent FT, iteration "}


def named(stages: Sequence[Row]) -> dict[str, str]:
    """What the comparison calls the system of each test stage; none where it is not made."""
    by_key: dict[str, list[str]] = {}
    for row in stages:
        if row["state"] == "sealed":  # stages of the same inputs have the same key
            by_key.setdefault(row["key"], []).append(row["name"])
    inputs = next((row["inputs"] for row in stages if row["name"] == "comparison"), None) or {}
    found: dict[str, str] = {}
    for one in inputs.get("systems", ()):
        places = by_key.get(one["played"]["turns"]["table"], [""])
        found[one["name"]] = places.pop(0) if len(places) > 1 else places[0]
    return {stage.split("/")[1]: name for name, stage in found.items() if stage.startswith("test/")}


def systems_on_test(stages: Sequence[Row], root: str = "test") -> list[str]:
    """Names of the systems that were played and graded on test problems, in the recipe's order. root: where they are,
    "test" or one of `further_roots`."""
    sealed = [row["name"] for row in stages if row["state"] == "sealed"]
    names = [name.split("/")[-2] for name in sealed if name.startswith(f"{root}/") and name.endswith("/turns")]
    return [name for name in names if f"{root}/{name}/grades" in sealed]


def further_roots(stages: Sequence[Row]) -> list[str]:
    """Where further tasks were played: "transfer/stories"."""
    parts = [row["name"].split("/") for row in stages]
    return list(dict.fromkeys("/".join(one[:2]) for one in parts if one[0] == "transfer" and one[-1] == "turns"))


def system_name(name: str) -> str:
    """What a report calls the system of a test stage."""
    for prefix, told in NUMBERED.items():
        if name.removeprefix(prefix).isdigit():
            return told + name.removeprefix(prefix)
    return NAMES.get(name, name)


def names_of(stages: Sequence[Row], recipe: str, places: Sequence[str]) -> dict[str, str]:
    """What a report calls the systems of test stages. MAPoRL's places ("team") are other recipes' too, and each has a
    line of its own in the comparison, whose name it takes."""
    own = {"base": "Off-the-shelf", "team": "MAPoRL"} | named(stages) if recipe.startswith("Maporl") else {}
    return {place: own.get(place) or system_name(place) for place in places}


def training_rounds(stages: Sequence[Row]) -> list[str]:
    """Prefixes of the training rounds that have begun: "" or "round-1/", "round-2/". Some have no turns of their own,
    and learn from those of another."""
    begun = [row["name"] for row in stages if row["state"] != "missing"]
    mine = [name for name in begun if not name.startswith(TESTED)]
    parts = [name.rpartition("/") for name in mine if name.split("/")[-1] in ("turns", *MADE)]
    return list(dict.fromkeys(prefix + slash for prefix, slash, _ in parts))
