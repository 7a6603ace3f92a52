"""MALT from end to end with a tiny model: all stages, its baselines, kills at many points, and what must be refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import surroundings
from teamtune import rollout
from teamtune.cli import main as command
from teamtune.cli import options
from teamtune.recipes import malt
from teamtune.recipes.malt import Malt
from teamtune.report import write_report
from teamtune.store import read_table
from teamtune.types import TeamtuneError

STAGES = [
    "problems/train",
    "problems/test",
    "turns",
    "grades",
    "values",
    "sft-rows",
    "sft",
    "pairs",
    "dpo",
    "comparison",
]
PLAYED = ["base-solo", "base", "debate", "star-solo", "star", "malt"]
SMALL = [
    *("--task", "tests.easy_task", "--train", "4", "--test", "3", "--sampling.max-tokens", "10"),
    *("--lora.rank", "4", "--lora.alpha", "8", "--sft.rate", "1e-2", "--dpo.rate", "1e-2"),
    *("--sft.batch", "4", "--dpo.batch", "4", "--sft.save-every", "1", "--dpo.save-every", "1"),
]
QUICK = ["--engine.kind", "scripted", "--engine.script", "tests.easy_task:answer", "--baselines", "none"]


def config(model: str, out: Path, *more: str) -> Malt:
    """The options as the command line gives them."""
    return options(Malt, "malt", ["--model", model, "--out", str(out), *SMALL, *more])[0]


def trained(model: str, out: Path, *more: str) -> Path:
    malt.main(config(model, out, *more))
    return out


def stages(run: Path) -> list[str]:
    return sorted(str(file.parent.relative_to(run)) for file in run.rglob("DONE.json"))


def rows(run: Path, stage: str) -> list[dict[str, Any]]:
    return read_table(run / stage).rows()


def tables(run: Path) -> dict[str, bytes]:
    return {str(file.relative_to(run)): file.read_bytes() for file in sorted(run.rglob("rows.parquet"))}


def inputs(run: Path, stage: str) -> dict[str, Any]:
    return json.loads((run / stage / "DONE.json").read_text())["inputs"]


def adapters(run: Path, stage: str) -> dict[str, str | None]:
    return {agent["name"]: agent["adapter"] for agent in inputs(run, stage)["team"]["agents"]}


@pytest.fixture(scope="module")
def whole(brief: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One unbroken run with all baselines, by the embedded engine."""
    return trained(brief, tmp_path_factory.mktemp("malt") / "whole")


def forbidden(*_: object, **__: object) -> Any:
    raise AssertionError("this had been done already")


# One whole run


def test_every_stage_is_sealed(whole: Path) -> None:
    played = [f"test/{name}/{part}" for name in PLAYED for part in ("turns", "grades")]
    assert stages(whole) == sorted([*STAGES, *played])
    assert not list(whole.rglob("*.tmp")) and not list(whole.rglob("OPEN.json")) and not list(whole.rglob("state"))


def test_how_far_the_engine_is_from_training_is_kept_and_told(whole: Path) -> None:
    """Of every trained seat; an engine of other weights would not have come this far."""
    gaps = json.loads((whole / "test/malt/turns/gaps.json").read_text())
    assert set(gaps) == {"generator", "verifier", "refiner"}
    assert 0 < max(gaps.values()) < 0.05
    assert not (whole / "turns/gaps.json").exists(), "nothing was trained yet"
    page = next(file for file in write_report(whole) if file.suffix == ".md").read_text()
    # What was counted follows in a table of its own, below the stages.
    line = next(line for line in page.splitlines() if line.startswith("| test/malt/turns |"))
    assert line.endswith(f"| {max(gaps.values()):.2g} |")


def test_a_finished_run_does_no_work_again(whole: Path, brief: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file: file.stat().st_mtime_ns for file in whole.rglob("*") if file.suffix in (".parquet", ".safetensors")}
    for name in ("rollout.open_engine", "train.fit.backward", "train.team.TeamModel.open", "models.load_model"):
        monkeypatch.setattr(f"teamtune.{name}", forbidden)
    trained(brief, whole)
    assert before == {file: file.stat().st_mtime_ns for file in before}


