"""The command line: bad input is one clear sentence and exit code 2; files of options; dry runs; what is imported."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import teamtune.types
from helpers import surroundings
from teamtune.cli import main as command
from teamtune.recipes.malt import Malt
from teamtune.store import Run

SOURCE = Path(teamtune.types.__file__).parent
COMMANDS = ("malt", "baselines", "eval", "show", "report")
EASY = ["--task", "tests.easy_task", "--train", "2", "--test", "2", "--width", "2", "--baselines", "none"]
HEAVY = r"(torch|transformers|peft|accelerate|teamtune\.(engines|train|recipes|cli))\b"
ASKED = {"malt": EASY[:6], "baselines": [*EASY[:2], *EASY[4:6]]}
"""the task of each; baselines train on nothing"""
QUICK = [*EASY, "--engine.kind", "scripted", "--engine.script", "tests.easy_task:answer"]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What stderr says, as one line, where the command must end with exit code 2 and without a traceback."""
    with pytest.raises(SystemExit) as stop:
        command(list(arguments))
    said = capsys.readouterr()
    assert stop.value.code == 2
    assert said.out == ""
    assert "Traceback" not in said.err
    return said.err.strip()


def unboxed(said: str) -> str:
    """What the parser says without the box that it draws around it."""
    return " ".join(re.sub("[─│╭╮╰╯]", " ", said).split())


def sentence(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """`refused`, where the message is ours: a single line."""
    said = refused(capsys, *arguments)
    assert said.startswith("error: ") and "\n" not in said, said
    return said


@pytest.fixture
def out(tmp_path: Path) -> str:
    return str(tmp_path / "run")


# Bad input


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown command 'mlat'; there are malt, maft, maporl, scorer, baselines, eval, show, report" in sentence(
        capsys, "mlat"
    )


@pytest.mark.parametrize("name", ["malt", "baselines"])
def test_an_unknown_task(capsys: pytest.CaptureFixture[str], out: str, name: str) -> None:
    """Found before the folder is made, so that the mended command may use it."""
    said = sentence(capsys, name, "--out", out, "--model", "/no/such/model", "--task", "sums")
    assert "unknown task 'sums'; built in are arithmetic, stories" in said
    assert not Path(out).exists()


@pytest.mark.parametrize(("task", "level"), [("arithmetic", "9"), ("stories", "0"), ("stories", "hard")])
def test_a_level_out_of_range(capsys: pytest.CaptureFixture[str], out: str, task: str, level: str) -> None:
    said = sentence(capsys, "malt", "--out", out, "--task", task, "--level", level)
    assert f"{task} has no level '{level}'; choose one of" in said


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--width", "0"], "width is 0; it must be 1 or above"),
        (["--width", "-3"], "width is -3; it must be 1 or above"),
        (["--rounds", "0"], "rounds is 0"),
        (["--votes", "0"], "votes is 0"),
        (["--threshold", "1"], "threshold is 1.0; it must lie in [0, 1)"),
        (["--train-seats", "verifier", "critic"], "choose from generator, verifier, refiner"),
        (["--sft.rate", "-1"], "rate is -1.0; it must be above 0"),
        (["--sft.batch", "0"], "batch is 0; it must be above 0"),
        (["--lora.rank", "0"], "LoRA rank is 0"),
        (["--preference.beta", "0"], "beta is 0.0; it must be above 0"),
        (["--preference.nll", "-1"], "nll is -1.0"),
        (["--sampling.temperature", "-1"], "temperature is -1.0"),
        (["--sampling.top-p", "0"], "top_p is 0.0; it must lie in (0, 1]"),
        (["--sampling.max-tokens", "0"], "max_tokens is 0"),
        (["--train", "0"], "0 train problems asked for; take at least 1"),
        (["--test", "-1"], "-1 test problems asked for; take at least 1"),
        (["--sft-cap", "-1"], "cap is -1"),
        (["--engine.rows", "0"], "rows is 0"),
        (["--sft.warmup", "2"], "warmup is 2.0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_value_out_of_range(capsys: pytest.CaptureFixture[str], out: str, options: list[str], told: str) -> None:
    """Found before anything is done: no folder is made."""
    assert told in unboxed(refused(capsys, "malt", "--out", out, *QUICK, *options))
    assert not Path(out).exists()


def test_an_unknown_option(capsys: pytest.CaptureFixture[str], out: str) -> None:
    said = unboxed(refused(capsys, "malt", "--out", out, "--widht", "3"))
    assert "--widht" in said and "--width" in said, "and the like is suggested"
    assert not Path(out).exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [("--width", "three"), ("--width", "2.5"), ("--sft.rate", "fast"), ("--pooling", "both"), ("--baselines", "some")],
)
def test_a_value_of_the_wrong_type(capsys: pytest.CaptureFixture[str], out: str, option: str, value: str) -> None:
    said = unboxed(refused(capsys, "malt", "--out", out, option, value))
    assert option in said and value in said
    assert not Path(out).exists()


