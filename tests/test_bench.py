"""The benches that want a large machine run on tiny settings: every part measures something."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tyro

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
