"""What an update of a training looks like on the console: a line an agent and turn, and a line a policy, in place of
those of the update before."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from teamtune.amiss import places, short
from teamtune.credit.penalty import CAUSES
from teamtune.train.fit import Metrics
from teamtune.train.samples import value_of

EARNED = ("reward", "base", "incentive", "accuracy", "score", "corrected", "lost", "length")
LEARNED = ("base_kl", "entropy", "clipped", "value_error")
WHY = ("paid", "charged", *(f"penalty: {cause}" for cause in CAUSES))
"""shares of answers; shown where there are any"""
POLICIES = ("base_kl", "entropy", "clipped", "gap", "value error")


def update_table(line: Metrics) -> Group:
    """The metrics of one update: of every agent at every turn, and of every policy."""
    title = f"update {int(line['step']) + 1}"
    found = [name for name in WHY if any(line.get(f"{place}/{name}") for place in places(line))]
    parts = [Table("agent", *EARNED, title=title, title_justify="left", box=None)]
    parts += [Table("agent", *names, box=None) for names in (LEARNED, found) if names]
    for part, names in zip(parts, (EARNED, LEARNED, found), strict=False):
        for place in places(line):
            part.add_row(short(place), *(told(line.get(f"{place}/{name}")) for name in names))
    policies = Table("policy", *POLICIES, box=None)
    for policy in [name.removesuffix("/gap") for name in line if name.endswith("/gap")]:
        own = [line.get(f"{policy}/{name}") for name in POLICIES[:-1]]
        policies.add_row(policy, *map(told, [*own, line.get(f"{value_of(policy)}/error")]))
    return Group(*parts, policies)


def told(value: float | int | str | None) -> str:
    """A cell."""
    return "" if value is None else f"{value:.3g}"