def test_a_required_option_that_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--out" in refused(capsys, "malt")
    assert "--run" in refused(capsys, "eval", "--out", "x")


def test_a_run_folder_of_another_configuration(capsys: pytest.CaptureFixture[str], out: str) -> None:
    config = {**teamtune_config(out), "width": 5}
    Run(out, config).close()
    said = sentence(capsys, "malt", "--out", out, *QUICK)
    assert "config.width: 5 -> 2" in said and "use another --out" in said


def teamtune_config(out: str) -> dict[str, Any]:
    """The options of `QUICK`, as a run records them."""
    from teamtune.cli import options
    from teamtune.identity import canonical

    return canonical(options(Malt, "malt", ["--out", out, *QUICK])[0], Path(out))


@pytest.mark.parametrize("name", ["malt", "baselines"])
def test_an_output_path_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        assert f"cannot write in {out}" in sentence(capsys, name, "--out", str(out), *ASKED[name])
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_corrupt_line_in_the_middle_of_a_log(
    capsys: pytest.CaptureFixture[str], tiny: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["malt", "--out", out, "--model", tiny, *QUICK]
    with monkeypatch.context() as broken:
        broken.setattr("teamtune.recipes.malt.grade_turns", None)
        with pytest.raises(Exception):  # noqa: B017
            command(arguments)
    turns = Path(out) / "turns"
    (turns / "DONE.json").unlink()
    log = turns / "log.jsonl"
    first, second, *rest = log.read_text().splitlines(keepends=True)
    log.write_text(first + second[:30] + "\n" + "".join(rest))
    capsys.readouterr()
    said = sentence(capsys, *arguments)
    assert f"{log} line 2 is corrupt; mend or delete it" in said


def test_an_adapter_that_is_missing(capsys: pytest.CaptureFixture[str], tiny: str, tmp_path: Path) -> None:
    """A run whose DPO weights were deleted by hand cannot be evaluated."""
    run = trained_run(tmp_path, {"model": tiny})
    (run / "dpo" / "verifier" / "adapter_model.safetensors").unlink()
    arguments = ["--run", str(run), "--out", str(tmp_path / "eval"), "--task", "tests.easy_task", "--test", "2"]
    said = sentence(capsys, "eval", *arguments, "--engine.kind", "transformers", "--engine.script", "")
    assert f"adapter '{run}/dpo/verifier' has no adapter_model.safetensors" in said


def trained_run(tmp_path: Path, options: dict[str, Any]) -> Path:
    """A folder that looks like a run that has trained a team."""
    run = tmp_path / "run"
    config = teamtune_config(str(run)) | {"task": {"task": "tests.easy_task", "train": 2, "test": 2}} | options
    with Run(run, config) as made:
        for stage in ("sft", "dpo"):
            made.work(stage, no_adapters)
        for stage in ("sft-rows", "pairs"):
            made.stage(stage, no_rows, stage)
    return run


def no_rows(stage: str) -> list[Any]:
    return []


def no_adapters(folder: Path) -> None:
    """A stage that leaves what looks like an adapter of every seat."""
    for seat in ("generator", "verifier", "refiner"):
        (folder / seat).mkdir(parents=True)
        (folder / seat / "adapter_config.json").write_text("{}")
        save_file({"weight": torch.zeros(1)}, folder / seat / "adapter_model.safetensors")


def test_a_run_without_a_trained_team(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    Run(run, teamtune_config(str(run)) | {"task": {"task": "tests.easy_task"}}).close()
    said = sentence(capsys, "eval", "--run", str(run), "--out", str(tmp_path / "eval"), *QUICK[:2], "--test", "2")
    assert f"'{run}' holds no trained team, its sft is not done; finish its recipe first" in said
    assert not (tmp_path / "eval").exists()


def test_eval_of_a_folder_that_is_no_malt_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = sentence(capsys, "eval", "--run", str(tmp_path / "gone"), "--out", str(tmp_path / "eval"))
    assert "gone' is no run folder: it holds no config.json" in said
    baselines = tmp_path / "baselines"
    Run(baselines, {"model": "house", "votes": 3}).close()
    said = sentence(capsys, "eval", "--run", str(baselines), "--out", str(tmp_path / "eval"))
    assert str(baselines) in said, "a run of another recipe is named"


def test_eval_with_an_unknown_seat(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = trained_run(tmp_path, {})
    arguments = ["--run", str(run), "--out", str(tmp_path / "eval"), "--untrained", "critic"]
    assert "no agent named 'critic' in the team" in sentence(capsys, "eval", *arguments)


def test_a_config_file_that_does_not_exist(capsys: pytest.CaptureFixture[str], out: str) -> None:
    said = sentence(capsys, "malt", "--out", out, "--config", "no-such.yaml")
    assert "no options file at 'no-such.yaml'; check --config" in said
    assert "--config needs a file name" in sentence(capsys, "malt", "--out", out, "--config")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.yaml", "wdith: 3\n", "--wdith"),
        ("a.yaml", "sft:\n  rat: 3\n", "--sft.rat"),
        ("a.toml", "wdith = 3\n", "--wdith"),
        ("a.yaml", "width: three\n", "three"),
        ("a.yaml", "width: [1, 2\n", "is no valid options file"),
        ("a.toml", "width = \n", "is no valid options file"),
        ("a.yaml", "- width\n- 3\n", "must hold options as key: value"),
        ("a.yaml", "", "must hold options as key: value"),
        ("a.yaml", "width: 0\n", "width is 0; it must be 1 or above"),
    ],
)
def test_a_config_file_that_is_wrong(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, out: str, name: str, text: str, told: str
) -> None:
    (tmp_path / name).write_text(text)
    assert told in unboxed(refused(capsys, "malt", "--out", out, "--config", str(tmp_path / name)))
    assert not Path(out).exists()


def test_a_config_that_is_a_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path, out: str) -> None:
    assert str(tmp_path) in sentence(capsys, "malt", "--out", out, "--config", str(tmp_path))


