"""A run is a folder of sealed tables; a stage that is sealed is read, never made again.

    runs/malt-arithmetic-0/
      .lock .holder  locked while a process has the run open; "process 4711 on node-3"
      config.json    {"config": {"width": 3, "out": "run:."}, "options": all that the run began with, those too that
                      may change on the way, "versions": {}, "commit": ..., "command": ...}
      metrics.jsonl  {"stage": "sft", "step": 40, "loss": 0.61}
      turns/
        OPEN.json    beside the files of an unfinished `work`: its key, fn and inputs
        rows.parquet
        DONE.json    the seal, written last: {"key": "5e1b...", "fn": "teamtune.rollout:rollout", "rows": 54,
          "inputs": {"task": "sums"}, "counts": {"late": 2}, "commit": ..., "seconds": 8.2,
          "peak_mb": 812.5, "at": "2025-..."}

All but logs is written beside its place and renamed, so nobody sees half a file. Keys chain: a table among
the inputs is {"table": its key}. Paths in the run are "run:turns/x", so that the folder can move.
"""

import dataclasses
import hashlib
import inspect
import json
import os
import platform
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial, wraps
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from rich.console import Console

from teamtune.identity import canonical, changes, dumps
from teamtune.jsonl import Log
from teamtune.launcher import check_launcher, follows
from teamtune.memory import forget_peak, give_back_freed_memory, peak_megabytes
from teamtune.track import Track, Tracker, check_tracker, open_tracker
from teamtune.types import Row, TeamtuneError

KEPT = ("state", "live")
"""folders of a training that it goes on from; they go once it is sealed"""
PACKAGES = {"teamtune", "torch", "transformers", "peft", "accelerate", "tokenizers", "vllm", "pyarrow"}
Fn = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Counted:
    """Rows, and what was counted while making them: say how many were dropped and why."""

    rows: Iterable[Row]
    counts: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Table:
    """A sealed stage. `size` counts its rows: 0 where the folder itself is the result, such as an adapter."""

    path: Path
    key: str
    counts: Mapping[str, int]
    size: int

    def rows(self) -> list[Row]:
        """The rows, in the order they were sealed in."""
        return pq.ParquetFile(self.path / "rows.parquet").read().to_pylist()

    def __len__(self) -> int:
        return self.size


def read_table(folder: str | Path) -> Table:
    """Open a sealed stage."""
    path = Path(folder)
    try:
        done = json.loads((path / "DONE.json").read_bytes())
        if done["rows"] is not None:
            pq.read_metadata(path / "rows.parquet")
        return Table(path, done["key"], done["counts"], done["rows"] or 0)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise TeamtuneError(
            f"no sealed stage to read at {path} ({error}); delete it and run its recipe again"
        ) from error


