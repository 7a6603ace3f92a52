"""One way to warn: a yellow line on stderr, as it is told."""

from __future__ import annotations

from rich.console import Console


def warn(told: str) -> None:
    """Say what a user should know and nothing stops for."""
    line = f"warning: {told}"
    Console(stderr=True, soft_wrap=True).print(line, style="yellow", markup=False, highlight=False)
