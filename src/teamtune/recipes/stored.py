"""What another run holds: the options that it was made with, the team that it trained, the turns that it played."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from teamtune.adapters import check_adapter
from teamtune.models import fingerprint
from teamtune.store import Run, Table, read_table
from teamtune.types import BESIDE, Row, Team, TeamtuneError, tokens_of

T = TypeVar("T")


def stored_kind(folder: Path) -> str:
    """The recipe whose run a folder is."""
    return str(_stored(folder).get("__type__"))


def stored_options(kind: type[T], folder: Path, whole: bool = False) -> T:
    """The options of a run; the `whole` of them has those too that change nothing of what is found, as they were when
    it was begun (defaults, where an older version began it). Raises TeamtuneError where it is another recipe's, or
    another version's."""
    config = _stored(folder, whole)
    if config.get("__type__") != kind.__name__:
        raise TeamtuneError(f"{str(folder)!r} is a run of {config.get('__type__')}; give one of {kind.__name__}")
    # What does not make a run another one is not stored, nor is where metrics went.
    asked = {field.name for field in fields(kind) if field.metadata != BESIDE}  # type: ignore[arg-type]
    missing = asked - config.keys() - {"track"}
    if missing:
        raise TeamtuneError(
            f"{folder / 'config.json'} lacks {', '.join(sorted(missing))}: another version made it, or it is corrupt; "
            "train again"
        )
    return replace(made(kind, config), out=folder)  # type: ignore[type-var]


def made(kind: type[T], stored: Mapping[str, Any]) -> T:
    """A dataclass from its stored form, the dataclasses inside it too."""
    hints = get_type_hints(kind)
    given: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name not in stored:
            continue
        value, hint = stored[field.name], hints[field.name]
        if isinstance(value, dict) and is_dataclass(hint):
            given[field.name] = made(hint, value)  # type: ignore[arg-type]
        else:
            given[field.name] = tuple(value) if isinstance(value, list) else value
    return kind(**given)


def finished(folder: Path, stage: str, less: str = "") -> Path:
    """A sealed training stage of a run."""
    if not (folder / stage / "DONE.json").exists():
        raise TeamtuneError(
            f"{str(folder)!r} holds no trained team, its {stage} is not done; finish its recipe first{less}"
        )
    return folder / stage


def with_adapters(team: Team, adapters: Mapping[str, str]) -> Team:
    """The team with adapters of another run, whose contents become part of its identity."""
    prints = [fingerprint(check_adapter(path)) for path in adapters.values()]
    return replace(team.adopt(adapters), weights=" ".join([team.weights, *prints]))


def taken_turns(run: Run, stage: str, problems: Table, cfg: Any, alike: Sequence[str]) -> Table:
    """The turns that another run of the same recipe played, `cfg.turns_from`, as the same stage of this one.

    alike: the options that decide how episodes go. Raises TeamtuneError where the other run differs in one of them, or
    in its problems.
    """
    folder = Path(cfg.turns_from)
    theirs = stored_options(type(cfg), folder)
    for option in alike:
        if getattr(theirs, option) != getattr(cfg, option):
            raise TeamtuneError(
                f"the turns of {cfg.turns_from!r} were played with {option} {getattr(theirs, option)}, and this run "
                f"has {getattr(cfg, option)}; take the same"
            )
    if not (folder / stage / "DONE.json").exists():
        raise TeamtuneError(f"{cfg.turns_from!r} holds no finished {stage}; let it end first")
    same = theirs.model == cfg.model and not theirs.engine.openai.model and not theirs.engine.openai.names
    asked = read_table(folder / "problems/train").rows()
    check_same_questions(asked, problems.rows(), cfg.turns_from)
    return run.stage(stage, taken, read_table(folder / stage), problems, ids=same)


def check_same_questions(theirs: Sequence[Row], own: Sequence[Row], told: str) -> None:
    """Raises TeamtuneError where problems of one name are others: names may be no more than numbers of rows."""
    mine = {row["id"]: row for row in own}
    for row in theirs:
        for column in ("question", "ending") if row["id"] in mine else ():
            if row[column] != mine[row["id"]][column]:
                raise TeamtuneError(
                    f"problem {row['id']!r} of {told!r} has the {column} {row[column]!r:.60}, and here it is "
                    f"{mine[row['id']][column]!r:.60}; give the data and --ending that those turns were played with"
                )


def taken(turns: Sequence[Row], problems: Sequence[Row], ids: bool) -> list[Row]:
    """The turns, on these very problems. ids: they are this model's; otherwise texts alone are taken, and their
    lengths."""
    theirs, own = {turn["problem"] for turn in turns}, {problem["id"] for problem in problems}
    if theirs != own:
        raise TeamtuneError(
            f"turns_from has turns on {len(theirs)} problems, {len(theirs - own)} of which are not among this run's "
            f"{len(own)}; give the task, --train and --data-seed that it was made with"
        )
    return list(turns) if ids else [{**turn, **bare(turn)} for turn in turns]


def bare(turn: Row) -> Row:
    """What stands in a turn of another model in place of its ids."""
    prompt, said = (tokens_of(turn, column) for column in ("prompt_ids", "token_ids"))
    usage = None if prompt is None or said is None else [prompt, said]
    return {"prompt_ids": None, "token_ids": None, "logprobs": None, "usage": usage}


def _stored(folder: Path, whole: bool = False) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.exists():
        raise TeamtuneError(f"{str(folder)!r} is no run folder: it holds no config.json")
    try:
        found = json.loads(file.read_bytes())
        return dict(found["options"] if whole and "options" in found else found["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise TeamtuneError(f"{file} is corrupt; mend it, or train again in another folder") from error
