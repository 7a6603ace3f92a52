"""How far a grader agrees with recorded labels.

A row of what is audited, and of what comes out:

    {"id": "m/gsm8k/7", "question": "...", "gold": "18", "response": "...", "label": true, "dataset": "gsm8k",
     "source": "m", "choices": null}
    {"id": "m/gsm8k/7", "file": "a.jsonl.gz", "dataset": "gsm8k", "source": "m", "label": true, "ours": false,
     "gold": "18", "parsed": "81", "rule": "marked", "reason": "81 against 18"}

Labels may be wrong too. Verdicts say, of a disagreement that somebody has read, whose mistake it is:

    {"id": "m/gsm8k/7", "whose": "label", "why": "the label's extractor kept the sentence"}
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from teamtune.grading import Grader
from teamtune.tasks.source import rows_of
from teamtune.types import Grade, Problem, Row, TeamtuneError

NEEDED = ("id", "question", "gold", "response", "label")
WHOSE = ("label", "ours", "open")
THREADS = 8


@dataclass(frozen=True, slots=True)
class Audit:
    """Every graded row, and how long it took."""

    rows: Sequence[Row]
    seconds: float

    @property
    def disagreements(self) -> list[Row]:
        return [row for row in self.rows if row["ours"] != row["label"]]


def graded_rows(path: Path) -> list[Row]:
    """Responses with labels. Raises TeamtuneError for a row that is none, and where there are none."""
    rows: list[Row] = []
    for raw in rows_of(str(path)):
        missing = [name for name in NEEDED if raw.row is not None and raw.row.get(name) is None]
        if raw.row is None or missing:
            raise TeamtuneError(f"{raw.place}: {raw.error or f'no {missing[0]}'}; it needs {', '.join(NEEDED)}")
        wrong = wrong_value(raw.row)
        if wrong:
            raise TeamtuneError(f"{raw.place}: {wrong}; mend or drop the row")
        rows.append({**raw.row, "file": path.name})
    if not rows:
        raise TeamtuneError(f"{str(path)!r} has no rows to audit")
    return rows


def wrong_value(row: Row) -> str:
    """What is wrong with a row's values; empty where nothing is."""
    if not isinstance(row["label"], bool):
        return f"the label is {row['label']!r}; it must be true or false"
    for name in ("id", "question", "response", "dataset", "source"):
        if not isinstance(row.get(name, ""), str) and row.get(name) is not None:
            return f"{name} is a {type(row[name]).__name__}, not a text"
    choices = row.get("choices")
    if choices and (not isinstance(choices, list) or not all(isinstance(one, str) for one in choices)):
        return "the choices are no list of texts"
    return ""


def audit(rows: Sequence[Row], grader_of: Mapping[str, Grader], other: Grader) -> Audit:
    """Grade every row, by the grader of its data set or else by `other`."""

    def one(row: Row) -> Grade:
        meta = {"choices": row["choices"]} if row.get("choices") else {}
        problem = Problem(row["id"], row["question"], str(row["gold"]), "", meta)
        return grader_of.get(row.get("dataset", ""), other)(problem, row["response"])

    began = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        grades = list(pool.map(one, rows))
    seconds = time.monotonic() - began
    kept = ("id", "file", "dataset", "source", "label", "gold")
    return Audit(
        [
            {**{name: row.get(name) for name in kept}, "ours": grade.score == 1, **_told(grade)}
            for row, grade in zip(rows, grades, strict=True)
        ],
        seconds,
    )


def _told(grade: Grade) -> Row:
    return {"parsed": grade.parsed, "rule": grade.rule, "reason": grade.reason}


def confusion(rows: Iterable[Row], by: str) -> list[Row]:
    """A line for every data set (or source): rows, both right, both wrong, ours alone right, the label alone right."""
    groups: dict[str, Counter[tuple[bool, bool]]] = {}
    for row in rows:
        groups.setdefault(str(row[by]), Counter())[bool(row["label"]), bool(row["ours"])] += 1
    return [
        {
            by: name,
            "n": count.total(),
            "right": count[True, True],
            "wrong": count[False, False],
            "ours alone right": count[False, True],
            "label alone right": count[True, False],
        }
        for name, count in groups.items()
    ]


def read_verdicts(path: Path) -> dict[str, Row]:
    """Verdicts by id. Raises TeamtuneError for a line that is none."""
    found: dict[str, Row] = {}
    for raw in rows_of(str(path)):
        row = raw.row or {}
        if not {"id", "whose", "why"} <= row.keys() or row["whose"] not in WHOSE:
            told = raw.error or f"it needs id, why, and whose: {', '.join(WHOSE)}"
            raise TeamtuneError(f"{raw.place} is no verdict: {told}")
        found[row["id"]] = row
    return found


def judged(disagreements: Iterable[Row], verdicts: Mapping[str, Row]) -> Counter[str]:
    """How many disagreements are whose mistake; "unread" where there is no verdict."""
    return Counter(verdicts[row["id"]]["whose"] if row["id"] in verdicts else "unread" for row in disagreements)


def write_disagreements(rows: Sequence[Row], path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
