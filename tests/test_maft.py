"""Multiagent Finetuning from the command line, on the tiny model: the method, its iterations, and no look at gold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from teamtune.cli import main as command
from teamtune.store import read_table

SMALL = [
    *("--task", "tests.spoken_task", "--train", "30", "--test", "3", "--sampling.max-tokens", "12"),
    *("--lora.rank", "2", "--lora.alpha", "4", "--sft.rate", "1e-2", "--sft.batch", "4", "--sft.epochs", "1"),
]


def trained(model: str, out: Path, *more: str) -> Path:
    command(["maft", "--model", model, "--out", str(out), *SMALL, *more])
    return out


def rows(run: Path, stage: str) -> list[dict[str, Any]]:
    return read_table(run / stage).rows()


def start(run: Path, iteration: int) -> dict[str, Any]:
    return json.loads((run / f"iteration-{iteration}" / "sft" / "DONE.json").read_text())["inputs"]["team"]


@pytest.fixture(scope="module")
def whole(brief: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(brief, tmp_path_factory.mktemp("maft") / "run", "--iterations", "2")


def test_every_agent_is_trained_on_its_own_part_in_one_fit(whole: Path) -> None:
    for number in (1, 2):
        place = whole / f"iteration-{number}"
        names = sorted(path.name for path in (place / "sft").iterdir() if path.is_dir())
        assert names == [f"{role}-{n}" for role in ("critic", "generator") for n in (1, 2, 3)]
        author = {(t["problem"], t["take"], t["turn"]): t["agent"] for t in rows(whole, f"iteration-{number}/turns")}
        for row in rows(whole, f"iteration-{number}/sft-rows"):
            assert author[row["problem"], row["take"], row["turn"]] == row["agent"]
    calls = {row["system"]: row["calls"] for row in rows(whole, "comparison")}
    matched = next(name for name in calls if name.endswith("(equal tokens)"))
    assert list(calls.items()) == [
        *(("Base", 1), ("Majority of 3", 3), ("Majority of 9 (equal calls)", 9), (matched, calls[matched])),
        *(("Debate", 9), ("Majority FT", 3)),
        *(("Single-agent FT, iteration 1", 9), ("Single-agent FT, iteration 2", 9), ("Single-agent FT, alone", 1)),
        *(("One model, all agents' data", 9), ("MAFT, iteration 1", 9), ("MAFT, iteration 2", 9)),
    ]
    assert matched == f"Majority of {calls[matched]:g} (equal tokens)" and calls[matched] > 9


def test_single_models_learn_from_the_same_debates(whole: Path) -> None:
    team, union, single = (
        rows(whole, f"{name}/sft-rows") for name in ("iteration-1", "union-ft", "single-ft/iteration-1")
    )
    assert {row["agent"] for row in [*union, *single]} == {"solver"}
    texts = lambda table: sorted((row["problem"], row["turn"], row["completion"]) for row in table)  # noqa: E731
    assert texts(union) == texts(team)
    credit = [row for row in rows(whole, "single-ft/iteration-1/credit") if row["agrees"]]
    assert len(single) <= len(credit) and {row["turn"] for row in single} <= {row["turn"] for row in credit}
    tokens = {row["system"]: row["trained_tokens"] for row in rows(whole, "comparison")}
    assert tokens["One model, all agents' data"] == tokens["MAFT, iteration 1"] < tokens["MAFT, iteration 2"]


def test_labels_are_votes_and_no_row_disagrees_with_its_label(whole: Path) -> None:
    credit = {(r["problem"], r["take"], r["turn"]): r for r in rows(whole, "iteration-1/credit")}
    for row in rows(whole, "iteration-1/sft-rows"):
        assert credit[row["problem"], row["take"], row["turn"]]["agrees"]


def test_an_iteration_goes_on_from_the_one_before_or_from_the_base(whole: Path, brief: str, tmp_path: Path) -> None:
    again = trained(brief, tmp_path / "base", "--iterations", "2", "--init", "base", "--baselines")
    continued = {agent["name"]: agent["adapter"] for agent in start(whole, 2)["agents"]}
    anew = {agent["name"]: agent["adapter"] for agent in start(again, 2)["agents"]}
    assert continued["critic-2"] == "run:iteration-1/sft/critic-2" and continued["summariser"] is None
    assert set(anew.values()) == {None}
    # What is played in the second iteration is the trained team either way.
    turns = json.loads((again / "iteration-2" / "turns" / "DONE.json").read_text())["inputs"]["team"]["agents"]
    assert {agent["name"]: agent["adapter"] for agent in turns}["critic-2"] == "run:iteration-1/sft/critic-2"


def test_poisoned_gold_answers_change_nothing_that_is_trained(whole: Path, brief: str, tmp_path: Path) -> None:
    poisoned = trained(brief, tmp_path / "poisoned", "--iterations", "2", "--level", "poisoned")
    gold = [{row["id"]: row["answer"] for row in rows(run, "problems/train")} for run in (whole, poisoned)]
    assert gold[0].keys() == gold[1].keys() and all(gold[0][name] != gold[1][name] for name in gold[0])
    for number in (1, 2):
        for stage in ("turns", "parsed", "credit", "sft-rows"):
            mine, theirs = (run / f"iteration-{number}" / stage / "rows.parquet" for run in (whole, poisoned))
            assert mine.read_bytes() == theirs.read_bytes(), stage
        for adapter in (whole / f"iteration-{number}" / "sft").rglob("adapter_model.safetensors"):
            other = load_file(poisoned / adapter.relative_to(whole))
            assert all((tensor == other[name]).all() for name, tensor in load_file(adapter).items())


def test_without_critics_they_stay_at_the_base(brief: str, tmp_path: Path) -> None:
    run = trained(brief, tmp_path / "run", "--no-critics", "--baselines", "--summary", "none")
    assert sorted(path.name for path in (run / "iteration-1" / "sft").iterdir() if path.is_dir()) == [
        "generator-1",
        "generator-2",
        "generator-3",
    ]
    assert {turn["tag"] for turn in rows(run, "iteration-1/turns")} == {"round-1", "round-2"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--agents", "0"], "agents is 0; it must be 1 or above"),
        (["--rounds", "1"], "rounds is 1; it must be 2 or above"),
        (["--iterations", "0"], "iterations is 0"),
        (["--weight", "1.5"], "weight is 1.5; it must lie in [0, 1]"),
    ],
)
def test_options_out_of_range(
    more: list[str], said: str, brief: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        trained(brief, tmp_path / "run", *more)
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_plan_counts_what_the_run_then_takes(whole: Path, brief: str, capsys: pytest.CaptureFixture[str]) -> None:
    command(["maft", "--model", brief, "--out", str(whole / "none"), *SMALL, "--iterations", "2", "--dry-run"])
    plan = json.loads(capsys.readouterr().out)["plan"]
    made = [f"iteration-{n}/turns" for n in (1, 2)] + ["majority-ft/turns", "single-ft/iteration-2/turns"]
    assert plan["training generations"] == sum(len(rows(whole, name)) for name in made)
    played = [file.parent for file in (whole / "test").rglob("DONE.json") if file.parent.name == "turns"]
    # How many single answers a debate's tokens pay for is known only after it.
    votes = len(read_table(whole / "test" / "base-solo" / "turns")) - 9 * 3
    assert plan["test generations"] == sum(len(read_table(folder)) for folder in played) - votes
    assert "counted when that is known" in plan["besides"]
