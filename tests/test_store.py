"""A run on disk: sealed stages, resuming after every kind of crash, locks, logs, rows that stay equal."""

import functools
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teamtune import store
from teamtune.identity import canonical, changes
from teamtune.jsonl import Log
from teamtune.store import Counted, Run, Table, read_table
from teamtune.types import BESIDE, Agent, Sampling, Team, TeamtuneError

SRC = Path(store.__file__).parents[1]
CALLS: list[object] = []


@dataclass(frozen=True)
class Inner:
    lr: float = 0.1


@dataclass(frozen=True)
class Options:
    width: int = 3
    inner: Inner = field(default_factory=Inner)
    out: str = ""


def squares(n, power=2, options=None):
    CALLS.append(n)
    return [{"i": i, "value": i**power} for i in range(n)]


def total(table, scale=1):
    CALLS.append("total")
    return Counted([{"total": scale * sum(row["value"] for row in table)}], {"rows": len(table)})


def fails(n):
    CALLS.append(n)
    raise RuntimeError("killed")


def slow(folder, n):
    """Appends to a log; dies at its second row while the file `die` lies in the run."""
    log = Log(folder / "log.jsonl")
    for i in range(len(log.read()), n):
        log.append([{"i": i}])
        if (folder.parent / "die").exists() and i == 1:
            raise RuntimeError("killed")
    CALLS.append(folder)
    return log.read()


def adapter(folder, rank):
    (folder / "weights").write_text("w" * rank)


@pytest.fixture(autouse=True)
def fresh():
    CALLS.clear()


@pytest.fixture
def run(tmp_path):
    with Run(tmp_path / "run", Options()) as run:
        yield run


# stages


def test_a_sealed_stage_is_read_not_made(run):
    first = run.stage("a", squares, 3)
    again = run.stage("a", squares, n=3)
    assert CALLS == [3]
    assert first == again and first.rows() == [
        {"i": 0, "value": 0},
        {"i": 1, "value": 1},
        {"i": 2, "value": 4},
    ]
    assert len(first) == first.size == 3 and read_table(run.path / "a") == first
    seal = json.loads((run.path / "a" / "DONE.json").read_text())
    assert seal["fn"].endswith("test_store:squares") and seal["inputs"] == {"n": 3} and seal["rows"] == 3
    assert set(seal) == {"key", "fn", "inputs", "rows", "counts", "commit", "seconds", "peak_mb", "at"}


