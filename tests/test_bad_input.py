"""Mistakes of a user, each answered in one sentence and with exit code 2."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from teamtune.cli import main as command
from test_cli import QUICK, out, refused, sentence

__all__ = ["out"]  # a fixture


# Options and what is behind them


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--width", "0"], "width is 0; it must be 1 or above"),
        (["--width", "1"], "width is 1; DPO compares siblings"),
        (["--width", "two"], "--width: invalid literal for int() with base 10: 'two'"),
        (["--train-seats", "generator", "--dpo.rate", "1e-3"], "dpo has no use with train_seats generator"),
        (["--train-seats", "generator", "--pair-cap", "3"], "pair_cap has no use with train_seats generator"),
        (["--bogus", "3"], "Unrecognized options: --bogus, 3"),
        (["--sft.rat", "3"], "perhaps you meant --sft.rate"),
        (["--sft.rate", "nan"], "rate is nan; it must be above 0, and finite"),
        (["--dpo.rate", "inf"], "rate is inf; it must be above 0, and finite"),
        (["--preference.beta", "nan"], "beta is nan; it must be above 0, and finite"),
        (["--sampling.temperature", "inf"], "temperature is inf; it must be 0 (greedy) or above, and finite"),
        (["--lora.alpha", "0"], "LoRA alpha is 0; it must be 1 or above"),
        (["--lora.targets", "q_proj,"], "LoRA targets are 'q_proj,'"),
    ],
)
def test_an_option_that_is_wrong_is_told_in_one_sentence(
    capsys: pytest.CaptureFixture[str], out: str, arguments: list[str], said: str
) -> None:
    told = sentence(capsys, "malt", "--out", out, *arguments)
    assert told.startswith(f"error: {said}") or said in told
    assert not Path(out).exists()


def test_a_mistake_in_a_file_names_the_file(capsys: pytest.CaptureFixture[str], out: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("sft: 3\n")
    told = sentence(capsys, "malt", "--out", out, "--config", str(tmp_path / "wrong.yaml"))
    assert "Unrecognized options: --sft, 3" in told
    assert f"(options come from {tmp_path / 'wrong.yaml'} too)" in told


def test_lora_targets_that_the_model_lacks(capsys: pytest.CaptureFixture[str], tiny: str, out: str) -> None:
    told = sentence(capsys, "malt", "--out", out, "--model", tiny, "--lora.targets", "q_proj,nothing_here")
    assert "has no LoRA target 'nothing_here'; it has " in told and "q_proj" in told
    told = sentence(capsys, "malt", "--out", out, "--model", tiny, "--lora.targets", "q_proj,lm_head")
    assert "LoRA target 'lm_head'" in told and "is the output layer, whose logits all agents share; it has " in told
    assert "lm_head" not in told.partition("it has ")[2]
    assert not Path(out).exists()


def test_weights_that_are_cut_short(capsys: pytest.CaptureFixture[str], tiny: str, out: str, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    told = sentence(capsys, "malt", "--out", out, "--model", str(tmp_path / "cut"))
    assert f"'{weights}' holds no weights" in told
    assert not Path(out).exists()


def test_a_broken_chat_template(capsys: pytest.CaptureFixture[str], tiny: str, out: str, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "broken")
    (tmp_path / "broken" / "chat_template.jinja").write_text("{{ bad")
    told = sentence(capsys, "malt", "--out", out, "--model", str(tmp_path / "broken"))
    assert "the chat template of model" in told and "is broken" in told


def test_a_chat_template_that_loses_turns(
    capsys: pytest.CaptureFixture[str], tiny: str, out: str, tmp_path: Path
) -> None:
    shutil.copytree(tiny, tmp_path / "lossy")
    (tmp_path / "lossy" / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}")
    told = sentence(capsys, "malt", "--out", out, "--model", str(tmp_path / "lossy"))
    assert "loses what is said: 'one' of a conversation of 3 messages is not in" in told
    assert not Path(out).exists()


def test_a_run_folder_that_is_the_current_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "give the run a folder of its own" in sentence(capsys, "malt", "--out", "", *QUICK)


def test_a_config_that_lacks_options(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"config": {"__type__": "Malt"}}')
    assert "config.json lacks " in sentence(capsys, "show", str(tmp_path))
    assert "config.json lacks " in sentence(capsys, "eval", "--run", str(tmp_path), "--out", str(tmp_path / "e"))


def test_a_task_of_ones_own_that_fails(
    capsys: pytest.CaptureFixture[str], out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    programs = {
        "fails_on_import": ("1 / 0", "cannot be imported: ZeroDivisionError"),
        "loads_dicts": (
            "def load(split, count, seed=0): return [{}]\ndef grade(p, t): return 1",
            "it must give teamtune.Problem",
        ),
        "loads_otherwise": ("def load(): return []\ndef grade(p, t): return 1", "it is called as load(split, count"),
        "grades_numbers": (
            "from tests.easy_task import load\ndef grade(p, t): return 1.0",
            "gave a float; it must give teamtune.Grade",
        ),
    }
    for name, (program, said) in programs.items():
        (tmp_path / f"{name}.py").write_text(program)
        quick = ["--engine.kind", "scripted", "--engine.script", "tests.easy_task:answer", "--baselines", "none"]
        small = ["--train", "2", "--test", "2"]
        told = refused(capsys, "malt", "--task", name, "--out", f"{out}-{name}", *small, *quick)
        assert said in told and told.splitlines()[-1].startswith("error: ")


def test_ctrl_c_leaves_a_sentence(
    capsys: pytest.CaptureFixture[str], out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(args: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("teamtune.cli.malt", interrupted)
    with pytest.raises(SystemExit, match="130"):
        command(["malt", "--out", out])
    assert "stopped; the same command goes on from here" in capsys.readouterr().err
