"""Recipes on a base in four bits, to their end: what is sampled from is what was trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from teamtune.cli import main as command
from teamtune.engines import EngineSpec
from teamtune.models import load_model
from teamtune.recipes.evaluation import trained_team
from teamtune.train.examples import Example
from teamtune.train.forward import batch_of, logprobs
from teamtune.train.team import Lora, TeamModel
from teamtune.types import Agent, Sampling, Team

functional = pytest.importorskip("bitsandbytes").functional
SMALL = ["--task", "tests.easy_task", "--train", "12", "--test", "2", "--sampling.max-tokens", "12", "--lora.bits", "4"]


@pytest.fixture(scope="module")
def rough(brief: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model of weights so large that four bits change what it says: another base for all proofs."""
    path = str(tmp_path_factory.mktemp("rough"))
    shape = {"hidden_size": 128, "intermediate_size": 256, "initializer_range": 0.2}
    LlamaForCausalLM(LlamaConfig.from_pretrained(brief, **shape)).save_pretrained(path)
    for part in (AutoTokenizer, GenerationConfig):
        part.from_pretrained(brief).save_pretrained(path)
    return path


def test_malt_and_an_evaluation_of_its_team(rough: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    args = [
        "--width",
        "2",
        "--threshold",
        "0",
        "--votes",
        "1",
        "--baselines",
        "base",
        "--sft.batch",
        "4",
        "--dpo.batch",
        "4",
    ]
    command(["malt", *SMALL, *args, "--model", rough, "--out", str(out)])
    assert (out / "comparison" / "DONE.json").exists()
    assert json.loads((out / "sft" / "DONE.json").read_text())
    assert trained_team(out, Sampling(), EngineSpec()).bits == 4
    command(["eval", "--run", str(out), "--out", str(tmp_path / "eval"), "--test", "2"])
    assert (tmp_path / "eval" / "comparison" / "DONE.json").exists()


def test_gradients_are_those_of_the_weights_that_four_bits_stand_for(rough: str, tmp_path: Path) -> None:
    """Also after passes without gradients (a reference, a proof, an answer), for which bitsandbytes changes its layout
    on some CPUs and loses gradients by it."""
    four = TeamModel.open(Team(rough, (Agent("one"),), bits=4), ["one"], Lora(rank=4, bits=4))
    plain: Any = LlamaForCausalLM.from_pretrained(rough)
    with torch.no_grad():
        for name, module in load_model(rough, bits=4)[0].named_modules():
            if hasattr(module, "quant_state") or hasattr(getattr(module, "weight", None), "quant_state"):
                weight = functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
                plain.get_submodule(name).weight.copy_(weight)
    plain.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(rough).save_pretrained(tmp_path)
    whole = TeamModel.open(Team(str(tmp_path), (Agent("one"),)), ["one"], Lora(rank=4))

    def gradients(model: TeamModel) -> list[torch.Tensor]:
        ids, mask = batch_of(model, [Example([5, 6, 7], [8, 9, 10])])
        with torch.no_grad():
            logprobs(model, ids, ["one"], mask)
        return list(torch.autograd.grad(logprobs(model, ids, ["one"], mask)[mask].sum(), list(model.parameters("one"))))

    wanted = gradients(whole)
    assert any(one.abs().sum() > 0 for one in wanted)
    for one, other in zip(gradients(four), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_maporl(rough: str, tmp_path: Path) -> None:
    args = ["--scorer", "grader", "--turns", "2", "--sizes", "2x2", "--ppo.updates", "1", "--ppo.problems", "2"]
    args += ["--ppo.fit.epochs", "1", "--ppo.fit.rate", "1e-2", "--baselines", "off-the-shelf"]
    command(["maporl", *SMALL, *args, "--model", rough, "--out", str(tmp_path / "run")])
    assert (tmp_path / "run" / "comparison" / "DONE.json").exists()


def test_a_scorer_judges_on_the_base_that_it_was_trained_on(
    rough: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command(["maporl", *SMALL, "--model", rough, "--ppo.problems", "2", "--out", str(tmp_path / "run")])
    told = " ".join(capsys.readouterr().err.split())
    assert "the scorer's base is held in 16 bits and the team's in 4 (lora.bits)" in told