@pytest.mark.parametrize("name", ["show", "report"])
def test_show_and_report_of_what_is_no_run(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    said = sentence(capsys, name, str(tmp_path))
    assert f"'{tmp_path}' is no run folder: it holds no config.json" in said
    assert "is no run folder" in sentence(capsys, name, str(tmp_path / "gone"))
    assert "takes one run folder, not nothing" in sentence(capsys, name)
    assert "takes one run folder, not a b" in sentence(capsys, name, "a", "b")


@pytest.mark.parametrize("name", ["malt", "baselines"])
def test_a_model_path_that_is_missing(capsys: pytest.CaptureFixture[str], out: str, name: str) -> None:
    said = sentence(capsys, name, "--out", out, *ASKED[name], "--model", "/no/such/model")
    assert "no model at '/no/such/model'; give a folder that exists" in said


@pytest.mark.parametrize("script", ["", "tests.easy_task", "tests.no_such:answer", "tests.easy_task:no_such"])
def test_a_script_that_is_missing(capsys: pytest.CaptureFixture[str], out: str, script: str) -> None:
    said = sentence(capsys, "malt", "--out", out, *EASY, "--engine.kind", "scripted", "--engine.script", script)
    assert script in said and "script" in said


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--task", "nope"], "unknown task 'nope'"),
        (["--task", "stories", "--level", "99"], "stories has no level '99'"),
        (["--model", "./nothere"], "no model at './nothere'"),
    ],
)
@pytest.mark.parametrize("name", ["malt", "baselines"])
def test_a_dry_run_of_what_cannot_run_fails_too(
    capsys: pytest.CaptureFixture[str], out: str, name: str, options: list[str], told: str
) -> None:
    assert told in sentence(capsys, name, "--out", out, "--dry-run", *options)


