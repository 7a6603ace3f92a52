"""Append-only logs of JSON lines that survive a kill: a rollout's turns, a run's metrics."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from teamtune.types import Row, TeamtuneError


class Log:
    """Append-only JSONL. A last line torn by a crash is dropped (then `torn`); a corrupt line is an error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn = self._mended = False

    def read(self) -> list[Row]:
        data = self.path.read_bytes() if self.path.exists() else b""
        *lines, tail = data.split(b"\n")
        if tail:  # an append ends in a newline, so this one was cut short
            self.torn = True
            os.truncate(self.path, len(data) - len(tail))
        self._mended = True
        rows = []
        for number, line in enumerate(lines, start=1):
            try:
                rows.append({**json.loads(line.decode())})
            except (ValueError, TypeError) as error:  # not UTF-8, not JSON, not an object
                raise TeamtuneError(f"{self.path} line {number} is corrupt; mend or delete it") from error
        return rows

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows in one write; they are on the disk when this returns."""
        if not self._mended:
            self.read()  # a torn line must not become the head of a whole one
        with self.path.open("ab") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
            file.flush()
            os.fsync(file.fileno())
