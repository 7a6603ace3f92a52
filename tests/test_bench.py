"""The benches that want a large machine run on tiny settings: every part measures something."""

from __future__ import annotations

import gzip
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tyro

from teamtune.store import write_rows

BENCH = Path(__file__).parent.parent / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], request: Any) -> ModuleType:
    """A bench whose children run here, one after the other, from the arguments that they are given."""
    monkeypatch.syspath_prepend(BENCH)
    module = importlib.import_module(request.param)
    monkeypatch.setattr(module, "peak_flops", lambda: 1e9)

    def here(script: str, args: Sequence[str], env: Any = None) -> Any:
        before = capsys.readouterr().out
        module.main(tyro.cli(module.Bench, args=args))
        told = json.loads(capsys.readouterr().out.splitlines()[-1])
        print(before, end="")
        return told

    monkeypatch.setattr(module, "last_line", here)
    return module


def told(bench: ModuleType, capsys: pytest.CaptureFixture[str], *args: str) -> list[dict[str, Any]]:
    bench.main(tyro.cli(bench.Bench, args=args))
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("bench", ["gpu"], indirect=True)
def test_every_part_of_the_bench_for_gpus_runs(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["--layers", "1", "--width", "64", "--rows", "4", "--prompt", "9", "--answer", "5", "--problems", "2"]
    found = told(bench, capsys, *tiny, "--agents", "1", "2", "--checkpoint")
    assert [(one["part"], one["agents"]) for one in found] == [("generation", 1), ("fit", 1), ("fit", 2), ("ppo", 1)]
    rated = {"generation": "tokens_per_s", "fit": "utilisation", "ppo": "tokens_per_s"}
    assert all(one["seconds"] > 0 and one[rated[one["part"]]] > 0 and one["peak_mb"] for one in found)
    assert {"generation", "values", "update"} <= found[-1].keys()


@pytest.mark.parametrize("bench", ["fit"], indirect=True)
def test_every_way_of_the_bench_of_fits_runs(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["--hidden", "64", "--layers", "1", "--rows", "4", "--repeats", "2"]
    found = told(bench, capsys, *tiny, "--agents", "2")
    ways = [(one["way"], "mean" in one) for one in found]
    assert ways == [(way, False) for way in 2 * ("joint", "sequential", "trl")] + [
        (way, True) for way in ("joint", "sequential", "trl")
    ]
    assert all(one["mean" if "mean" in one else "seconds"] > 0 for one in found)


def test_two_runs_are_compared_seat_by_seat_over_the_problems_that_both_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCH)
    bench = importlib.import_module("paired")
    runs = {"one": {"a": [1, 1], "b": [0, 1], "c": [1, 1]}, "other": {"a": [0, 1], "b": [0, 1], "d": [1, 1]}}
    for name, scores in runs.items():
        places = [{"problem": p, "take": take, "turn": 0} for p in scores for take in (0, 1)]
        graded = [float(score) for own in scores.values() for score in own]
        for table, columns in (("turns", {"agent": "g", "tag": "generate"}), ("grades", {})):
            own = [{**place, **columns} for place in places]
            rows = own if table == "turns" else [{**r, "score": s} for r, s in zip(own, graded, strict=True)]
            write_rows(tmp_path / name / table / "rows.parquet", rows)
            (tmp_path / name / table / "DONE.json").write_text('{"rows": 6, "key": "", "counts": {}}')
    bench.main(tmp_path / "one", tmp_path / "other")
    found = json.loads(capsys.readouterr().out)
    assert found == {"agent": "g", "answers of": "generate", "problems": 2, "answers": 6} | {
        **{"first": 75.0, "second": 50.0, "diff": 25.0, "error": 17.68}
    }


def lines_of(name: str, capsys: pytest.CaptureFixture[str], *args: str) -> list[Any]:
    """The JSON lines of a bench that is run in this process."""
    bench = importlib.import_module(name)
    bench.main(tyro.cli(bench.Bench, args=args))
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]


def test_the_bench_of_debates_runs(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three ways and three slopes; calls grow as they must, whatever the machine."""
    monkeypatch.syspath_prepend(BENCH)
    small = ["--model", tiny, "--problems", "2", "--alone", "1", "--agents", "2", "--max-tokens", "4"]
    *ways, problems, agents, rounds = lines_of("debate", capsys, *small)
    assert [one["way"] for one in ways] == ["waves", "ours, one at a time", "generate, one at a time"]
    assert ways[0]["waves_over_it"] == 1.0 and all(one["problems_per_minute"] > 0 for one in ways)
    for one, name in ((problems, "problems"), (agents, "agents"), (rounds, "rounds")):
        assert set(one) == {name, "slopes"} and len(one[name]) == 3
    assert problems["slopes"]["calls"] == agents["slopes"]["calls"] == 1.0 < rounds["slopes"]["calls"]


def test_the_bench_of_ppo_runs(tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(BENCH)
    small = ["--model", tiny, "--problems", "2", "--turns", "2", "--epochs", "1", "--max-tokens", "4"]
    [found] = lines_of("ppo", capsys, *small)
    parts = {"generation", "reference", "values", "update", "whole"}
    for name in ("ours", "as published"):
        assert parts <= found["seconds"][name].keys() and found["seconds"][name]["whole"] > 0


def test_the_bench_of_memory_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In processes of its own, as it measures them."""
    monkeypatch.syspath_prepend(BENCH)
    found = lines_of("maft_memory", capsys, "--agents", "1", "--hidden", "256", "--layers", "4")
    assert [one["agents"] for one in found] == [1] and found[0]["adapters_mb"] > 0 < found[0]["copies_mb"]


def test_the_bench_of_the_gate_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCH)
    said = [("2 + 3 = 5. Answer: 5", True), ("so so so so Answer: 5", True), ("so so so so Answer: 6", False)]
    with gzip.open(tmp_path / "some.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"response": text, "label": right}) + "\n" for text, right in said)
    importlib.import_module("gate").main([str(tmp_path / "some.jsonl.gz")])
    assert json.loads(capsys.readouterr().out) == {"file": "some.jsonl.gz", "right": 2, "penalised": 1}
