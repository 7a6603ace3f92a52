"""Trackers get every number that is logged, on this machine alone; what is missing is named before work begins."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from teamtune.cli import main as command
from teamtune.store import Run
from teamtune.track import Track, Wandb, check_tracker
from teamtune.types import TeamtuneError


@dataclass(frozen=True)
class Options:
    track: Track = "none"
    seed: int = 0


def logged(folder: Path, kind: Track) -> None:
    with Run(folder, Options(kind), track=kind) as run:
        for step in range(3):
            run.log("sft", step, **{"agent/loss": 1.0 - step / 10, "note": "text"})
        run.log("ppo", 0, reward=0.5)


def test_tensorboard_has_every_number(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged(tmp_path / "run", "tensorboard")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"sft/agent/loss", "ppo/reward"}
    assert [(one.step, round(one.value, 3)) for one in events.Scalars("sft/agent/loss")] == [
        (0, 1.0),
        (1, 0.9),
        (2, 0.8),
    ]


def test_trackio_has_every_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio")
    import subprocess
    import sys

    from tests.helpers import surroundings

    # In a process of its own: trackio reads where to write once, when it is imported.
    folder = str(tmp_path / "run")
    code = f"from pathlib import Path; from tests.test_track import logged; logged(Path({folder!r}), 'trackio')"
    subprocess.run([sys.executable, "-c", code], check=True, env=surroundings(), timeout=120)
    files = list((tmp_path / "run" / "trackio").rglob("*"))
    assert any(file.is_file() and b"sft/agent/loss" in file.read_bytes() for file in files)


def test_wandb_offline_has_every_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logged(tmp_path / "run", "wandb")
    deadline = time.monotonic() + 60  # its own process writes, at its own pace
    while not any(b"sft/agent/loss" in file.read_bytes() for file in (tmp_path / "run" / "wandb").rglob("*.wandb")):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_folder_that_is_made_anew_is_another_run_to_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    fake = SimpleNamespace(init=lambda **how: told.append(how["id"]))
    monkeypatch.setattr("teamtune.track.import_module", lambda _: fake)
    Wandb(tmp_path / "run")
    Wandb(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    Wandb(tmp_path / "run")
    assert told[0] == told[1] != told[2]


def test_where_metrics_go_does_not_make_another_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    logged(tmp_path / "run", "none")
    logged(tmp_path / "run", "tensorboard")
    assert "track" not in json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 8


def test_a_tracker_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("teamtune.track.find_spec", lambda name: None if name == "wandb" else find_spec(name))
    with pytest.raises(TeamtuneError, match="wandb is not installed; pip install wandb"):
        Run(tmp_path / "run", Options(), track="wandb")
    assert not (tmp_path / "run").exists()
    check_tracker("none")


def test_a_training_is_tracked(brief: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    options = ["--task", "tests.easy_task", "--model", brief, "--train", "6", "--test", "2", "--test-samples", "1"]
    options += ["--scorer.samples", "12", "--scorer.quota", "1", "--scorer.sampling.max-tokens", "24"]
    command(["scorer", "train", "--out", str(tmp_path / "run"), *options, "--track", "tensorboard"])
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