def test_a_changed_argument_stops_and_is_named(run):
    run.stage("test/a", squares, 3, options=Options())
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(TeamtuneError, match=r"inputs\.n: 3 -> 4"):
        run.stage("test/a", squares, 4, options=Options())
    with pytest.raises(TeamtuneError, match=r"inputs\.options\.inner\.lr: 0\.1 -> 0\.5"):
        run.stage("test/a", squares, 3, options=Options(inner=Inner(0.5)))
    with pytest.raises(TeamtuneError, match=r'inputs\.power: "absent" -> 3'):
        run.stage("test/a", squares, 3, power=3, options=Options())
    with pytest.raises(TeamtuneError, match=r"fn: .*squares.* -> .*fails"):
        run.stage("test/a", fails, 3)
    assert CALLS == [3]
    assert before == {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_keys_chain(run):
    three, four = run.stage("a", squares, 3), run.stage("b", squares, 4)
    assert run.stage("sum", total, three).rows() == [{"total": 5}]
    assert run.stage("sum", total, three).counts == {"rows": 3}
    with pytest.raises(TeamtuneError, match=r"inputs\.table\.table: "):
        run.stage("sum", total, four)


def test_a_failed_stage_is_made_again(run):
    for _ in range(2):
        with pytest.raises(RuntimeError):
            run.stage("a", fails, 1)
    assert CALLS == [1, 1]
    assert run.stage("a", squares, 2).size == 2


def test_a_crash_between_rows_and_seal(run, monkeypatch):
    write = store._write

    def crash(path, data):
        if path.name == "DONE.json":
            raise RuntimeError("killed")
        write(path, data)

    monkeypatch.setattr(store, "_write", crash)
    with pytest.raises(RuntimeError):
        run.stage("a", squares, 3)
    assert (run.path / "a" / "rows.parquet").exists()
    with pytest.raises(TeamtuneError, match="no sealed stage"):
        read_table(run.path / "a")
    monkeypatch.setattr(store, "_write", write)
    assert run.stage("a", squares, 3).size == 3 and CALLS == [3, 3]


def test_a_crash_while_a_file_is_written_leaves_no_half(run, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
    with pytest.raises(RuntimeError):
        run.stage("a", squares, 3)
    monkeypatch.undo()
    assert [path.name for path in (run.path / "a").iterdir()] == ["rows.parquet.tmp"]
    assert run.stage("a", squares, 3).size == 3


@pytest.mark.parametrize("name", ["DONE.json", "rows.parquet"])
def test_a_corrupt_stage_is_named(run, name):
    run.stage("a", squares, 3)
    (run.path / "a" / name).write_bytes(b"{")
    with pytest.raises(TeamtuneError, match=str(run.path / "a")):
        run.stage("a", squares, 3)
    with pytest.raises(TeamtuneError, match=str(run.path / "a")):
        read_table(run.path / "a")
    (run.path / "a" / name).unlink()
    with pytest.raises(TeamtuneError, match="no sealed stage"):
        read_table(run.path / "a")


# work


def test_work_goes_on_from_what_a_kill_left(run, capsys):
    (run.path / "die").touch()
    with pytest.raises(RuntimeError):
        run.work("turns", slow, 4)
    assert len(Log(run.path / "turns/log.jsonl").read()) == 2
    assert "resuming" not in capsys.readouterr().err
    (run.path / "die").unlink()
    with pytest.raises(TeamtuneError, match=r"inputs\.n: 4 -> 5"):
        run.work("turns", slow, 5)
    assert run.work("turns", slow, 4).rows() == [{"i": i} for i in range(4)]
    assert f"turns: resuming unfinished work in {run.path}/turns\n" in capsys.readouterr().err
    assert not (run.path / "turns/OPEN.json").exists()
    assert run.work("turns", slow, 4).size == 4 and len(CALLS) == 1
    with pytest.raises(TeamtuneError, match=r"inputs\.n: 4 -> 5"):
        run.work("turns", slow, 5)


def test_work_that_returns_none_is_its_folder(run):
    table = run.work("sft", adapter, 8)
    assert (table.size, len(table)) == (0, 0)
    assert (table.path / "weights").read_text() == "w" * 8 and not (table.path / "rows.parquet").exists()
    assert run.work("sft", adapter, 8) == table


# the run folder


def test_config_is_recorded_and_held_to(tmp_path):
    Run(tmp_path / "run", Options(out=str(tmp_path / "run")), "teamtune x").close()
    record = json.loads((tmp_path / "run/config.json").read_text())
    assert record["config"]["inner"] == {"__type__": "Inner", "lr": 0.1} and record["config"]["out"] == "run:."
    assert record["command"] == "teamtune x" and {"python", "pyarrow"} <= set(record["versions"])
    Run(tmp_path / "run", Options(out=str(tmp_path / "run"))).close()
    with pytest.raises(TeamtuneError, match=r"config\.width: 3 -> 4; config\.inner\.lr: 0\.1 -> 0\.2.*--out"):
        Run(tmp_path / "run", Options(4, Inner(0.2), str(tmp_path / "run")))
    Run(tmp_path / "run", Options(out=str(tmp_path / "run"))).close()  # the refusal kept no lock


def test_a_copy_in_anothers_repository_has_no_commit(tmp_path, monkeypatch):
    """A package in the .venv of a user's repository: its commits are not ours."""
    other = tmp_path / "project"
    copy = other / ".venv" / "teamtune" / "store.py"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(Path(store.__file__).read_bytes())
    git = ["git", "-C", str(other), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(store, "__file__", str(copy))
    with Run(tmp_path / "run", Options()) as run:
        assert run._commit is None
    for command in (["add", "-f", "."], ["commit", "-q", "-m", "ours"]):
        subprocess.run([*git, *command], check=True)
    with Run(tmp_path / "other", Options()) as run:
        assert len(run._commit or "") == 40


def test_another_commit_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "getstatusoutput", lambda _: (0, "aaaa"))
    Run(tmp_path, Options()).close()
    assert not capsys.readouterr().err
    monkeypatch.setattr(subprocess, "getstatusoutput", lambda _: (0, "bbbb"))
    Run(tmp_path, Options()).close()
    assert "was begun at commit aaaa, this is bbbb" in " ".join(capsys.readouterr().err.split())


def test_a_moved_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    homes = ["runs/a", "b", str(tmp_path / "lr=1")]
    for i, home in enumerate(homes):
        path = Path(home)
        if i > 0:
            Path(homes[i - 1]).rename(path)
        with Run(path, Options(out=str(home))) as run:
            table = run.stage("rows", squares, 3, options=[str(run.path / "x"), path.absolute() / "y"])
            assert run.stage("sum", total, table).rows() == [{"total": 5}]
            assert table.rows() == run.stage("rows", squares, 3, options=["run:x", "run:y"]).rows()
    assert CALLS == [3, "total"]


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_file_in_the_way(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(TeamtuneError, match=r"cannot write in .*file.*--out"):
        Run(tmp_path / place, Options())


HOLD = "import sys; from teamtune.store import Run; r = Run(sys.argv[1], {}); print('held', flush=True); input()"
TRY = "import sys; from teamtune.store import Run; Run(sys.argv[1], {})"


def test_the_lock_keeps_a_second_process_out_and_dies_with_its_holder(tmp_path):
    def python(code, **kwargs):
        env = {**os.environ, "PYTHONPATH": str(SRC)}
        return subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=env, text=True, **kwargs)

    holder = python(HOLD, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        _, told = python(TRY, stderr=subprocess.PIPE).communicate(timeout=60)
        assert f"is in use by process {holder.pid} on " in told
        with pytest.raises(TeamtuneError, match=f"process {holder.pid} .*--out"):
            Run(tmp_path, {})
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    Run(tmp_path, {}).close()
    assert python(TRY).wait(timeout=60) == 0


def test_one_process_cannot_open_a_run_twice(tmp_path):
    with Run(tmp_path, {}), pytest.raises(TeamtuneError, match=f"process {os.getpid()} "):
        Run(tmp_path, {})
    Run(tmp_path, {}).close()


# metrics and logs


def test_metrics_rewind_and_torn_tail(tmp_path):
    with Run(tmp_path, {}) as run:
        run.rewind("sft", 0)
        for step in range(4):
            run.log("sft", step, loss=step / 2)
            run.log("dpo", step, note="x")
        run.rewind("sft", 2)
        assert [row["step"] for row in run.metrics() if row["stage"] == "sft"] == [0, 1]
        assert [row["step"] for row in run.metrics() if row["stage"] == "dpo"] == [0, 1, 2, 3]
        run.log("sft", 2, loss=9)
        whole = run.metrics()
        assert whole[-1] == {"stage": "sft", "step": 2, "loss": 9}
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "sf')
    with Run(tmp_path, {}) as run:
        assert (tmp_path / "metrics.jsonl").read_text().count("\n") == len(whole) == len(run.metrics())
        run.log("sft", 3)
        assert run.metrics()[:-1] == whole


def fitted(folder):
    """Killed at its first call."""
    first = not (folder / "state").exists()
    for name in ("state", "live", "agent"):
        (folder / name).mkdir(exist_ok=True)
    yield {"step": 0}
    if first:
        raise KeyboardInterrupt


def test_what_a_training_keeps_to_go_on_from_is_there_until_it_is_sealed(tmp_path):
    kept = lambda: sorted(path.name for path in (tmp_path / "sft").iterdir() if path.is_dir())  # noqa: E731
    with Run(tmp_path, {}) as run, pytest.raises(KeyboardInterrupt):
        run.train("sft", fitted)
    assert kept() == ["agent", "live", "state"]
    with Run(tmp_path, {}) as run:
        run.train("sft", fitted)
        assert kept() == ["agent"]
        (tmp_path / "sft" / "state").mkdir()  # killed between the seal and the end
        run.train("sft", fitted)
        assert kept() == ["agent"]


def test_a_log_cut_at_every_byte(tmp_path):
    rows = [{"text": "a\nb"}, {"text": "é\u2028"}, {"n": [1, None]}]
    path = tmp_path / "log.jsonl"
    Log(path).append(rows)
    data = path.read_bytes()
    assert Log(path).read() == rows and data.count(b"\n") == 3
    for cut in range(len(data) + 1):
        whole = data[:cut].count(b"\n")
        for first in ("read", "append"):
            path.write_bytes(data[:cut])
            log = Log(path)
            if first == "read":
                assert log.read() == rows[:whole] and log.torn == (not data[:cut].endswith(b"\n") and cut > 0)
                assert path.read_bytes() == data[:cut][: data[:cut].rfind(b"\n") + 1]
            log.append(rows[whole:])
            assert log.read() == rows and path.read_bytes() == data


def test_a_log_that_is_not_there_is_empty(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    assert log.read() == [] and not log.torn


@pytest.mark.parametrize("bad", [b'{"a": ', b"", b"3", b"[]", b"[[1, 2]]", b"\xff", b"null"])
@pytest.mark.parametrize("last", [True, False])
def test_a_corrupt_line_is_named(tmp_path, bad, last):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": 1}\n' + bad + b"\n" + (b"" if last else b'{"a": 2}\n'))
    with pytest.raises(TeamtuneError, match=r"log\.jsonl line 2 is corrupt"):
        Log(path).read()


# rows


def roundtrip(rows, folder):
    folder.mkdir(exist_ok=True)
    (folder / "rows.parquet").write_bytes(store._pack(rows, folder))
    return Table(folder, "", {}, len(rows)).rows()


TURN = {
    "messages": [{"role": "user", "content": "héllo\n\0"}],
    "ids": [1, -(2**63)],
    "none": None,
    "logprobs": [-0.1, 1e-308],
}


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"a": None}],
        [{"a": []}, {"a": []}],
        [{"a": [[], None]}, {"a": None}],
        [{"a": [{"b": None, "c": []}]}],
        [TURN, {**TURN, "ids": None, "messages": []}],
        [{"a": 2**63 - 1}, {"a": None}],
        [{"a": True}, {"a": None}],
        [{"a": 0.1 + 0.2}, {"a": -0.0}, {"a": math.inf}],
        [{"a": 1}, {"a": 0.5}],
    ],
)
def test_rows_come_back_equal(tmp_path, rows):
    for folder in (tmp_path / "a", tmp_path / "lr=1"):
        assert roundtrip(rows, folder) == rows
    assert store._pack(rows, tmp_path) == store._pack(rows, tmp_path)


