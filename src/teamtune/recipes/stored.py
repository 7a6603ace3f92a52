"""The options that a run was made with, read back from its config.json, and the team that it trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from teamtune.adapters import check_adapter
from teamtune.models import fingerprint
from teamtune.types import BESIDE, Team, TeamtuneError

T = TypeVar("T")


def stored_kind(folder: Path) -> str:
    """The recipe whose run a folder is."""
    return str(_stored(folder).get("__type__"))


def stored_options(kind: type[T], folder: Path) -> T:
    """The options of a run. Raises TeamtuneError where it is another recipe's, or another version's."""
    config = _stored(folder)
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


def _stored(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.exists():
        raise TeamtuneError(f"{str(folder)!r} is no run folder: it holds no config.json")
    try:
        return dict(json.loads(file.read_bytes())["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise TeamtuneError(f"{file} is corrupt; mend it, or train again in another folder") from error