SERVER = ["--engine.kind", "openai", "--engine.openai.base-url", "http://x/v1"]


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("malt", ["--train-seats", "verifier", "--dpo-generator"], "dpo_generator has no use"),
        ("malt", [*SERVER, "--engine.openai.names", "generator=one"], "no adapters of verifier, refiner, which are to"),
        ("maft", SERVER, "which are to be trained; give --engine.openai.load-adapters"),
        ("maporl", ["--lora.bits", "4", "--engine.kind", "vllm"], "PPO needs one"),
        ("maporl", [*SERVER, "--engine.openai.load-adapters"], "engine.openai.ids"),
        *(
            (name, ["--lora.targets", "qkv"], "has no LoRA target 'qkv'; it has ")
            for name in ("malt", "maft", "maporl")
        ),
        ("malt", [*SERVER, "--engine.openai.load-adapters", "--lora.targets", "qkv"], "has no LoRA target 'qkv'"),
        ("maporl", ["--making.lora.targets", "qkv"], "has no LoRA target 'qkv'"),
        ("baselines", ["--train", "7"], "--train has no use for baselines, which train on nothing"),
        ("baselines", ["--allow-leaks"], "--allow-leaks has no use for baselines"),
        ("scorer train", ["--scorer.lora.targets", "qkv"], "has no LoRA target 'qkv'"),
    ],
)
def test_a_dry_run_makes_the_checks_of_its_recipe(
    capsys: pytest.CaptureFixture[str], out: str, name: str, options: list[str], told: str
) -> None:
    assert told in sentence(capsys, *name.split(), "--out", out, "--dry-run", *options)


def test_a_mistyped_model_leaves_no_folder_behind(capsys: pytest.CaptureFixture[str], out: str, tmp_path: Path) -> None:
    """So that the mended command may use the same one."""
    (tmp_path / "empty").mkdir()
    for model in ("./nothere", str(tmp_path / "empty")):
        sentence(capsys, "malt", "--out", out, *EASY, "--model", model)
        assert not Path(out).exists()


def test_a_log_line_that_holds_no_turns(capsys: pytest.CaptureFixture[str], out: str) -> None:
    turns = Path(out) / "turns"
    turns.mkdir(parents=True)
    for line in ('{"a": 1}', '{"turns": 3}', '{"turns": [{"a": 1}]}'):
        (turns / "log.jsonl").write_text('{"turns": []}\n' + line + "\n")
        said = refused(capsys, "malt", "--out", out, *QUICK)
        assert f"error: {turns / 'log.jsonl'} line 2 holds no turns; mend or delete it" in said


def test_a_corrupt_config_of_a_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for text in ("{", "[]", '{"config": 3}'):
        (tmp_path / "run" / "config.json").write_text(text)
        said = sentence(capsys, "eval", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "eval"))
        assert "config.json is corrupt" in said


def test_a_config_given_twice(capsys: pytest.CaptureFixture[str], out: str) -> None:
    said = sentence(capsys, "malt", "--out", out, "--config", "a.yaml", "--config=b.yaml")
    assert "--config is given 2 times (a.yaml, b.yaml); give one" in said


def test_eval_takes_the_runs_defaults_also_where_a_file_names_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = trained_run(tmp_path, {})
    (tmp_path / "eval.yaml").write_text(f"run: {run}\n")
    command(["eval", "--config", str(tmp_path / "eval.yaml"), "--out", str(tmp_path / "eval"), "--dry-run"])
    assert json.loads(capsys.readouterr().out)["options"]["task"]["task"] == "tests.easy_task"


