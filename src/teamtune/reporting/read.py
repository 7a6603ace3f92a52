"""A run folder, for reading only: a report may be asked for while the run is going on, so nothing is locked or mended.

One stage:

    {"name": "sft-rows", "state": "sealed", "rows": 69, "counts": {"generator: kept": 8}, "seconds": 0.006,
     "inputs": {...}, "logged": 0}

`state` is sealed, unfinished (`logged` turns are in its log), unreadable, or missing: the recipe makes it, but it is
not there yet.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from teamtune.credit.discussion import INCENTIVES
from teamtune.types import Row, TeamtuneError

MARKS = ("DONE.json", "OPEN.json", "log.jsonl")
"""A folder that holds one of these is a stage."""


def options(folder: Path) -> Row:
    """config.json: the options under "config", and versions, commit and command."""
    file = folder / "config.json"
    if not file.exists():
        raise TeamtuneError(f"{str(folder)!r} is no run folder: it holds no config.json")
    try:
        found = json.loads(file.read_bytes())
        return {"versions": {}, "commit": None, "command": "", **found, "config": dict(found["config"])}
    except (ValueError, KeyError, TypeError) as error:
        raise TeamtuneError(
            f"{file} is corrupt ({error}); delete that file and give the run's command again"
        ) from error


def stages(folder: Path, config: Row) -> list[Row]:
    """All stages, in the recipe's order, those that are still to come included."""
    there = {str(file.parent.relative_to(folder)) for mark in MARKS for file in folder.rglob(mark)} - {"."}
    planned = expected(config)
    known = [name for name in planned if name in there]
    other = sorted((_stage(folder, name) for name in there - set(planned)), key=lambda row: (row["at"], row["name"]))
    missing = [_bare(name, "missing") for name in planned if name not in there]
    return [*(_stage(folder, name) for name in known), *other, *missing]


def expected(config: Row) -> list[str]:
    """The stages that a finished run of this recipe holds; none for a recipe that is not known here."""
    try:
        return _expected(config)
    except KeyError as error:
        raise TeamtuneError(f"config.json lacks {error}: another version made it, or it is corrupt") from error


def _expected(config: Row) -> list[str]:
    played: list[str] = []
    training: list[str] = []
    if config.get("__type__") == "Malt":
        preferring = set(config["train_seats"]) - (set() if config["dpo_generator"] else {"generator"})
        names = ["turns", "grades", "values", "sft-rows", "sft", *(["pairs", "dpo"] if preferring else [])]
        rounds = config["rounds"]
        prefixes = [f"round-{number + 1}/" for number in range(rounds)] if rounds > 1 else [""]
        training = ["problems/train", *(prefix + name for prefix in prefixes for name in names)]
        base = ["base-solo", "base"] if config["baselines"] != "none" else []
        more = [] if config["baselines"] != "all" else ["debate", *(["star-solo", "star"] if rounds == 1 else [])]
        played = [*base, *more, "malt"]
    elif config.get("__type__") == "Maft":
        return _maft(config)
    elif config.get("__type__") == "Maporl":
        return _maporl(config)
    elif config.get("__type__") == "MaporlEvaluation":
        places = [f"{kind}-{told}" for told in config["sizes"] for kind in ("base", "team")]
        tests = [f"test/{place}/{kind}" for place in places for kind in ("turns", "grades", "moves")]
        return ["problems/test", *tests, "comparison", "by-turn"]
    elif config.get("__type__") in ("ScorerTraining", "ScorerEvaluation"):
        return _scorer(config)
    elif config.get("__type__") == "Baselines":
        played = ["base-solo", "base", "debate"]
    elif config.get("__type__") == "Evaluation":
        played = ["team"]
    elif config.get("__type__") == "MaftEvaluation":
        played = ["base", "team"]
    tests = [f"test/{name}/{kind}" for name in played for kind in ("turns", "grades")]
    return [*training, "problems/test", *tests, "comparison"] if played else []


def _scorer(config: Row) -> list[str]:
    """The stages of a scorer's training, and of its measuring."""
    training: list[str] = []
    if "scorer" in config:
        asked = ["asked-for", "more-turns", "more", "more-grades"] if _asks(config["scorer"]) else []
        training = ["problems/train", *(f"scorer/{name}" for name in ("turns", "grades", *asked, "rows", "fit"))]
    return [*training, "problems/test", "test/scorer/turns", "test/scorer/grades", "scored", "calibration"]


def _asks(scorer: Row) -> bool:
    """Whether lacking answers are asked for."""
    return bool(scorer["ask"] and scorer["quota"])


def _maporl(config: Row) -> list[str]:
    """The stages of a MAPoRL run; how many policies of later turns are asked alone depends on who shares."""
    chosen, sizes = config["baselines"], config["sizes"]
    made = config["scorer"] == "learned" and not config["scorer_from"]
    asked = ["asked-for", "more-turns", "more", "more-grades"] if _asks(config["making"]) else []
    training = [f"scorer/{name}" for name in ("turns", "grades", *asked, "rows", "fit")] if made else []
    measured = ["problems/test", "test/scorer/turns", "test/scorer/grades", "scored", "calibration"] if made else []
    alone = ("hidden-scores", "single-agent", "frozen-partners", "no-scorer")
    trained = [f"{name}/ppo" for name in alone if name in chosen]
    paid = INCENTIVES if "incentives" in chosen else ()
    trained += [f"incentives/{name}/ppo" for name in paid]
    bases = range(1, 2 + len(config["partners"]))
    fitted = ["sft"] if len(bases) == 1 else [f"{name}-{n}" for n in bases for name in ("rows", "sft")]
    trained += [f"sft/{name}" for name in ("turns", "grades", "rows", *fitted)] if "sft" in chosen else []
    single = [f"single-agent{one}" for one in ("-alone", "-votes", "")]
    places = {"off-the-shelf": ["base"], "single-agent": single}
    places |= {"frozen-partners": ["frozen-partners", "frozen-partners-all"], "no-collaboration": ["alone-2"]}
    places["incentives"] = [f"incentive-{name}" for name in paid]
    played = [place for told in sizes[1:] for place in (f"base-{told}", f"team-{told}")]
    played += [place for name in chosen for place in places.get(name, [name])] + ["team"]
    tests = [f"test/{place}/{kind}" for place in played for kind in ("turns", "grades", "moves")]
    first = ["problems/first"] if made else []
    last = ["problems/test", *tests, "comparison", "by-turn", *(["shifts"] if paid else [])]
    last = [name for name in last if name not in measured]
    return [*first, *training, *measured, "problems/train", "ppo", *trained, *last]