def test_nan_and_tuples_are_stored(tmp_path):
    (row,) = roundtrip([{"x": math.nan, "ids": (1, 2)}], tmp_path)
    assert math.isnan(row["x"]) and row["ids"] == [1, 2]


@pytest.mark.parametrize(
    "values",
    [
        [{}],
        [None, [{}]],
        [{"x": 1}, {"y": 1}],
        ["x", 1],
        [True, 1],
        [1, True],
        [2**63],
        [2**60 + 1, 0.5],
        ["\ud800"],
        ["x", b"x"],
        [object()],
    ],
)
def test_a_column_that_would_change_is_named(tmp_path, values):
    rows = [{"fine": 1, "odd": value} for value in values]
    with pytest.raises(TeamtuneError, match="column 'odd'"):
        store._pack(rows, tmp_path)


@pytest.mark.parametrize("rows", [[{"a": 1}, {"b": 1}], [{"a": 1}, {}], [{}], [{"a": 1}, {"a": 1, "b": 2}]])
def test_rows_must_have_the_same_columns(tmp_path, rows):
    with pytest.raises(TeamtuneError, match="column "):
        store._pack(rows, tmp_path)


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
ints = st.integers(-(2**63), 2**63 - 1)
column = {
    "problem": text,
    "take": ints,
    "maybe": st.none() | ints,
    "tag": st.none() | text,
    "ids": st.none() | st.lists(ints, max_size=3),
    "logprobs": st.none() | st.lists(st.floats(allow_nan=False), max_size=3),
    "messages": st.lists(st.fixed_dictionaries({"role": text, "content": st.none() | text}), max_size=2),
    "right": st.booleans(),
}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.fixed_dictionaries(column), max_size=4))
def test_any_rows_come_back_equal(tmp_path_factory, rows):
    back = roundtrip(rows, tmp_path_factory.getbasetemp() / "rows")
    assert back == rows
    assert json.dumps(back, sort_keys=True) == json.dumps(rows, sort_keys=True)  # 1 is not 1.0 or True here
    assert store._pack(rows, Path()) == store._pack(json.loads(json.dumps(rows)), Path())