def test_errors_reach_the_shell(tmp_path: Path) -> None:
    """As a process: exit code 2, the sentence on stderr, nothing on stdout."""
    code = [sys.executable, "-m", "teamtune.cli", "show", str(tmp_path)]
    done = subprocess.run(code, env=surroundings(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: '{tmp_path}' is no run folder: it holds no config.json\n"


# Files of options, dry runs, help


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    command([*arguments, "--dry-run"])
    return json.loads(capsys.readouterr().out)


YAML = """
task: stories
level: "2"
train: 7
width: 2
dpo_generator: true
train_seats: [generator, refiner]
sampling: {temperature: 0.5, max_tokens: 99}
sft:
  rate: 3.0e-4
  save-every: 7
"""
TOML = """
task = "stories"
level = "2"
train = 7
width = 2
dpo_generator = true
train_seats = ["generator", "refiner"]
sampling = {temperature = 0.5, max_tokens = 99}
[sft]
rate = 3.0e-4
save-every = 7
"""


@pytest.mark.parametrize(("name", "text"), [("a.yaml", YAML), ("a.toml", TOML), ("a.json", None)])
def test_a_config_file_sets_options_and_the_command_line_wins(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, out: str, name: str, text: str | None
) -> None:
    import yaml

    (tmp_path / name).write_text(text or json.dumps(yaml.safe_load(YAML)))
    given = ["malt", "--config", str(tmp_path / name), "--out", out]
    options = planned(capsys, *given)["options"]
    assert (options["task"]["task"], options["task"]["level"], options["task"]["train"]) == ("stories", "2", 7)
    assert (options["width"], options["dpo_generator"], options["train_seats"]) == (2, True, ["generator", "refiner"])
    assert (options["sampling"]["temperature"], options["sampling"]["max_tokens"]) == (0.5, 99)
    assert (options["sft"]["rate"], options["sft"]["save_every"], options["dpo"]["rate"]) == (3e-4, 7, 2e-5)
    more = ["--width", "4", "--no-dpo-generator", "--sft.rate", "1", "--sampling.top-k", "5"]
    more += ["--train-seats", "refiner"]
    for order in ([*given, *more], ["malt", *more, *given[1:]]):
        options = planned(capsys, *order)["options"]
        assert (options["width"], options["dpo_generator"], options["train_seats"]) == (4, False, ["refiner"])
        assert (options["sft"]["rate"], options["sft"]["save_every"], options["sampling"]["top_k"]) == (1.0, 7, 5)
    options = planned(capsys, "malt", f"--config={tmp_path / name}", "--out", out)["options"]
    assert options["width"] == 2


def test_a_config_file_may_hold_what_looks_like_an_option(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, out: str
) -> None:
    """Negative numbers and empty texts are values; a false switch is off."""
    (tmp_path / "a.yaml").write_text("seed: -3\nlevel: ''\ndpo_generator: false\npreference: {nll: 0.5}\n")
    options = planned(capsys, "malt", "--config", str(tmp_path / "a.yaml"), "--out", out)["options"]
    assert (options["seed"], options["task"]["level"], options["dpo_generator"]) == (-3, "", False)
    assert options["preference"]["nll"] == 0.5


def test_the_example_of_a_config_file_is_valid(capsys: pytest.CaptureFixture[str], out: str) -> None:
    examples = sorted((Path(__file__).parent.parent / "examples").glob("*.yaml"))
    assert examples
    for example in examples:
        assert planned(capsys, "malt", "--config", str(example), "--out", out)["options"]["model"]


def test_a_dry_run_counts_and_does_nothing(
    capsys: pytest.CaptureFixture[str], out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teamtune.recipes.malt.main", None)
    found = planned(capsys, "malt", "--out", out, "--train", "100", "--test", "10", "--sampling.max-tokens", "50")
    assert found["options"]["out"] == "run:."
    plan = found["plan"]
    assert plan["generations per training problem"] == 39
    assert plan["training generations"] == 3900
    assert plan["test generations"] == 10 * (9 + 2 * 18 + 9)
    assert plan["generated tokens at most"] == (3900 + 540) * 50
    assert plan["SFT rows at most"] == 100 * 39
    assert plan["DPO pairs at most"] == 100 * (3 * 2 + 9 * 2), "three and nine groups of three, two pairs at most each"
    assert not Path(out).exists()
    found = planned(capsys, "baselines", "--out", out, "--test", "10")
    assert found["plan"]["test generations"] == 10 * 27
    assert not Path(out).exists()


def test_a_plan_counts_what_a_run_then_takes(capsys: pytest.CaptureFixture[str], tiny: str, out: str) -> None:
    arguments = ["malt", "--out", out, "--model", tiny, *QUICK, "--baselines", "all", "--train", "3"]
    plan = planned(capsys, *arguments)["plan"]
    from teamtune.store import read_table

    command(arguments)
    tables = {str(file.parent.relative_to(out)): read_table(file.parent) for file in Path(out).rglob("DONE.json")}
    assert len(tables["turns"]) == plan["training generations"]
    tested = sum(len(table) for name, table in tables.items() if re.fullmatch("test/.*/turns", name))
    assert tested == plan["test generations"]
    assert len(tables["sft-rows"]) <= plan["SFT rows at most"]
    assert len(tables["pairs"]) <= plan["DPO pairs at most"]


@pytest.mark.parametrize("name", ["malt", "baselines", "eval"])
def test_help_lists_the_options(capsys: pytest.CaptureFixture[str], name: str) -> None:
    with pytest.raises(SystemExit) as stop:
        command([name, "--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0
    for option in ("--out", "--task", "--level", "--test", "--sampling.temperature", "--engine.kind", "--seed"):
        assert option in said


def test_help_names_what_is_read_before_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    for name, presets in (
        (["maporl"], True),
        (["scorer", "train"], True),
        (["malt"], False),
        (["scorer", "eval"], False),
    ):
        with pytest.raises(SystemExit, match="0"):
            command([*name, "--help"])
        last = capsys.readouterr().out.splitlines()[-1]
        assert "--config FILE" in last and "--dry-run" in last and ("--preset" in last) == presets, name
    command(["scorer", "--help"])
    assert "teamtune scorer train|eval" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["show", "report"])
def test_help_of_the_commands_that_take_a_folder(capsys: pytest.CaptureFixture[str], name: str) -> None:
    try:
        command([name, "--help"])
    except SystemExit as stop:
        assert stop.code in (0, None)
    said = capsys.readouterr()
    assert name in said.out and "DIR" in said.out


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_without_a_command_all_commands_are_listed(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    command(arguments)
    said = capsys.readouterr().out
    assert all(f"teamtune {name}" in said for name in COMMANDS)


def test_what_the_usage_promises_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Every option that the overview names exists in the command that it is named for."""
    command(["--help"])
    usage = capsys.readouterr().out
    for name in ("malt", "baselines", "eval"):
        line = next(line for line in usage.splitlines() if line.strip().startswith(f"teamtune {name} "))
        with pytest.raises(SystemExit):
            command([name, "--help"])
        options = capsys.readouterr().out
        for option in re.findall(r"--[a-z-]+", line):
            assert f"{option} " in options, f"teamtune {name} has no {option}"


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    import teamtune

    command(["--version"])
    assert capsys.readouterr().out.strip() == teamtune.__version__


# Imports


@pytest.mark.parametrize(
    "module",
    [
        "teamtune",
        "teamtune.protocols.pipeline, teamtune.protocols.debate, teamtune.protocols.solo",
        "teamtune.credit.tree",
        "teamtune.curate.sft, teamtune.curate.pairs",
        "teamtune.tasks, teamtune.tasks.arithmetic, teamtune.tasks.stories, teamtune.grading.number",
        "teamtune.evaluate, teamtune.vote, teamtune.store, teamtune.play, teamtune.cli",
    ],
)
def test_importing_loads_no_torch(module: str) -> None:
    program = f"import sys, {module}; print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], env=surroundings(), capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def imports_of(module: str) -> set[str]:
    """The modules of teamtune that one of them imports anywhere in its text, inside functions too."""
    path = SOURCE.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are absolute"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def modules_under(package: str) -> list[str]:
    files = sorted((SOURCE / package).rglob("*.py"))
    names = [file.relative_to(SOURCE.parent).with_suffix("").parts for file in files]
    return [".".join(parts[:-1] if parts[-1] == "__init__" else parts) for parts in names]


def exists(module: str) -> bool:
    path = SOURCE.joinpath(*module.split(".")[1:])
    return module.startswith("teamtune.") and (path.with_suffix(".py").exists() or (path / "__init__.py").exists())


def reached(module: str) -> set[str]:
    """All that a module imports, directly or through other modules of teamtune."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        for name in imports_of(todo.pop()) - seen:
            seen.add(name)
            if exists(name):
                todo.append(name)
    return seen


@pytest.mark.parametrize("package", ["protocols", "credit", "curate"])
def test_pure_packages_reach_neither_engines_nor_trainers_nor_torch(package: str) -> None:
    names = modules_under(package)
    assert len(names) > 1
    for module in names:
        for name in reached(module):
            assert not re.match(
                r"(torch|transformers|peft|accelerate|teamtune\.(engines|train|recipes|cli))\b", name
            ), f"{module} reaches {name}"


def test_imports_go_one_way() -> None:
    """types <- play <- protocols; nothing below the recipes imports them; nothing but the recipes joins all."""
    allowed = {"types": set(), "play": {"types"}, "vote": {"types"}, "evaluate": {"types"}}
    allowed |= {"jsonl": {"types"}, "track": {"types"}, "identity": {"types"}}
    allowed |= {"launcher": {"types"}, "store": {"types", "identity", "memory", "jsonl", "track", "launcher"}}
    for module, may in allowed.items():
        found = {name.split(".")[1] for name in imports_of(f"teamtune.{module}") if exists(name)}
        assert found <= may, f"{module} imports {found - may}"
    for package in ("protocols", "credit", "curate", "tasks", "grading", "engines", "train"):
        for module in modules_under(package):
            assert not {name for name in imports_of(module) if name.startswith(("teamtune.recipes", "teamtune.cli"))}
