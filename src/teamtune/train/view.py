"""What an update of a training looks like on the console: a line an agent and turn, and a line a policy, in place of
those of the update before."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.console import Group
from rich.table import Table

from teamtune.train.fit import Metrics
from teamtune.train.samples import value_of

COLUMNS = ("reward", "accuracy", "score", "incentive", "penalties", "corrected", "lost", "length")
POLICIES = ("base_kl", "entropy", "clipped", "gap", "value error")
ANSWERS = re.compile(r"(agent-\d+-turn-\d+)/")


def places(names: Iterable[str]) -> list[str]:
    """The agents and turns that metrics tell of."""
    return list(dict.fromkeys(found[1] for name in names if (found := ANSWERS.match(name))))


def update_table(line: Metrics) -> Group:
    """The metrics of one update: of every agent at every turn, and of every policy."""
    title = f"update {int(line['step']) + 1}"
    answers = Table("agent and turn", *COLUMNS, title=title, title_justify="left", box=None)
    for place in places(line):
        answers.add_row(place, *(told(line.get(f"{place}/{name}")) for name in COLUMNS))
    policies = Table("policy", *POLICIES, box=None)
    for policy in [name.removesuffix("/gap") for name in line if name.endswith("/gap")]:
        own = [line.get(f"{policy}/{name}") for name in POLICIES[:-1]]
        policies.add_row(policy, *map(told, [*own, line.get(f"{value_of(policy)}/error")]))
    return Group(answers, policies)


def told(value: float | int | str | None) -> str:
    """A cell."""
    return "" if value is None else f"{value:.3g}"
