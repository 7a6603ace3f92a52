"""What an update of a training looks like on the console: a line an agent and turn, in place of the one before."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.table import Table

from teamtune.train.fit import Metrics

COLUMNS = ("reward", "accuracy", "score", "incentive", "penalties", "base_kl", "entropy", "clipped", "length")
ANSWERS = re.compile(r"(agent-\d+-turn-\d+)/")


def places(names: Iterable[str]) -> list[str]:
    """The agents and turns that metrics tell of."""
    return list(dict.fromkeys(found[1] for name in names if (found := ANSWERS.match(name))))


def update_table(line: Metrics) -> Table:
    """The metrics of one update."""
    table = Table("agent and turn", *COLUMNS, title=f"update {int(line['step']) + 1}", title_justify="left", box=None)
    for place in places(line):
        cells = [line.get(f"{place}/{name}") for name in COLUMNS]
        table.add_row(place, *("" if cell is None else f"{cell:.3g}" for cell in cells))
    return table