def test_the_same_rows_are_the_same_bytes_in_another_process(run):
    table = run.stage("a", squares, 100)
    code = (
        "import sys; from pathlib import Path; from teamtune import store\n"
        "sys.stdout.buffer.write(store._pack([{'i': i, 'value': i**2} for i in range(100)], Path()))"
    )
    env = {**os.environ, "PYTHONPATH": str(SRC)}
    other = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert other.stdout == (table.path / "rows.parquet").read_bytes()


# keys


def test_canonical_forms():
    base = Path("runs/x")
    team = Team("house", (Agent("a", sampling=Sampling(top_k=3), adapter="runs/x/sft/a"),))
    told = canonical(team, base)
    assert told["__type__"] == "Team" and told["agents"][0]["adapter"] == "run:sft/a"
    assert canonical(functools.partial(squares, 3, power=1), base) == {
        "fn": f"{__name__}:squares",
        "args": [3],
        "kwargs": {"power": 1},
    }
    assert canonical([len, Inner, json], base) == ["builtins:len", f"{__name__}:Inner", "json"]
    assert canonical({"b": {3, 1, 2}, "a": (1, None)}, base) == {"b": [1, 2, 3], "a": [1, None]}
    assert canonical(["runs/xy", "runs/x/../y", "", base, base.absolute() / "b"], base) == [
        "runs/xy",
        "runs/x/../y",
        "",
        "run:.",
        "run:b",
    ]
    assert canonical(Table(base, "abc", {}, 1), base) == {"table": "abc"}


