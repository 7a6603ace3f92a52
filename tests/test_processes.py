"""Several processes under a launcher train what one process trains, and only the first one writes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from helpers import surroundings
from teamtune.store import Run, read_table
from teamtune.train import processes
from teamtune.train.examples import Example
from teamtune.train.objective import Item, padded
from teamtune.train.packing import for_all, packed
from teamtune.train.team import Lora, TeamModel
from teamtune.types import Agent, Team, TeamtuneError

MALT = ["malt", "--task", "tests.easy_task", "--train", "8", "--test", "3", "--width", "2", "--votes", "1"]
MALT += [
    "--baselines",
    "none",
    "--sampling.max-tokens",
    "12",
    "--sft.precision",
    "float32",
    "--dpo.precision",
    "float32",
]
MALT += ["--sft.batch", "6", "--sft.rate", "1e-3", "--sft.micro-tokens", "300", "--dpo.micro-tokens", "300"]


def launched(processes: int, *args: str) -> subprocess.CompletedProcess[str]:
    """A command of Teamtune in so many processes, on the CPU where there is no GPU."""
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
    launcher += ["--main_process_port", "0", "--module"]
    line = [sys.executable, *(launcher if processes > 1 else ["-m"]), "teamtune", *args]
    env = surroundings() | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=400)


@pytest.fixture(scope="module")
def runs(brief: str, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same recipe in one process and in two."""
    folder = tmp_path_factory.mktemp("runs")
    for count in (1, 2):
        done = launched(count, *MALT, "--model", brief, "--out", str(folder / str(count)))
        assert done.returncode == 0, done.stderr[-3000:]
    return {count: folder / str(count) for count in (1, 2)}


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_train_the_same_adapters_as_one(runs: dict[int, Path]) -> None:
    for stage in ("sft", "dpo"):
        for agent in ("generator", "verifier", "refiner"):
            if stage == "dpo" and agent == "generator":
                continue
            one, two = (load_file(runs[n] / stage / agent / "adapter_model.safetensors") for n in (1, 2))
            assert one.keys() == two.keys()
            for name, tensor in one.items():
                torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5)
            assert any(tensor.abs().sum() > 0 for name, tensor in one.items() if "lora_B" in name)


def test_a_base_that_is_spread_over_two_trains_the_same_adapters(
    runs: dict[int, Path], brief: str, tmp_path: Path
) -> None:
    done = launched(2, *MALT, "--model", brief, "--lora.shard", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr[-3000:]
    for where in ("sft/verifier", "dpo/verifier", "dpo/refiner"):
        one, two = (load_file(run / where / "adapter_model.safetensors") for run in (runs[1], tmp_path / "run"))
        for name, tensor in one.items():
            torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5)
        assert (tmp_path / "run" / where / "proof.json").exists()
    configs = [json.loads((run / "config.json").read_text())["config"]["lora"] for run in (runs[1], tmp_path / "run")]
    assert configs[0] == configs[1], "it decides nothing"


HELD = """
import os
import sys
from pathlib import Path
from teamtune.train.team import Lora, TeamModel
from teamtune.types import Agent, Team

team = Team(sys.argv[1], (Agent("one"), Agent("two")))
model = TeamModel.open(team, team.names, Lora(rank=4, shard=True), dtype="float32").model
held = {True: 0, False: 0}
for name, p in model.named_parameters():
    if ".layers." in name:
        held["lora_" in name] += (p.to_local() if hasattr(p, "to_local") else p).numel()
Path(sys.argv[2], f"held-{os.environ['RANK']}").write_text(f"{held[False]} {held[True]}")
"""


def test_each_process_holds_its_part_of_the_layers_and_all_adapters(brief: str, tmp_path: Path) -> None:
    (tmp_path / "held.py").write_text(HELD)
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    line += [str(tmp_path / "held.py"), brief, str(tmp_path)]
    done = subprocess.run(line, env=surroundings(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    told = [file.read_text().split() for file in tmp_path.glob("held-*")]
    model = TeamModel.open(
        Team(brief, (Agent("one"), Agent("two"))), ["one", "two"], Lora(rank=4), dtype="float32"
    ).model
    layers = [(name, p.numel()) for name, p in model.named_parameters() if ".layers." in name]
    base, adapters = (sum(n for name, n in layers if ("lora_" in name) == which) for which in (False, True))
    assert len(told) == 2 and sum(int(one[0]) for one in told) == base
    assert [int(one[1]) for one in told] == [adapters, adapters]


def test_one_process_has_nobody_to_share_with(brief: str, tmp_path: Path) -> None:
    done = launched(1, *MALT, "--model", brief, "--lora.shard", "--out", str(tmp_path / "run"))
    assert done.returncode == 2 and "lora.shard has no use in one process" in " ".join(done.stderr.split())
    assert not (tmp_path / "run").exists()


def test_shares() -> None:
    assert processes.share([4, 5, 6], int) == [(4, True), (5, True), (6, True)]
    assert processes.share([], int, even=True) == []


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 8), st.booleans())
def test_every_item_counts_once_and_nobody_has_too_much(costs: list[int], parts: int, even: bool) -> None:
    taken = processes.shares(costs, int, parts, even)
    assert sorted(item for own in taken for item, counts in own if counts) == sorted(costs)
    if even:
        assert len({len(own) for own in taken}) == 1, "what is done together is done by all"
    else:
        loads = [sum(item for item, _ in own) for own in taken]
        assert max(loads) - min(loads) <= max(costs, default=0)


