"""Values as JSON that identifies them, and what differs between two."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePath
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Protocol, runtime_checkable

from teamtune.types import BESIDE, TeamtuneError

dumps = partial(json.dumps, sort_keys=True)


@runtime_checkable
class Sealed(Protocol):
    """A table that is known by the key that it was sealed with."""

    key: str
    counts: Mapping[str, int]


def canonical(value: object, base: Path, whole: bool = False) -> Any:
    """`value` as JSON that identifies it. Paths in the folder `base` are told relative to it; options that decide
    nothing of what is found (`types.BESIDE`) are left out, unless the `whole` is asked for."""
    again = partial(canonical, base=base, whole=whole)
    match value:
        case None | bool() | int() | float():
            return value
        case str() | PurePath():
            text = os.path.normpath(value) if value else ""
            for root in map(str, (base, base.absolute(), base.resolve())):
                if text == root or text.startswith(root + os.sep):
                    return "run:" + (text[len(root) + 1 :] or ".")
            return str(value)
        case Sealed():
            return {"table": value.key}
        case partial():
            return {"fn": again(value.func), "args": again(value.args), "kwargs": again(value.keywords)}
        case list() | tuple():
            return [again(item) for item in value]
        case set() | frozenset():
            return sorted((again(item) for item in value), key=dumps)
        case Mapping() if all(isinstance(key, str) for key in value):
            return {key: again(item) for key, item in value.items()}
        case ModuleType():
            return value.__name__
        case type() | FunctionType() | BuiltinFunctionType() if "<" not in value.__qualname__ and value.__module__:
            return f"{value.__module__}:{value.__qualname__}"  # a lambda, local or bound method has no such name
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            told = [field for field in dataclasses.fields(value) if whole or field.metadata != BESIDE]
            fields = {field.name: again(getattr(value, field.name)) for field in told}
            return {"__type__": type(value).__qualname__, **fields}
    told = f"{value!r:.60} ({type(value).__name__}) cannot be a stage's input: no name or value tells it"
    raise TeamtuneError(f"{told}; use plain values, str keys, dataclasses, tables or module functions")


def changes(old: Any, new: Any, name: str = "") -> list[str]:
    """What differs in two canonical values: ['team.agents[0].adapter: null -> "run:sft/a"']."""
    if isinstance(old, dict) and isinstance(new, dict):
        parts = [(old.get(k, "absent"), new.get(k, "absent"), f"{name}.{k}".strip(".")) for k in old | new]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        parts = [(a, b, f"{name}[{i}]") for i, (a, b) in enumerate(zip(old, new, strict=True))]
    else:  # as text 1 is not 1.0, and NaN is NaN
        a, b = dumps(old), dumps(new)
        return [] if a == b else [f"{name}: {a:.60} -> {b:.60}"]
    return [line for part in parts for line in changes(*part)]