def local():
    def inner():
        pass

    return inner


@pytest.mark.parametrize("value", [lambda: 1, local(), object(), [].append, Log(Path()).read, {1: 2}, b"x"])
def test_what_nothing_identifies_is_refused(run, value):
    with pytest.raises(TeamtuneError, match="cannot be a stage's input"):
        run.stage("a", squares, 3, options=[value])
    assert CALLS == []


@pytest.mark.parametrize("fn", [lambda: [], local()])
def test_a_function_without_a_name_is_no_stage(run, fn):
    with pytest.raises(TeamtuneError, match="cannot be a stage's input"):
        run.stage("a", fn)


def test_changes_are_told_by_dotted_path():
    assert changes({"a": [{"b": 1}, 2]}, {"a": [{"b": 2}, 2]}) == ["a[0].b: 1 -> 2"]
    assert changes({"a": 1}, {"a": 1.0}) == ["a: 1 -> 1.0"]
    assert changes({"a": math.nan, "b": {}}, {"a": math.nan, "b": {}}) == []
    assert changes({"a": [1]}, {"b": 1}) == ['a: [1] -> "absent"', 'b: "absent" -> 1']


@dataclass(frozen=True)
class Bounded:
    rate: float = 1.0
    rows: int = field(default=8, metadata=BESIDE)


def bounded(options: Bounded) -> list[dict[str, float]]:
    return [{"rate": options.rate}]


def test_what_decides_nothing_may_change_on_the_way(tmp_path: Path) -> None:
    """It is told in config.json all the same, as it was when the run began."""
    with Run(tmp_path / "run", Bounded()) as run:
        key = run.stage("made", bounded, Bounded()).key
    with Run(tmp_path / "run", Bounded(rows=3)) as run:
        assert run.stage("made", bounded, Bounded(rows=3)).key == key
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert "rows" not in stored["config"] and stored["options"]["rows"] == 8
    with pytest.raises(TeamtuneError, match=r"config\.rate: 1\.0 -> 2\.0"):
        Run(tmp_path / "run", Bounded(rate=2.0))
