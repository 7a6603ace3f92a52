"""Answers graded per second, by grader, beside bare math-verify and an exact string match.

    python bench/grading.py [--data ../shared/data/graded] [--limit 2000]

Answers are recorded model outputs (JSON lines with question, gold, response, dataset), each graded once: nothing is
remembered from one to the next but what equal answers share. Bare math-verify parses gold and response and compares
them in this process, with its own limits off; the string match only looks whether gold stands at the end.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tyro
from math_verify import parse, verify

from teamtune.grading import find_grader
from teamtune.grading.audit import graded_rows
from teamtune.grading.workers import shared
from teamtune.types import Problem, Row

THREADS = 8


@dataclass(frozen=True)
class Bench:
    data: Path = Path("../shared/data/graded")
    """folder of recorded outputs"""
    limit: int = 2000
    """answers for each grader, at most"""


KINDS: dict[str, Callable[[Row], bool]] = {
    "number": lambda row: row["dataset"] == "gsm8k",
    "choice": lambda row: bool(row.get("choices")) or re.fullmatch(r"\([A-Z]\)", str(row["gold"])) is not None,
    "label": lambda row: str(row["gold"]).lower() in ("yes", "no", "true", "false", "valid", "invalid"),
    "math": lambda row: row["dataset"] == "math",
}


def problem(row: Row) -> Problem:
    return Problem(
        row["id"], row["question"], str(row["gold"]), "", {"choices": row["choices"]} if row.get("choices") else {}
    )


def rate(grade: Callable[[Row], bool], rows: Sequence[Row], threads: int = 1) -> tuple[float, float]:
    """Answers a second, and the share that agrees with the label."""
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(grade, rows))
    seconds = time.perf_counter() - began
    return len(rows) / seconds, sum(f == row["label"] for f, row in zip(found, rows, strict=True)) / len(rows)


def bare(row: Row) -> bool:
    try:
        gold = parse(f"\\boxed{{{row['gold']}}}", parsing_timeout=0)
        return bool(verify(gold, parse(row["response"], parsing_timeout=0), timeout_seconds=0))
    except Exception:  # whatever it raises counts as wrong here
        return False


def ends_with(row: Row) -> bool:
    return row["response"].rstrip(" .$}").endswith(str(row["gold"]))


def main(cfg: Bench) -> None:
    logging.disable(logging.CRITICAL)
    if not cfg.data.is_dir():
        print(f"bench/grading.py skipped: no recorded outputs in {str(cfg.data)!r}; give a folder with --data")
        return
    rows = [row for file in sorted(cfg.data.glob("*.jsonl.gz")) for row in graded_rows(file)]
    shared().compare("1", "2")  # starts a worker
    for name, belongs in KINDS.items():
        grader = find_grader(name)
        mine = [row for row in rows if belongs(row)][: cfg.limit]
        ways: list[tuple[str, Callable[[Row], bool], int]] = [
            (name, lambda row, grader=grader: grader(problem(row), row["response"]).score == 1, THREADS),
            ("bare math-verify", bare, 1),
            ("string match", ends_with, 1),
        ]
        for way, grade, threads in ways if name in ("number", "math") else [ways[0], ways[2]]:
            speed, agree = rate(grade, mine, threads)
            print(
                json.dumps(
                    {"answers": name, "by": way, "n": len(mine), "per_s": round(speed), "agree": round(agree, 4)}
                )
            )


if __name__ == "__main__":
    main(tyro.cli(Bench))