def test_the_tree_takes_39_generations_a_problem(whole: Path) -> None:
    turns = rows(whole, "turns")
    assert set(Counter(turn["problem"] for turn in turns).values()) == {39}
    agents = Counter(turn["agent"] for turn in turns if turn["problem"] == turns[0]["problem"])
    assert agents == {"generator": 3, "verifier": 9, "refiner": 27}
    assert sum(turn["final"] for turn in turns) == 27 * 4
    assert all(turn["prompt_ids"] and turn["token_ids"] and turn["logprobs"] for turn in turns)


def test_grades_values_and_rows_fit_together(whole: Path) -> None:
    turns, grades, values = (rows(whole, name) for name in ("turns", "grades", "values"))
    assert len(turns) == len(grades) == len(values)
    score = {(g["problem"], g["turn"]): g["score"] for g in grades}
    value = {(v["problem"], v["turn"]): v["value"] for v in values}
    assert 0 < sum(score.values()) < len(score), "some are right and some are wrong"
    for turn in turns:
        below = [t for t in turns if t["problem"] == turn["problem"] and t["parents"][-1:] == [turn["turn"]]]
        place = turn["problem"], turn["turn"]
        want = sum(value[t["problem"], t["turn"]] for t in below) / len(below) if below else score[place]
        assert value[place] == pytest.approx(want)
    by_place = {(t["problem"], t["turn"]): t for t in turns}
    for row in rows(whole, "sft-rows"):
        turn = by_place[row["problem"], row["turn"]]
        assert value[row["problem"], row["turn"]] > 0.5
        assert (row["prompt_ids"], row["token_ids"]) == (turn["prompt_ids"], turn["token_ids"])
    for row in rows(whole, "pairs"):
        good, bad = by_place[row["problem"], row["chosen_turn"]], by_place[row["problem"], row["rejected_turn"]]
        assert good["messages"] == bad["messages"] and good["parents"] == bad["parents"]
        assert value[row["problem"], row["chosen_turn"]] > 0.5 >= value[row["problem"], row["rejected_turn"]]
        assert (row["chosen_ids"], row["rejected_ids"]) == (good["token_ids"], bad["token_ids"])


def test_dpo_starts_at_ln_2_from_the_sft_adapters_and_leaves_the_generator_out(whole: Path) -> None:
    assert {path.name for path in (whole / "sft").iterdir() if path.is_dir()} == {"generator", "verifier", "refiner"}
    assert {path.name for path in (whole / "dpo").iterdir() if path.is_dir()} == {"verifier", "refiner"}
    assert {row["agent"] for row in rows(whole, "pairs")} == {"verifier", "refiner"}
    sft = {role: f"run:sft/{role}" for role in ("generator", "verifier", "refiner")}
    dpo = {role: f"run:dpo/{role}" for role in ("verifier", "refiner")}
    assert adapters(whole, "dpo") == adapters(whole, "test/star/turns") == sft
    assert adapters(whole, "test/malt/turns") == sft | dpo
    assert set(adapters(whole, "test/base/turns").values()) == {None}
    first = next(line for line in metrics(whole) if line["stage"] == "dpo")
    assert first["step"] == 0
    assert first["verifier/loss"] == first["refiner/loss"] == pytest.approx(0.6931472, abs=1e-7)


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_comparison_has_every_system_at_its_number_of_calls(whole: Path) -> None:
    """One agent alone, the pipeline and the debate meet at nine calls, where MALT with three votes stands too."""
    table = {row["system"]: row for row in rows(whole, "comparison")}
    calls = {name: row["calls"] for name, row in table.items()}
    assert calls == {
        **{"SA": 1, "SA + MV@3": 3, "SA + MV@9": 9, "MA": 3, "MA + MV@3": 9, "Debate 3x3": 9},
        **{"STaR SA": 1, "STaR SA + MV@3": 3, "STaR SA + MV@9": 9, "STaR MA": 3, "STaR MA + MV@3": 9},
        **{"MALT, one pass": 3, "MALT + MV@3": 9},
    }
    assert list(table)[-1] == "MALT + MV@3"
    assert table["MALT + MV@3"]["diff"] == 0
    for row in table.values():
        assert row["n"] == 3 and 0 <= row["accuracy"] <= 1
        assert row["completion_tokens"] <= 10 * row["calls"] and row["prompt_tokens"] > 10 * row["calls"]
        assert row["diff"] == pytest.approx(table["MALT + MV@3"]["accuracy"] - row["accuracy"])
    sft = Counter[str]()
    for row in rows(whole, "sft-rows"):
        sft[row["agent"]] += len(row["token_ids"])
    pair_tokens = sum(len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows(whole, "pairs"))
    trained = {name: row["trained_tokens"] for name, row in table.items()}
    assert trained["MA"] == trained["Debate 3x3"] == 0
    assert trained["STaR SA"] == trained["STaR SA + MV@9"] == sft["generator"], "one agent alone is the generator"
    assert trained["STaR MA"] == trained["STaR MA + MV@3"] == sft.total()
    assert trained["MALT + MV@3"] == trained["MALT, one pass"] == sft.total() + pair_tokens


