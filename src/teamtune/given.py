"""Which options of a dataclass are given, and a word against those without use: settings without effect are errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from teamtune.types import TeamtuneError


def given(options: Any) -> list[str]:
    """Names of the options of a dataclass that are not at their default."""
    return [one.name for one in fields(options) if getattr(options, one.name) != one.default]


def refuse_unread(options: Any, unread: Mapping[str, str], named: str = "{}") -> None:
    """Raises TeamtuneError where an option is given that something else leaves without use.

    unread: {"dpo": "objective sft"}, names of options and what each has no use with; named: how an option is told.
    """
    for name in given(options):
        if name in unread:
            raise TeamtuneError(f"{named.format(name)} has no use with {unread[name]}; leave it out")