def _maft(config: Row) -> list[str]:
    """The stages of a Multiagent Finetuning run, but for the rounds of STaR, which end by themselves."""
    chosen, numbers = set(config["baselines"]), range(1, config["iterations"] + 1)
    fits = {"sft": ["sft-rows", "sft"], "dpo": ["sft-rows", "sft", "pairs", "dpo"], "ppo": ["ppo-rows", "ppo"]}
    steps = [*([] if config["task"].get("unlabelled") else ["grades"]), "parsed", "credit"]
    own, plain = [*steps, *fits[config["objective"]]], [*steps, *fits["sft"]]
    every = lambda prefix, names: [f"{prefix}iteration-{n}/{name}" for n in numbers for name in ("turns", *names)]  # noqa: E731
    training = ["problems/train", *every("", own)]
    if "majority-ft" in chosen:
        training += [f"majority-ft/{name}" for name in ("turns", *plain)]
    if chosen & {"single-ft", "temperature-2"}:
        training += [name for name in every("single-ft/", plain) if name != "single-ft/iteration-1/turns"]
    if "union-ft" in chosen:
        training += [name for name in every("union-ft/", plain) if not name.endswith("/turns")]
    for name in ("no-summary", "cooperative"):
        training += every(f"{name}/", own) if name in chosen else []
    if "no-critic" in chosen and len(numbers) > 1:
        training += [name for name in every("no-critic/", own) if name != "no-critic/iteration-1/turns"]
    single = [f"single-ft-{number}" for number in numbers]
    played = {
        **{"majority": ["base-solo"], "debate": ["base"], "unique-id": ["unique-id"], "star": ["star-single"]},
        **{"majority-ft": ["majority-ft"], "single-ft": [*single, "single-ft-solo"], "union-ft": ["union-ft"]},
        **{name: [name] for name in ("temperature-2", "no-critic", "no-interaction", "no-summary")},
        "cooperative": ["cooperative-base", "cooperative"],
    }
    teams = [place for name in played if name in chosen for place in played[name]]
    teams += [f"iteration-{number}" for number in numbers]
    tests = [f"test/{place}/{kind}" for place in teams for kind in ("turns", "grades")]
    return [*training, "problems/test", *tests, "comparison"]


def table(
    folder: Path, stage: str, columns: Sequence[str] | None = None, problems: Collection[str] | None = None
) -> list[Row] | None:
    """Rows of a sealed stage, None where it is not sealed or cannot be read.

    Ids and log-probs are most of a Turn table, so only `columns` (those of them that there are) are read; with
    `problems`, only the rows of these.
    """
    file = folder / stage / "rows.parquet"
    if not (folder / stage / "DONE.json").exists() or not file.exists():
        return None
    try:
        names = pq.ParquetFile(file).schema_arrow.names
        wanted = names if columns is None else [name for name in columns if name in names]
        only = [("problem", "in", sorted(problems))] if problems is not None and "problem" in names else None
        return pq.read_table(file, columns=wanted, filters=only).to_pylist()
    except (OSError, pa.ArrowException):
        return None  # `stages` lists it as unreadable


def metrics(folder: Path) -> list[Row]:
    """The lines of metrics.jsonl; a torn last line is left for the run to mend."""
    file = folder / "metrics.jsonl"
    lines = file.read_text(errors="replace").splitlines() if file.exists() else []
    return [row for row in map(_json, lines) if isinstance(row, dict) and {"stage", "step"} <= row.keys()]


def _stage(folder: Path, name: str) -> Row:
    place = folder / name
    if not (place / "DONE.json").exists():
        log = place / "log.jsonl"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        logged = sum(len(line["turns"]) for line in map(_json, lines) if isinstance(line, dict) and "turns" in line)
        return _bare(name, "unfinished") | {"logged": logged}
    done = _json((place / "DONE.json").read_text(errors="replace"))
    if not isinstance(done, dict) or not {"rows", "counts", "seconds"} <= done.keys():
        return _bare(name, "unreadable")
    if done["rows"] is not None:
        try:
            pq.read_metadata(place / "rows.parquet")
        except (OSError, pa.ArrowException):
            return _bare(name, "unreadable")
    kept = {key: done.get(key, "") for key in ("rows", "counts", "seconds", "at", "inputs", "key", "fn")}
    kept["peak_mb"] = done.get("peak_mb")
    told = place / "gaps.json"
    gaps = _json(told.read_text(errors="replace")) if told.exists() else None
    kept["gap"] = max(gaps.values()) if gaps else None
    return _bare(name, "sealed") | kept


def _bare(name: str, state: str) -> Row:
    nothing = dict.fromkeys(("rows", "seconds", "peak_mb", "gap"))
    empty = {"counts": {}, "at": "", "inputs": {}, "logged": 0, "key": "", "fn": ""}
    return {"name": name, "state": state, **nothing, **empty}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