def test_systems_with_votes_use_the_same_answers_as_without(whole: Path) -> None:
    for name, takes in {"base-solo": 9, "base": 3, "star-solo": 9, "star": 3, "malt": 3, "debate": 1}.items():
        turns = rows(whole, f"test/{name}/turns")
        assert {turn["take"] for turn in turns} == set(range(takes))
        assert {turn["problem"] for turn in turns} == {f"easy/test/0/{i}" for i in range(3)}


def test_no_test_problem_was_trained_on(whole: Path) -> None:
    trained_on = {row["problem"] for name in ("sft-rows", "pairs") for row in rows(whole, name)}
    tested = {row["problem"] for name in PLAYED for row in rows(whole, f"test/{name}/turns")}
    assert trained_on and tested and not trained_on & tested


def test_metrics_hold_every_step_once(whole: Path) -> None:
    assert_steps_once(whole)


def steps_of(run: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row in metrics(run):
        found.setdefault(row["stage"], []).append(row["step"])
    return found


def assert_steps_once(run: Path) -> None:
    found = steps_of(run)
    assert set(found) == {"sft", "dpo"}
    for stage, steps in found.items():
        assert steps == list(range(len(steps))) and len(steps) > 2, stage


def test_the_report_lists_every_system(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(["report", str(whole)])
    printed = capsys.readouterr().out
    for row in rows(whole, "comparison"):
        assert row["system"] in printed
    text = (whole / "report.md").read_text()
    for row in rows(whole, "comparison"):
        assert row["system"] in text


# Options


def test_the_generator_takes_part_in_dpo_where_it_is_told_to(brief: str, tmp_path: Path) -> None:
    run = trained(brief, tmp_path / "run", *QUICK, "--dpo-generator")
    assert {path.name for path in (run / "dpo").iterdir() if path.is_dir()} == {"generator", "verifier", "refiner"}
    assert adapters(run, "test/malt/turns") == {r: f"run:dpo/{r}" for r in ("generator", "verifier", "refiner")}
    assert "generator" in {row["agent"] for row in rows(run, "pairs")}


def test_only_the_named_roles_are_trained(brief: str, tmp_path: Path) -> None:
    run = trained(brief, tmp_path / "run", *QUICK, "--train-seats", "verifier", "--width", "2")
    assert set(Counter(turn["problem"] for turn in rows(run, "turns")).values()) == {2 + 4 + 8}
    assert adapters(run, "test/malt/turns") == {"generator": None, "verifier": "run:dpo/verifier", "refiner": None}


def test_without_a_role_that_prefers_there_is_no_dpo(brief: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = SMALL[: SMALL.index("--sft.rate")]
    malt.main(
        options(Malt, "malt", ["--model", brief, "--out", str(run), *small, *QUICK, "--train-seats", "generator"])[0]
    )
    assert not (run / "dpo").exists() and not (run / "pairs").exists()
    assert adapters(run, "test/malt/turns")["generator"] == "run:sft/generator"


def test_a_second_round_starts_from_the_first_rounds_team(brief: str, tmp_path: Path) -> None:
    more = ["--rounds", "2", "--width", "2", "--train", "12", "--baselines", "none", "--votes", "1"]
    run = trained(brief, tmp_path / "run", *more)
    first = {
        "generator": "run:round-1/sft/generator",
        "verifier": "run:round-1/dpo/verifier",
        "refiner": "run:round-1/dpo/refiner",
    }
    assert set(adapters(run, "round-1/turns").values()) == {None}
    assert adapters(run, "round-2/turns") == adapters(run, "round-2/sft") == first
    assert adapters(run, "test/malt/turns") == {k: v.replace("round-1", "round-2") for k, v in first.items()}
    assert inputs(run, "round-1/turns")["how"]["seed"] != inputs(run, "round-2/turns")["how"]["seed"]
    one, two = (Counter(turn["text"] for turn in rows(run, f"round-{i}/turns")) for i in (1, 2))
    assert one != two, "the trained team answers otherwise"
    for role in first:
        a, b = (load_file(run / f"round-{i}/sft/{role}/adapter_model.safetensors") for i in (1, 2))
        assert all(not torch.equal(a[name], b[name]) for name in a if "lora_B" in name)
    table = {row["system"]: row for row in rows(run, "comparison")}
    tokens = sum(
        len(row.get(column) or ())
        for i in (1, 2)
        for stage in ("sft-rows", "pairs")
        for row in rows(run, f"round-{i}/{stage}")
        for column in ("token_ids", "chosen_ids", "rejected_ids")
    )
    assert table["MALT + MV@1"]["trained_tokens"] == tokens


def test_the_driver_is_that_of_every_rollout(brief: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    real = rollout.drive

    def watched(lives: Any, engine: Any, how: Any) -> Any:
        used.append(how.driver)
        return real(lives, engine, how)

    monkeypatch.setattr(rollout, "drive", watched)
    trained(brief, tmp_path / "run", "--driver", "rolling", "--baselines", "all")
    assert len(used) == 7 and set(used) == {"rolling"}


def test_both_drivers_give_the_same_ids(whole: Path, brief: str, tmp_path: Path) -> None:
    """Log-probabilities may differ in their last digits, for the batches differ."""
    run = tmp_path / "rolling"
    trained(brief, run, "--driver", "rolling", "--baselines", "none", "--engine.rows", "16")
    for mine, theirs in zip(rows(run, "turns"), rows(whole, "turns"), strict=True):
        assert mine.pop("logprobs") == pytest.approx(theirs.pop("logprobs"), abs=1e-4)
        assert mine == theirs
    for stage in ("grades", "values", "sft-rows", "pairs"):
        assert tables(run)[f"{stage}/rows.parquet"] == tables(whole)[f"{stage}/rows.parquet"]


def test_the_same_seed_trains_the_same_team_and_another_does_not(whole: Path, brief: str, tmp_path: Path) -> None:
    again = trained(brief, tmp_path / "again", "--baselines", "none")
    other = trained(brief, tmp_path / "other", "--baselines", "none", "--seed", "1")
    for name in ("sft/verifier", "dpo/refiner"):
        a, b, c = (load_file(run / name / "adapter_model.safetensors") for run in (whole, again, other))
        for key, tensor in a.items():
            torch.testing.assert_close(b[key], tensor, rtol=1e-5, atol=1e-7)
        assert any(not torch.allclose(c[key], tensor, rtol=1e-2) for key, tensor in a.items())


# Evaluation and baselines


def evaluated(whole: Path, out: Path, *more: str) -> list[dict[str, Any]]:
    command(["eval", "--run", str(whole), "--out", str(out), *SMALL[:2], "--test", "3", *SMALL[6:8], *more])
    return rows(out, "comparison")


def test_eval_plays_the_trained_team(whole: Path, tmp_path: Path) -> None:
    """With the same options and seed it plays just what the run itself played."""
    table = evaluated(whole, tmp_path / "eval")
    assert [row["system"] for row in table] == ["GVR, one pass", "GVR + MV@3"]
    mine, theirs = rows(tmp_path / "eval", "test/team/turns"), rows(whole, "test/malt/turns")
    assert [turn["token_ids"] for turn in mine] == [turn["token_ids"] for turn in theirs]
    own = {row["system"]: row for row in rows(whole, "comparison")}
    assert table[1]["accuracy"] == own["MALT + MV@3"]["accuracy"]


def test_eval_takes_what_is_not_given_from_the_run(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that an ablation differs from the run in what it names alone."""
    arguments = ["eval", "--run", str(whole), "--out", str(tmp_path / "eval"), "--sampling.top-k", "7"]
    command([*arguments, "--dry-run"])
    found = json.loads(capsys.readouterr().out)
    recorded = json.loads((whole / "config.json").read_text())["options"]
    for name in ("task", "engine", "votes", "seed"):
        assert found["options"][name] == recorded[name]
    assert found["options"]["sampling"] == recorded["sampling"] | {"top_k": 7}
    assert found["plan"]["test generations"] == 3 * 9
    assert not (tmp_path / "eval").exists()


def test_eval_puts_seats_back_to_the_base(whole: Path, tmp_path: Path) -> None:
    table = evaluated(whole, tmp_path / "eval", "--untrained", "verifier")
    assert table[0]["system"] == "GVR, verifier untrained, one pass"
    found = adapters(tmp_path / "eval", "test/team/turns")
    assert found["verifier"] is None
    assert found["generator"] == str(whole / "sft/generator") and found["refiner"] == str(whole / "dpo/refiner")
    mine, theirs = rows(tmp_path / "eval", "test/team/turns"), rows(whole, "test/malt/turns")
    for a, b in zip(mine, theirs, strict=True):
        if a["agent"] == "generator":
            assert a["token_ids"] == b["token_ids"], "the generator is still the trained one"
    verified = [[t["token_ids"] for t in turns if t["agent"] == "verifier"] for turns in (mine, theirs)]
    assert verified[0] != verified[1]


@pytest.mark.parametrize(
    ("roles", "agents"), [("GR", "generator refiner"), ("GV", "generator verifier"), ("G", "generator")]
)
def test_eval_leaves_roles_out(whole: Path, tmp_path: Path, roles: str, agents: str) -> None:
    table = evaluated(whole, tmp_path / "eval", "--roles", roles)
    assert {turn["agent"] for turn in rows(tmp_path / "eval", "test/team/turns")} == set(agents.split())
    assert [row["calls"] for row in table] == [len(roles), 3 * len(roles)]


def test_eval_of_the_sft_stage_takes_its_weights(whole: Path, tmp_path: Path) -> None:
    evaluated(whole, tmp_path / "eval", "--stage", "sft")
    wanted = {role: str(whole / "sft" / role) for role in ("generator", "verifier", "refiner")}
    assert adapters(tmp_path / "eval", "test/team/turns") == wanted
    mine, theirs = rows(tmp_path / "eval", "test/team/turns"), rows(whole, "test/star/turns")
    assert [turn["token_ids"] for turn in mine] == [turn["token_ids"] for turn in theirs]


def copied(source: Path, to: Path) -> Path:
    shutil.copytree(source, to)
    return to


def test_eval_without_one_of_the_adapters_is_refused(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody may measure a team half of which is of an earlier stage without knowing it."""
    run = copied(whole, tmp_path / "run")
    shutil.rmtree(run / "dpo" / "verifier")
    arguments = ["eval", "--run", str(run), "--out", str(tmp_path / "eval")]
    said = refused(capsys, arguments)
    assert "no adapter in" in said and "dpo/verifier" in said
    shutil.rmtree(run / "dpo")
    said = refused(capsys, arguments)
    assert "its dpo is not done; finish its recipe first; --stage sft takes the team as it is before DPO" in said
    assert not (tmp_path / "eval").exists()


def test_eval_by_another_engine_goes_by_that_one(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever engine the run had."""
    server = ("--engine.kind", "openai", "--engine.openai.base-url", "http://127.0.0.1:9/v1", "--engine.openai.names")
    arguments = ["eval", "--run", str(whole), "--out", str(tmp_path / "eval"), *server, "nobody=x"]
    assert "engine.openai.names has a name for 'nobody', and seats are generator" in refused(capsys, arguments)
    assert not (tmp_path / "eval").exists()


def test_adapters_replaced_in_place_are_noticed(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where a run was trained again in the same folder: its old evaluation must not answer for it."""
    run = copied(whole, tmp_path / "run")
    evaluated(run, tmp_path / "eval")
    shutil.copy(run / "sft/verifier/adapter_model.safetensors", run / "dpo/verifier/adapter_model.safetensors")
    said = refused(capsys, ["eval", "--run", str(run), "--out", str(tmp_path / "eval")])
    assert "inputs of" in said and "team.weights" in said


def test_a_base_replaced_in_place_is_noticed(brief: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = copied(Path(brief), tmp_path / "base")
    arguments = ["baselines", "--model", str(base), "--out", str(tmp_path / "run"), *SMALL[:2], "--test", "2"]
    arguments += SMALL[6:8]
    command(arguments)
    changed = {name: tensor + 0.01 for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(changed, base / "model.safetensors", {"format": "pt"})
    assert "team.weights" in refused(capsys, arguments)


def test_eval_counts_the_training_of_the_seats_that_play_trained(whole: Path, tmp_path: Path) -> None:
    own = {row["system"]: row["trained_tokens"] for row in rows(whole, "comparison")}
    assert evaluated(whole, tmp_path / "all")[0]["trained_tokens"] == own["MALT + MV@3"]
    sft = [row for row in rows(whole, "sft-rows") if row["agent"] == "generator"]
    alone = evaluated(whole, tmp_path / "g", "--roles", "G")[0]["trained_tokens"]
    assert alone == sum(len(row["token_ids"]) for row in sft)
    none = ["--untrained", "generator", "verifier", "refiner"]
    assert evaluated(whole, tmp_path / "none", *none)[0]["trained_tokens"] == 0


def test_eval_on_problems_that_were_trained_on_is_refused(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests import easy_task

    load = easy_task.load
    monkeypatch.setattr(easy_task, "load", lambda split, count, seed=0, level="": load("train", count, seed))
    for dry in ([], ["--dry-run"]):
        with pytest.raises(SystemExit, match="2"):
            evaluated(whole, tmp_path / "eval", *dry)
        assert "are in the training set too" in capsys.readouterr().err


def test_baselines_run_without_training(brief: str, whole: Path, tmp_path: Path) -> None:
    """They are those of a training run with the same seed."""
    out = tmp_path / "baselines"
    command(["baselines", "--model", brief, "--out", str(out), *SMALL[:2], "--test", "3", *SMALL[6:8]])
    mine, theirs = ({row.pop("system"): row for row in rows(run, "comparison")} for run in (out, whole))
    assert list(mine) == ["SA", "SA + MV@3", "SA + MV@9", "MA", "MA + MV@3", "Debate 3x3"]
    for name, row in mine.items():
        assert (row["accuracy"], row["calls"]) == (theirs[name]["accuracy"], theirs[name]["calls"])
    assert not list(out.rglob("*.safetensors"))


# Kills


def started(arguments: list[str]) -> subprocess.Popen[bytes]:
    code = [sys.executable, "-m", "teamtune.cli", *arguments]
    return subprocess.Popen(code, env=surroundings(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def stopped_at(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
    """Freeze the process as soon as `reached`; it must not have ended before."""
    until = time.monotonic() + 120
    while not reached():
        assert process.poll() is None, f"it ended before: {process.communicate()[1].decode()[-2000:]}"
        assert time.monotonic() < until, "it never came so far"
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGSTOP)


def killed(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def test_a_run_that_is_killed_again_and_again_ends_as_an_unbroken_one(
    brief: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL in the middle of the tree, of both fits, of the test and between stages. All tables are the same byte by
    byte, and the adapters bit by bit: a state holds weights and moments as they are, and a step's rows depend on its
    number alone."""
    more = ["--baselines", "none", "--width", "2", "--train", "12", "--sft.epochs", "4", "--sft.batch", "2"]
    more += ["--dpo.batch", "1"]
    whole = trained(brief, tmp_path / "whole", *more)
    run = tmp_path / "killed"
    arguments = ["malt", "--model", brief, "--out", str(run), *SMALL, *more]
    log, reference = run / "turns" / "log.jsonl", run / "dpo" / "reference.safetensors"

    process = started(arguments)
    stopped_at(process, lambda: log.exists() and log.read_bytes().count(b"\n") > 1)
    assert not (run / "turns" / "DONE.json").exists()
    with pytest.raises(SystemExit, match="2"):
        command(arguments)
    assert f"{run} is in use by process {process.pid} on " in capsys.readouterr().err
    killed(process)
    *whole_lines, torn, _ = log.read_bytes().split(b"\n")
    log.write_bytes(b"".join(line + b"\n" for line in whole_lines) + torn[: 2 * len(torn) // 3])  # as a crash leaves it

    process = started(arguments)
    stopped_at(process, lambda: any((run / "sft" / "state").glob("step-00000[3-9]/state.json")))
    killed(process)
    assert not (run / "sft" / "DONE.json").exists()

    process = started(arguments)
    stopped_at(process, lambda: (run / "sft" / "DONE.json").exists())
    killed(process)
    assert not reference.exists() or not (run / "dpo" / "DONE.json").exists()

    process = started(arguments)
    stopped_at(process, lambda: any((run / "dpo" / "state").glob("step-*/state.json")))
    killed(process)
    assert not (run / "dpo" / "DONE.json").exists()

    process = started(arguments)
    tested = run / "test" / "malt" / "turns" / "log.jsonl"
    stopped_at(process, lambda: tested.exists() and tested.read_bytes().count(b"\n") > 0)
    killed(process)
    assert not (tested.parent / "DONE.json").exists()

    process = started(arguments)
    error = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 0, error
    assert tables(run) == tables(whole)
    assert_steps_once(run)
    assert steps_of(run) == steps_of(whole)
    for file in sorted(whole.rglob("adapter_model.safetensors")):
        mine, theirs = load_file(run / file.relative_to(whole)), load_file(file)
        assert mine.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert torch.equal(mine[name], tensor), f"{file}: {name}"


# What is refused


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    with pytest.raises(SystemExit, match="2"):
        command(arguments)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return " ".join(error.split())


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (["--width", "2"], "config.width: 3 -> 2"),
        (["--seed", "5"], "config.seed: 0 -> 5"),
        (["--sft.rate", "0.5"], "config.sft.rate: 0.01 -> 0.5"),
        (["--train", "9"], "config.task.train: 4 -> 9"),
    ],
)
def test_another_option_on_the_same_folder_is_named(
    whole: Path, brief: str, capsys: pytest.CaptureFixture[str], changed: list[str], named: str
) -> None:
    before = tables(whole)
    error = refused(capsys, ["malt", "--model", brief, "--out", str(whole), *SMALL, *changed])
    assert named in error and "undo that or use another --out" in error
    assert tables(whole) == before


def test_a_question_in_both_train_and_test_is_an_error(
    brief: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where it is written a little differently; and nothing is begun."""
    out = tmp_path / "run"
    error = refused(capsys, ["malt", "--model", brief, "--out", str(out), *SMALL, "--level", "leaky"])
    assert "1 of 3 test problems are in the training set too, problem 'easy/test/0/0'" in error
    assert not out.exists()


def test_a_role_with_nothing_to_learn_stops_the_run_and_says_why(
    brief: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests import easy_task

    from teamtune.types import Grade

    monkeypatch.setattr(easy_task, "grade", lambda problem, text: Grade("0", 0.0))
    with pytest.raises(TeamtuneError, match=r"nothing to train generator, verifier, refiner on.*not above threshold"):
        trained(brief, tmp_path / "run", *QUICK)


def test_a_run_that_failed_can_be_opened_again_in_the_same_process(
    brief: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook, which keeps the last error and so all that its frames hold: the folder must not stay locked."""
    with monkeypatch.context() as broken:
        broken.setattr("teamtune.rollout.open_engine", forbidden)
        with pytest.raises(AssertionError) as kept:
            malt.main(config(brief, tmp_path / "run", *QUICK))
    trained(brief, tmp_path / "run", *QUICK)
    assert kept.value.__traceback__ is not None
