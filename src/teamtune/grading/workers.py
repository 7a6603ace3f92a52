"""Comparisons that may hang or grow, in processes of their own, with limits that hold: also when asked from threads.

    with Workers(4) as workers:
        workers.compare("\\frac{1}{2}", "0.5")    # (True, "0.5 equals 1/2")

Every worker takes one comparison at a time. One that takes over `SECONDS` of processor time, or over `PATIENCE` by the
clock, or dies, is replaced, and the answer counts as not equal, with the reason. Processor time decides, so the same
answer gets the same grade on a busy machine. Comparisons are remembered.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import subprocess
import sys
import threading
from functools import cache
from importlib.util import find_spec

from teamtune.types import TeamtuneError

SECONDS = 2.0
"""processor time of one comparison"""
PATIENCE = 10.0
"""time by the clock of one comparison, for what waits without computing"""
MEGABYTES = 2048
"""memory of a worker"""

Verdict = tuple[bool, str]


class Worker:
    """One process, replaced when it is lost."""

    def __init__(self, seconds: float = SECONDS, patience: float = PATIENCE, megabytes: int = MEGABYTES):
        self.seconds, self.patience, self.megabytes = seconds, patience, megabytes
        self._process: subprocess.Popen[str] | None = None

    def compare(self, gold: str, answer: str) -> Verdict:
        process = self._running()
        late = threading.Timer(self.patience, process.kill)
        late.start()
        try:
            line = self._exchange(process, json.dumps({"gold": gold, "answer": answer}))
        finally:
            late.cancel()
            late.join()
        if line:
            found = json.loads(line)
            return found["equal"], found["reason"]
        self.close()
        return False, f"took over {self.seconds:g} s, or too much memory"

    @staticmethod
    def _exchange(process: subprocess.Popen[str], line: str) -> str:
        assert process.stdin and process.stdout
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            return process.stdout.readline()
        except BrokenPipeError:
            return ""

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "teamtune.grading.worker", str(self.seconds), str(self.megabytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            assert self._process.stdout
            if not self._process.stdout.readline():
                raise RuntimeError("the process that compares mathematical answers does not start")
        return self._process

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


REMEMBERED = 100_000
"""verdicts kept, so that equal answers are compared once; then it begins anew"""


class Workers:
    """Some workers, each asked by one thread at a time; processes start at first need."""

    def __init__(self, count: int = 0):
        self.count = count or max(1, os.cpu_count() or 1)
        self._all = [Worker() for _ in range(self.count)]
        self._idle: queue.LifoQueue[Worker] = queue.LifoQueue()
        for worker in self._all:
            self._idle.put(worker)
        self._known: dict[tuple[str, str], Verdict] = {}

    def compare(self, gold: str, answer: str) -> Verdict:
        """Whether the two are equal as mathematics, and why; never raises for a text, never takes over the limits."""
        key = (gold, answer)
        known = self._known.get(key)
        if known is not None:
            return known
        worker = self._idle.get()
        try:
            verdict = worker.compare(gold, answer)
        finally:
            self._idle.put(worker)
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[key] = verdict
        return verdict

    def close(self) -> None:
        for worker in self._all:
            worker.close()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@cache
def shared() -> Workers:
    """The workers of this process, ended with it. Raises TeamtuneError where math-verify is not installed."""
    if find_spec("math_verify") is None:
        raise TeamtuneError("mathematical answers are compared by math-verify; pip install 'teamtune[eval]'")
    workers = Workers()
    atexit.register(workers.close)
    return workers