def test_a_step_of_many_short_rows_has_work_for_all() -> None:
    """A card holds all rows of such a step at once; fifteen others would have nothing to do."""
    rng = random.Random(0)
    example = lambda: Example([1] * rng.randint(200, 600), [2] * 200)  # noqa: E731
    items = [Item(agent, n, example()) for agent in ("one", "two", "three") for n in range(8)]
    longest: dict[int, int] = {}
    for count in (1, 4, 8, 16):
        micros = list(packed(items, for_all(items, 16_384, count), mix=False))
        assert sorted(one.number for micro in micros for one in micro) == sorted(one.number for one in items)
        longest[count] = max(sum(padded(m) for m, _ in own) for own in processes.shares(micros, padded, count))
    faster = {count: longest[1] / longest[count] for count in longest}
    assert faster[4] > 3 and faster[8] > 6 and faster[16] > 10, faster


def test_both_tell_the_same_metrics_once(runs: dict[int, Path]) -> None:
    one, two = metrics(runs[1]), metrics(runs[2])
    assert [(line["stage"], line["step"]) for line in one] == [(line["stage"], line["step"]) for line in two]
    assert len(one) == len({(line["stage"], line["step"]) for line in one}) > 4
    for mine, theirs in zip(one, two, strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            assert theirs[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-3, abs=1e-5)), name
    first = {line["stage"]: line for line in reversed(two)}["dpo"]
    assert first["verifier/loss"] == pytest.approx(0.6931472, abs=1e-6), "step 0 meets the reference exactly"


def test_only_the_first_process_writes(runs: dict[int, Path]) -> None:
    turns = [read_table(runs[n] / "turns").rows() for n in (1, 2)]
    assert [row["token_ids"] for row in turns[0]] == [row["token_ids"] for row in turns[1]]
    assert (runs[2] / "report.html").exists()
    kept = {str(file.relative_to(runs[2])) for file in runs[2].rglob("*") if file.is_file()}
    assert kept == {str(file.relative_to(runs[1])) for file in runs[1].rglob("*") if file.is_file()}


def test_a_finished_run_is_read_by_all(runs: dict[int, Path], brief: str) -> None:
    done = launched(2, *MALT, "--model", brief, "--out", str(runs[2]))
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ACCELERATE_USE_FSDP", "true", "asks for FSDP, which Teamtune does not use; leave it out: one frozen base"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "asks for DeepSpeed"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "asks for parallelism of its own"),
        ("ACCELERATE_MIXED_PRECISION", "fp16", "asks for mixed precision fp16, which Teamtune does not use"),
        ("ACCELERATE_MIXED_PRECISION", "fp8", "asks for mixed precision fp8"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "asks for compiling by INDUCTOR, .*: no fit compiles its model"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "asks for 4 gradient accumulation steps"),
    ],
)
def test_what_a_launcher_asks_for_in_vain_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(TeamtuneError, match=said):
        Run(tmp_path / "run", {})
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv(name, {"4": "1", "fp16": "bf16", "fp8": "no", "INDUCTOR": "NO"}.get(value, "false"))
    Run(tmp_path / "run", {}).close()


def test_what_needs_one_process_says_so(brief: str, tmp_path: Path) -> None:
    small = ["--task", "tests.easy_task", "--train", "8", "--test", "2", "--model", brief, "--scorer", "grader"]
    done = launched(2, "maporl", *small, "--ppo.updates", "1", "--ppo.problems", "2", "--out", str(tmp_path / "run"))
    assert done.returncode != 0
    told = "PPO trains in one process, and this is one of several; run it without a launcher"
    assert told in " ".join(done.stderr.split())


@pytest.mark.skipif(os.name != "posix", reason="processes are ended by signals")
def test_a_run_goes_on_in_another_number_of_processes(runs: dict[int, Path], brief: str, tmp_path: Path) -> None:
    """The first stages by one process, what is left by two: they decide nothing, so that nothing has changed."""
    import shutil

    shutil.copytree(runs[1], tmp_path / "run")
    for stage in ("dpo", "test/malt/turns", "test/malt/grades", "comparison"):
        shutil.rmtree(tmp_path / "run" / stage)
    done = launched(2, *MALT, "--model", brief, "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (load_file(run / "dpo/refiner/adapter_model.safetensors") for run in (runs[1], tmp_path / "run"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5)