class Run(AbstractContextManager["Run"]):
    """A run folder, held by one process at a time: a context manager, or `close` it."""

    def __init__(self, path: str | Path, config: object, command: str = "", track: Track = "none") -> None:
        """track: where metrics go besides metrics.jsonl; it does not make a run another one."""
        check_launcher()
        self.path = Path(path)
        self.follows = follows()
        if self.follows:
            track = "none"
        self._track: Track = track
        self._tracker: Tracker | None = None
        self._tracked: dict[str, int] = {}
        check_tracker(track)
        if self.path == Path() and not (self.path / "config.json").exists():
            raise TeamtuneError(f"--out is {str(path)!r}, the current folder; give the run a folder of its own")
        self._metrics = Log(self.path / "metrics.jsonl")
        self._lock = FileLock(self.path / ".lock", blocking=False, thread_local=False)
        if self.follows:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self._lock:
                _write(self.path / ".holder", f"process {os.getpid()} on {platform.node()}".encode())
                options = canonical(config, self.path)
                if isinstance(options, dict):
                    options.pop("track", None)
                self._settle(options, canonical(config, self.path, whole=True), command)
                self._metrics.read()  # drops a torn last line
                self._lock.acquire()  # locks are counted, so this one stays when the block ends
        except Timeout as error:
            note = self.path / ".holder"
            who = note.read_text() if note.exists() else "another process"
            raise TeamtuneError(f"{path} is in use by {who}; stop that one or use another --out") from error
        except OSError as error:
            raise TeamtuneError(f"cannot write in {path} ({error}); use another --out") from error

    def _settle(self, config: Any, options: Any, command: str) -> None:
        """Record the options of a new run; hold an old one to the options it has."""
        here, name = map(shlex.quote, os.path.split(__file__))
        # An installed copy may lie within a repository of the user's, whose commits are not ours.
        ours = f"cd {here} && git ls-files --error-unmatch {name} > /dev/null"
        status, text = subprocess.getstatusoutput(f"{ours} && git describe --always --dirty --abbrev=40 --exclude '*'")
        self._commit = None if status else text
        path = self.path / "config.json"
        if not _agrees(path, {"config": config}):
            versions = {dist.name: dist.version for dist in metadata.distributions() if dist.name in PACKAGES}
            versions |= {"python": platform.python_version()}
            found = {"versions": versions, "commit": self._commit, "command": command}
            _write(path, {"config": config, "options": options} | found)
        old = json.loads(path.read_bytes()).get("commit")
        if old and self._commit and old != self._commit:
            Console(stderr=True).out(f"{self.path} was begun at commit {old}, this is {self._commit}", highlight=False)

    def stage(self, name: str, fn: Fn, /, *args: Any, **kwargs: Any) -> Table:
        """The table of the pure `fn(*args, **kwargs)`, which gives rows or Counted; read if sealed.

        Here and below a Table among the arguments reaches `fn` as its rows.
        """
        folder = self.path / name
        made = _made(fn, args, kwargs, self.path)
        if self.follows:
            return _awaited(folder, made)
        if not _agrees(folder / "DONE.json", made):
            self._seal(folder, made, _call(fn, args, kwargs))
        return read_table(folder)

    def work(self, name: str, fn: Fn, /, *args: Any, **kwargs: Any) -> Table:
        """`stage` for a long `fn(folder, *args, **kwargs)`: after a kill it is called again, to go on from
        the files that it kept in the stage's folder. If it returns None, the folder is the result."""
        folder = self.path / name
        made = _made(fn, (folder, *args), kwargs, self.path)
        if self.follows:
            return _awaited(folder, made)
        opened = folder / "OPEN.json"
        if not _agrees(folder / "DONE.json", made):
            if not _agrees(opened, made):
                _write(opened, made)
            elif any(file != opened for file in folder.iterdir()):
                Console(stderr=True).out(f"{name}: resuming unfinished work in {folder}", highlight=False)
            self._seal(folder, made, _call(fn, (folder, *args), kwargs))
        opened.unlink(missing_ok=True)
        return read_table(folder)

    def train(self, name: str, fn: Fn, /, *args: Any, **kwargs: Any) -> Table:
        """`work` for a generator function that yields a line of metrics a step, `{"step": 40, "loss": 0.61}`.
        The lines go to metrics.jsonl; those of a resumed run replace what was logged from their step on."""

        @wraps(fn)
        def logged(*given: Any, **named: Any) -> None:
            for count, line in enumerate(fn(*given, **named)):
                if self.follows:
                    continue
                if count == 0:
                    self.rewind(name, line["step"])
                self.log(name, **line)

        folder = self.path / name
        if self.follows and not _agrees(folder / "DONE.json", _made(fn, (folder, *args), kwargs, self.path)):
            _call(logged, (folder, *args), kwargs)()  # all processes train
            give_back_freed_memory()
        done = self.work(name, logged, *args, **kwargs)
        for over in () if self.follows else KEPT:
            shutil.rmtree(folder / over, ignore_errors=True)
        return done

    def _seal(self, folder: Path, made: Row, call: Callable[[], Any]) -> None:
        forget_peak()
        began, result = time.monotonic(), call()
        rows, counts = (result.rows, result.counts) if isinstance(result, Counted) else (result, {})
        if rows is not None:
            rows = list(rows)  # a generator works here, so inside the time taken
            _write(folder / "rows.parquet", _pack(rows, folder))
        facts = {"rows": None if rows is None else len(rows), "counts": dict(counts), "commit": self._commit}
        spent = {"seconds": round(time.monotonic() - began, 3), "peak_mb": peak_megabytes()}
        _write(folder / "DONE.json", made | facts | spent | {"at": time.strftime("%FT%TZ", time.gmtime())})
        if spent["seconds"] > 1:  # looking for what is free takes a third of one
            give_back_freed_memory()

    def log(self, stage: str, step: int, **metrics: float | int | str) -> None:
        """Add a line to metrics.jsonl."""
        self._metrics.append([{"stage": stage, "step": step, **metrics}])
        if self._tracker is None:
            self._tracker = open_tracker(self._track, self.path)
        if self._tracker is not None and step > self._tracked.get(stage, -1):
            numbers = {name: float(value) for name, value in metrics.items() if not isinstance(value, str)}
            self._tracker.log(stage, step, numbers)

    def metrics(self) -> list[Row]:
        """The lines of metrics.jsonl."""
        return self._metrics.read()

    def rewind(self, stage: str, step: int) -> None:
        """Drop the metrics of `stage` from `step` on: a fit that resumes there logs them again, and a tracker, which
        has them, need not be told twice."""
        rows = self.metrics()
        self._tracked[stage] = max((row["step"] for row in rows if row["stage"] == stage), default=-1)
        kept = [row for row in rows if row["stage"] != stage or row["step"] < step]
        _write(self._metrics.path, "".join(json.dumps(row) + "\n" for row in kept).encode())

    def close(self) -> None:
        """Release the folder for other processes."""
        if self._tracker is not None:
            self._tracker.close()
            self._tracker = None
        self._lock.release()

    def __exit__(self, *_: object) -> None:
        self.close()


def _awaited(folder: Path, made: Row) -> Table:
    """The stage, once the first process has sealed it; where that one fails, the launcher ends all."""
    while not _agrees(folder / "DONE.json", made):
        time.sleep(0.2)
    return read_table(folder)


def _agrees(path: Path, new: Row) -> bool:
    """Whether there is a record at `path`; one of other values is for the user to resolve."""
    if not path.exists():
        return False
    try:
        old = json.loads(path.read_bytes())
        told = "; ".join(line for key in new if key != "key" for line in changes(old[key], new[key], key))
    except (ValueError, KeyError, TypeError) as error:
        lost = path if path.name == "config.json" else path.parent  # stages are held to their own inputs
        raise TeamtuneError(f"{path} is corrupt; delete {lost} and give the same command again") from error
    if told:
        raise TeamtuneError(f"inputs of {path.parent} changed ({told:.400}); undo that or use another --out")
    return True


def _made(fn: Fn, args: Sequence[Any], kwargs: Mapping[str, Any], base: Path) -> Row:
    """Arguments go by parameter name, so that f(1) is f(x=1). Defaults are code, which is not looked at."""
    inputs = inspect.signature(fn).bind(*args, **kwargs).arguments
    made = {"fn": canonical(fn, base), "inputs": canonical(inputs, base)}
    return {"key": hashlib.sha256(dumps(made).encode()).hexdigest(), **made}


def _call(fn: Fn, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Callable[[], Any]:
    given = [arg.rows() if isinstance(arg, Table) else arg for arg in args]
    return partial(fn, *given, **{k: v.rows() if isinstance(v, Table) else v for k, v in kwargs.items()})


def _pack(rows: Sequence[Row], folder: Path) -> bytes:
    """The rows as Parquet, the same bytes for the same rows; refuses what would not come back equal."""
    columns: dict[str, Any] = {}
    for name in {name: None for row in rows for name in row or {"(a row without columns)": None}}:
        try:
            values = [row[name] for row in rows]
            columns[name] = pa.array(values)
            back = columns[name].to_pylist()
            same = back == values or dumps(back) == dumps(values)  # in text NaN is NaN, a tuple is a list
            if not same or "struct<>" in str(columns[name].type):  # Parquet cannot hold a dict without keys
                raise ValueError("it would come back changed")
        except (pa.ArrowException, KeyError, TypeError, ValueError, OverflowError) as error:
            told = f"{folder}: column {name!r} cannot be stored ({error!r})"
            raise TeamtuneError(f"{told}; give it one plain type, and dicts the same keys") from error
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write a table that belongs to a stage in the making, all or nothing."""
    _write(path, _pack(rows, path.parent))


def _write(path: Path, data: bytes | Row) -> None:
    """All or nothing, whenever the machine stops; a dict as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    with beside.open("wb") as file:
        file.write(data if isinstance(data, bytes) else json.dumps(data, indent=1).encode())
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
