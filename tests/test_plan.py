"""The plan: exact sizes, memory beside what a fit really takes, work beside what a run really did."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import surroundings
from teamtune import machine
from teamtune.cli import main as command
from teamtune.credit.discussion import INCENTIVES
from teamtune.engines import EngineSpec
from teamtune.engines.spec import Openai, Vllm
from teamtune.planning import Need, hours, needs, outcome
from teamtune.protocols.pipeline import ROLES
from teamtune.recipes.maft_team import Maft
from teamtune.recipes.malt import Malt
from teamtune.recipes.maporl_team import Maporl
from teamtune.recipes.stored import stored_options
from teamtune.recipes.workload import Lengths, load_of
from teamtune.reporting import read
from teamtune.resources import DEVICES, Device, at_once, seconds, training_memory, weights
from teamtune.shapes import shape_of, shape_of_all
from teamtune.tasks import TaskSpec
from teamtune.train.fit import Fit
from teamtune.train.team import Lora, TeamModel
from teamtune.types import Agent, Sampling, Team, TeamtuneError

STAGES = {"training": ["sft", "dpo"], "generating": ["turns", "test/malt/turns"]}
PUBLISHED = {
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "microsoft/Phi-3-mini-128k-instruct": 3_821_079_552,
    "Qwen/Qwen2.5-3B-Instruct": 3_085_938_688,
    "mistralai/Mistral-7B-Instruct-v0.3": 7_248_023_552,
}
"""parameters as the safetensors indices of the models count them"""


@pytest.mark.parametrize("name", PUBLISHED)
def test_known_models_have_the_parameters_that_they_are_published_with(name: str) -> None:
    assert shape_of(name).parameters == PUBLISHED[name]


def test_a_shape_is_that_of_the_real_model(tiny: str) -> None:
    lora = Lora(rank=4, alpha=8)
    shape = shape_of(tiny, lora)
    model = TeamModel.open(Team(tiny, (Agent("one"),)), ["one"], lora)
    assert shape.adapter == sum(p.numel() for p in model.parameters("one"))
    assert shape.parameters == sum(p.numel() for n, p in model.model.named_parameters() if "lora_" not in n)
    assert shape.cache == 2 * 2 * 1 * 32 and shape.layers == 2 and shape.width == 32


def test_a_model_without_a_shape_is_told(tmp_path: Path) -> None:
    with pytest.raises(TeamtuneError, match="no model at"):
        shape_of(str(tmp_path / "nothing"))
    with pytest.raises(TeamtuneError, match=r"no shape of 'some/model'"):
        shape_of("some/model")


def test_adapters_cost_little_and_copies_much() -> None:
    """Six agents of an 8B model: the base once, and a few gigabytes more."""
    shape = shape_of("meta-llama/Llama-3.1-8B-Instruct")
    one, six = (training_memory(shape, n, Fit(checkpoint=True), Lora()) for n in (1, 6))
    assert sum(six.values()) < 1.2 * sum(one.values())
    assert weights(shape) == pytest.approx(16.06, abs=0.01)
    assert weights(shape, bits=4) == pytest.approx(5.81, abs=0.05), "the output layer stays whole, too"


def test_the_work_of_a_tree_by_hand() -> None:
    cfg = Malt(Path("x"), width=2, baselines="none", votes=1, sampling=Sampling(max_tokens=100))
    load = load_of(cfg, Lengths(question=10, answer=5))
    n, test = cfg.task.train, cfg.task.test
    assert load.work.answers == n * (2 + 4 + 8) + test * 3
    assert load.work.written == 5 * load.work.answers
    assert load.work.read == n * (2 * 10 + 4 * 15 + 8 * 20) + test * 3 * 15
    sft = 1 * 15 + 2 * 20 + 4 * 25  # half of the turns, prompt and answer
    pairs = 2 * (2 * 0.5 * 20 + 4 * 0.5 * 25)  # half a pair a group of two siblings, both answers
    assert load.fits == ((cfg.sft, n * sft), (cfg.dpo, n * pairs)) and load.work.forward == n * pairs
    assert load.adapters == 3


def test_every_method_has_a_load() -> None:
    for cfg in (Maft(Path("x")), Maporl(Path("x"))):
        load = load_of(cfg, Lengths())
        assert load.work.answers > 0 and load.trained > 0 and load.adapters >= 2
        assert all(need.total > 0 for need in needs(cfg, load, shape_of("house")))
    with pytest.raises(TeamtuneError, match="there is no plan of Fit"):
        load_of(Fit(), Lengths())


def test_a_plan_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    command(["plan", "malt", "--model", "Qwen/Qwen2.5-3B-Instruct", "--task", "math", "--train", "2500"])
    told = " ".join(capsys.readouterr().out.split())
    assert "3.09 G parameters, 3 adapters of 29.9 M" in told and "shard" in told
    for name, *_ in DEVICES:
        assert name.split(" (")[0] in told
    command(["plan", "maporl", "--preset", "official-code", "--model", "house", "--lengths.question", "99"])
    told = capsys.readouterr().out
    assert "adapters of" in told and "shard" not in told, "PPO trains in one process"


LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


def needed(kind: str = "transformers", cfg: Any = None, **more: Any) -> dict[str, Need]:
    """The rows of a plan of Llama 8B, by what they are for."""
    cfg = replace(cfg or Malt(Path("x"), model=LLAMA), engine=EngineSpec(kind, **more))  # type: ignore[arg-type]
    return {need.way: need for need in needs(cfg, load_of(cfg, Lengths()), shape_of(LLAMA))}


def test_an_engine_needs_memory_where_it_runs() -> None:
    """A server's is its own; vLLM needs room for one text of its context, in its share of the card."""
    assert "generating" not in needed("openai", openai=Openai("http://127.0.0.1/v1"))
    small = needed("vllm", vllm=Vllm(context=8192, memory=0.92))["generating"]
    assert small.parts["cache"] == pytest.approx(8192 * 2 * 32 * 8 * 128 * 2 / 1e9)
    assert small.fits == "24 GB" and needed("vllm", vllm=Vllm(context=8192, memory=0.5))["generating"].fits == "48 GB"
    assert needed("vllm")["generating"].parts["cache"] > 16, "all of the model's own context"


def test_ppo_needs_both_at_once() -> None:
    cfg = Maporl(Path("x"), model=LLAMA)
    embedded, vllm = needed(cfg=cfg), needed("vllm", cfg=cfg, vllm=Vllm(memory=0.4, context=4096))
    assert embedded["both at once"].parts["weights"] == embedded["training"].parts["weights"], "one base for both"
    assert embedded["both at once"].total > embedded["training"].total
    assert vllm["beside vLLM"].parts == vllm["training"].parts and vllm["beside vLLM"].share == pytest.approx(0.6)


def test_hours_are_those_of_what_fits() -> None:
    cfg = replace(Malt(Path("x"), model=LLAMA), engine=EngineSpec("vllm", vllm=Vllm(context=8192)))
    load, shape = load_of(cfg, Lengths()), shape_of(LLAMA)
    small, big = (hours(cfg, load, shape, device) for device in (DEVICES[0], DEVICES[2]))
    assert "training" not in small and small["writing"] > big["writing"] > 0, "fewer answers at once"
    served = replace(cfg, engine=EngineSpec("openai", openai=Openai("http://127.0.0.1/v1")))
    assert hours(served, load, shape, DEVICES[2]).keys() == {"training"}
    one, many = (seconds(shape, load.work, DEVICES[2], load.fits, rows)["writing"] for rows in (1, 64))
    seen = (load.work.read + load.work.written / 2) / load.work.answers
    moved = weights(shape) * 1e9 + seen * shape.cache * 2
    assert one == pytest.approx(load.work.written * moved / (3.35e12 * 0.5)) and one / 64 < many < one


def test_memory_is_that_of_the_largest_fit_and_hours_are_those_of_all() -> None:
    """DPO computes nothing again here, so its activations decide, whatever SFT does."""
    sparing, half, whole = (
        needed(cfg=Malt(Path("x"), model=LLAMA, sft=Fit(checkpoint=s), dpo=Fit(checkpoint=d)))["training"]
        for s, d in ((True, True), (True, False), (False, False))
    )
    assert sparing.total < half.total == whole.total
    alone = Malt(Path("x"), model=LLAMA, train_seats=("generator",), sft=Fit(checkpoint=True))
    assert needed(cfg=alone)["training"].parts["activations"] == sparing.parts["activations"]
    shape, load = shape_of(LLAMA), load_of(Malt(Path("x"), model=LLAMA), Lengths())
    (sft, rows), (_, pairs) = load.fits
    again = [(replace(sft, checkpoint=True), rows), load.fits[1]]
    plain, slower = (seconds(shape, load.work, DEVICES[2], fits, 1)["training"] for fits in (load.fits, again))
    assert slower / plain == pytest.approx(
        (3 * rows + 2 * pairs + load.work.forward) / (2 * load.trained + load.work.forward)
    )


def test_a_base_that_is_spread_is_trained_on_by_all_devices_at_once() -> None:
    cfg = Malt(Path("x"), model=LLAMA, sft=Fit(checkpoint=True), dpo=Fit(checkpoint=True))
    load, shape = load_of(cfg, Lengths()), shape_of(LLAMA)
    one, spread = (hours(replace(cfg, lora=Lora(shard=count > 1)), load, shape, DEVICES[3], count) for count in (1, 16))
    assert spread["training"] == pytest.approx(one["training"] / 16)
    sharded = replace(cfg, lora=Lora(shard=True))
    eight, sixteen = (needs(sharded, load, shape, processes=count)[0].parts["weights"] for count in (8, 16))
    assert sixteen < eight < 5


def test_a_plan_for_several_processes(capsys: pytest.CaptureFixture[str]) -> None:
    command(["plan", "malt", "--model", LLAMA, "--processes", "4"])
    told = capsys.readouterr().out
    assert "memory is that of each of 4 devices, and hours are those of all at once" in told and "shard 4" in told
    for args in (["malt", "--processes", "none"], ["maporl", "--model", LLAMA, "--processes", "2"]):
        with pytest.raises(SystemExit):
            command(["plan", *args])
    said = capsys.readouterr().err
    assert "--processes is none" in said and "PPO trains in one" in said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nothing"], "takes malt, maft, maporl or a run folder, not nothing"),
        (["malt", "--lengths.question", "0"], "a question has 1 id or more"),
        (["malt", "--model", "some/model"], "no shape of 'some/model'"),
        (["malt", "--dry-run"], "--dry-run has no use"),
        (["malt", "--rows-only", "--processes", "4"], "processes is 4 and rows alone train nothing"),
        (
            ["malt", "--rows-only", "--engine.kind", "openai", "--engine.openai.base-url", "http://x/v1", "--here"],
            "--here has no use where all of the work is a server's",
        ),
        (["runs/none", "--processes", "2"], "takes malt, maft, maporl or a run folder, not runs/none"),
        (
            ["malt", "--model", "Qwen/Qwen2.5-3B-Instruct", "--lora.targets", "qkv_proj"],
            "has no LoRA target 'qkv_proj'",
        ),
    ],
)
def test_mistakes_are_told(args: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command(["plan", *args])
    assert stop.value.code == 2 and said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("args", [["--help"], ["malt", "-h"]])
def test_help_names_the_options_of_a_plan(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        command(["plan", *args])
    except SystemExit as stop:
        assert stop.code == 0
    printed = capsys.readouterr().out
    assert "--lengths.answer" in printed and "--processes" in printed
    assert ("--dpo-generator" in printed) == (args[0] == "malt")


def test_rows_alone_are_planned_without_training(capsys: pytest.CaptureFixture[str]) -> None:
    """By a model that is here: what it writes. By a server's, which has no shape here: how much it will write."""
    asked = ["malt", "--train", "100", "--rows-only"]
    command(["plan", *asked, "--model", LLAMA])
    printed = " ".join(capsys.readouterr().out.split())
    assert "3,900 answers" in printed and "0.0 M trained on" in printed
    assert "generating" in printed and "training" not in printed and "adapters of" not in printed
    command(["plan", *asked, "--model", "gpt-x", "--engine.kind", "openai", "--engine.openai.base-url", "http://x/v1"])
    assert "3,900 answers" in (printed := capsys.readouterr().out) and "all of it is the server's" in printed
    command(["plan", *asked, "--model", LLAMA, "--turns-from", "runs/other"])
    assert "0 answers; 0.0 M ids read, 0.0 M written" in " ".join(capsys.readouterr().out.split())


def test_an_engine_on_several_devices_takes_a_part_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    cfg = Malt(Path("x"), model=LLAMA, engine=EngineSpec("vllm", vllm=Vllm(context=4096)))
    wide = replace(cfg, engine=EngineSpec("vllm", vllm=Vllm(context=4096, tensor_parallel=4)))
    load, shape = load_of(cfg, Lengths()), shape_of(LLAMA)
    one, four = ({need.way: need for need in needs(each, load, shape)}["generating"].parts for each in (cfg, wide))
    for part in ("weights", "cache"):
        assert four[part] == one[part] / 4
    assert four["adapters"] == one["adapters"]
    spent, less = (hours(each, load, shape, DEVICES[3]) for each in (cfg, wide))
    assert less["reading"] == spent["reading"] / 4 and less["writing"] < spent["writing"]
    command(["plan", "malt", "--model", LLAMA, "--engine.kind", "vllm", "--engine.vllm.tensor-parallel", "4"])
    assert "memory is that of each of 4 devices" in " ".join(capsys.readouterr().out.split())


def test_four_bits_are_written_from_by_the_embedded_engine_alone() -> None:
    cfg = Malt(Path("x"), model=LLAMA, lora=Lora(bits=4))
    load, shape = load_of(cfg, Lengths()), shape_of(LLAMA)
    four, sixteen = (hours(replace(cfg, lora=Lora(bits=bits)), load, shape, DEVICES[3]) for bits in (4, 16))
    assert four["writing"] < sixteen["writing"] and four["reading"] == sixteen["reading"]
    served = [
        replace(cfg, lora=Lora(bits=bits), engine=EngineSpec("vllm", vllm=Vllm(context=4096))) for bits in (4, 16)
    ]
    assert hours(served[0], load, shape, DEVICES[3])["writing"] == hours(served[1], load, shape, DEVICES[3])["writing"]


def test_rivals_that_train_are_planned() -> None:
    trained = lambda cfg: load_of(cfg, Lengths(10, 5)).trained  # noqa: E731
    alone = Maft(Path("x"), baselines=())
    first, later = 15, 25
    each = alone.task.train * alone.sft.epochs * alone.agents
    assert trained(alone) == each * (first + later)
    assert trained(replace(alone, baselines=("majority-ft",))) == trained(alone) + each * first
    assert trained(replace(alone, baselines=("majority", "debate"))) == trained(alone)
    team = Maporl(Path("x"), baselines=(), scorer="grader")
    assert trained(replace(team, baselines=("no-collaboration",))) == trained(team)
    assert trained(replace(team, baselines=("incentives",))) == trained(team) * (1 + len(INCENTIVES))
    frozen = trained(replace(team, baselines=("frozen-partners",)))
    assert frozen == pytest.approx(trained(team) * (1 + 1 / team.agents))


def test_a_finished_run_is_planned_with_all_of_its_options(brief: str, tmp_path: Path) -> None:
    """Those too that change nothing of what is found."""
    run = tmp_path / "run"
    line = ["malt", "--task", "tests.easy_task", "--train", "6", "--test", "2", "--width", "2", "--votes", "1"]
    line += ["--model", brief, "--sampling.max-tokens", "10", "--baselines", "none", "--out", str(run)]
    command([*line, "--sft.checkpoint", "--sft.micro-tokens", "64", "--engine.rows", "3"])
    cfg = stored_options(Malt, run, whole=True)
    assert cfg.sft.checkpoint and cfg.sft.micro_tokens == 64 and cfg.engine.rows == 3 and cfg.out == run
    command(["plan", str(run), "--processes", "2"])


SMALL = {
    "maft": ["--baselines", "majority-ft", "single-ft", "--measures.no-likelihood"],
    "maporl": ["--scorer", "grader", "--baselines", "frozen-partners", "--ppo.updates", "2", "--ppo.problems", "3"],
}


@pytest.mark.parametrize("method", SMALL)
def test_what_rivals_learn_from_is_planned_and_counted(brief: str, tmp_path: Path, method: str) -> None:
    """Planned and counted alike: with the rivals' share, within what a vote and the lengths leave open."""
    run = tmp_path / "run"
    line = [method, "--task", "tests.easy_task", "--train", "12", "--test", "3", "--model", brief]
    command([*line, "--sampling.max-tokens", "24", "--out", str(run), *SMALL[method]])
    kind = {"maft": Maft, "maporl": Maporl}[method]
    found = {w: (planned, took) for w, planned, took in outcome(run, stored_options(kind, run, True), Lengths(110, 8))}
    for what in ("M ids read", "M ids written", "M ids trained on"):
        planned, took = found[what]
        assert planned is not None
        assert 1 / 3 < took / planned < 3, what
    assert found["hours, generating"][1] > 0 and found["hours, training"][1] > 0


@pytest.mark.parametrize("kind", [Maft, Maporl])
def test_a_plan_looks_at_no_data(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    monkeypatch.setattr(TaskSpec, "load", None)
    cfg = kind(out=Path("never"), task=TaskSpec("data", data="not-here.jsonl", grader="number", train=20, test=10))
    more = load_of(replace(cfg, eval_tasks=("gsm8k",)), Lengths())
    assert more.work.answers > load_of(cfg, Lengths()).work.answers > 0


HERE = Device("this machine (made up)", 16, 2e11, 1e11, 2e10, on_cpu=True)


def test_hours_are_told_of_this_machine_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("teamtune.machine.here", lambda: HERE)
    asked = ["plan", "malt", "--task", "arithmetic", "--model"]
    command([*asked, "house", "--here"])
    lines = [[cell.strip() for cell in line.split("│")] for line in capsys.readouterr().out.splitlines()]
    [told] = [line[2:-1] for line in lines if HERE.name in line]
    cfg = Malt(Path("x"))
    cfg = replace(cfg, task=replace(cfg.task, task="arithmetic"))
    found = hours(cfg, load_of(cfg, Lengths()), shape_of("house"), HERE)
    spent = [found[part] for part in ("reading", "writing", "training")]
    assert told == [f"{value:.2f}" for value in (*spent, sum(spent))] and min(spent) > 0
    command([*asked, LLAMA, "--here"])
    [told] = [line for line in capsys.readouterr().out.splitlines() if HERE.name in line]
    assert "does not fit" in told, "32 GB in float32"
    command([*asked, "house"])
    assert HERE.name not in capsys.readouterr().out


def test_precision_decides_memory_and_speed() -> None:
    """Of the engine and of PPO's base by engine.dtype, of a fit by its own."""
    shape, cfg = shape_of(LLAMA), Maporl(Path("x"), model=LLAMA)
    low, wide = (needed(cfg=cfg, dtype=dtype) for dtype in ("bfloat16", "float32"))
    for way in ("training", "generating", "both at once"):
        assert wide[way].parts["weights"] == 2 * low[way].parts["weights"], way
    short, long = (needed(cfg=Malt(Path("x"), model=LLAMA, dpo=Fit(precision=p))) for p in ("bfloat16", "float32"))
    assert long["training"].parts["activations"] == 2 * short["training"].parts["activations"]
    assert long["training"].parts["weights"] == short["training"].parts["weights"]
    load, card = load_of(Malt(Path("x"), model=LLAMA), Lengths()), DEVICES[1]
    fits = [[(Fit(precision=p), 1000)] for p in ("auto", "float32")]
    auto, slow = (seconds(shape, replace(load.work, forward=0), card, own, 0)["training"] for own in fits)
    assert slow / auto == pytest.approx(card.low / card.wide)
    reads = [seconds(shape, load.work, HERE, (), 8, EngineSpec(dtype=d))["reading"] for d in ("auto", "bfloat16")]
    assert reads[0] / reads[1] == pytest.approx(HERE.low / HERE.wide), "float32 by itself on a CPU"


def test_vllm_on_a_cpu_keeps_a_cache_of_its_own_size() -> None:
    """No share of the memory is its there; and where one text has no room it does not open."""
    shape = shape_of("house")
    spec = EngineSpec("vllm", vllm=Vllm())
    assert at_once(shape, 3, spec, 1000, HERE) == 2**30 // (1000 * shape.cache * 4) < spec.rows
    assert at_once(shape, 3, replace(spec, vllm=Vllm(cache_gb=0.5)), 1000, HERE) == 2**29 // (1000 * shape.cache * 4)
    wide = shape_of("Qwen/Qwen2.5-3B-Instruct")
    assert wide.context * wide.cache * 4 > 2**30
    assert (
        at_once(wide, 3, spec, 500, replaced(gb=64.0))
        == 0
        < at_once(wide, 3, short_context(spec), 500, replaced(gb=64.0))
    )
    cfg = Maporl(Path("x"), engine=spec)
    beside = {need.way: need for need in needs(cfg, load_of(cfg, Lengths()), shape, on_cpu=True)}["beside vLLM"]
    assert beside.share == 1 and beside.parts["cache"] == pytest.approx(2**30 / 1e9)
    assert hours(cfg, load_of(cfg, Lengths()), shape, HERE).keys() == {"reading", "writing", "training"}


def replaced(**more: float) -> Device:
    return HERE._replace(**more)


def short_context(spec: EngineSpec) -> EngineSpec:
    return replace(spec, vllm=replace(spec.vllm, context=2048))


def test_a_model_that_turns_long_texts_otherwise_is_planned_for_its_first_length(
    capsys: pytest.CaptureFixture[str],
) -> None:
    phi = "microsoft/Phi-3-mini-128k-instruct"
    assert shape_of(phi).context == 4096
    engine = ["--engine.kind", "vllm", "--engine.vllm.context"]
    with pytest.raises(SystemExit):
        command(["plan", "malt", "--model", phi, *engine, "8192"])
    assert "engine.vllm.context is 8192 and the model's 4096" in capsys.readouterr().err
    command(["plan", "maft", "--model", phi, *engine, "4096", "--sampling.max-tokens", "2048"])
    assert "the model reads 4,096: longer ones are cut off" in " ".join(capsys.readouterr().out.split())


def test_all_bases_of_a_team_are_planned() -> None:
    qwen = "Qwen/Qwen2.5-3B-Instruct"
    one, other, both = shape_of(LLAMA), shape_of(qwen), shape_of_all((LLAMA, qwen, LLAMA))
    assert both.bases == 2 and both.context == 32768
    assert both.parameters == pytest.approx((one.parameters + other.parameters) / 2)
    cfg = Maporl(Path("x"), model=LLAMA, agents=2, partners=(qwen,), share="agent", sizes=("2x3",))
    found = {need.way: need for need in needs(cfg, load_of(cfg, Lengths()), both)}
    for way in ("training", "generating"):
        assert found[way].parts["weights"] == pytest.approx(weights(one) + weights(other), rel=1e-6)


def test_ppo_is_held_against_what_it_needs_at_once(brief: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    line = ["maporl", "--task", "tests.easy_task", "--train", "6", "--test", "2", "--model", brief]
    line += ["--scorer", "grader"]
    line += ["--sampling.max-tokens", "10", "--ppo.updates", "1", "--ppo.problems", "3", "--out", str(run)]
    command([*line, "--baselines"])
    told = [what for what, _, _ in outcome(run, stored_options(Maporl, run), Lengths(110, 6))]
    assert "GB, both at once" in told and "GB, training" not in told


def test_what_this_machine_can_do_is_measured() -> None:
    found = machine.here()
    assert found.on_cpu == (machine.device().type == "cpu") and found.gb > 0.5
    assert 1e8 < found.wide < 1e16 and 1e8 < found.low < 1e16 and 1e7 < found.moved < 1e14


def test_a_run_is_held_against_its_plan(
    brief: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teamtune.machine.here", lambda: HERE)
    run = tmp_path / "run"
    line = ["malt", "--task", "tests.easy_task", "--train", "6", "--test", "3", "--width", "2", "--votes", "1"]
    line += ["--model", brief, "--sampling.max-tokens", "10", "--baselines", "none", "--out", str(run)]
    # A process of its own, whose memory is the run's.
    subprocess.run([sys.executable, "-m", "teamtune", *line], check=True, env=surroundings(), capture_output=True)
    found = {what: (planned, took) for what, planned, took in outcome(run, stored_options(Malt, run), Lengths(110, 6))}
    assert found["answers"][0] == found["answers"][1] == 6 * 14 + 3 * 3
    for what in ("M ids read", "M ids written"):
        planned, took = found[what]
        assert planned is not None
        assert 0.3 < took / planned < 3
    for what in ("GB, training", "GB, generating"):
        planned, took = found[what]
        assert planned is not None
        assert 0.5 < took / planned < 2, what
    trained = sum(line[f"{a}/tokens"] for line in read.metrics(run) for a in ROLES if f"{a}/tokens" in line)
    assert found["M ids trained on"][1] == trained / 1e6 > 0
    took = lambda at: json.loads((run / at / "DONE.json").read_text())["seconds"]  # noqa: E731
    spent = {part: sum(map(took, stages)) for part, stages in STAGES.items()}
    cfg = stored_options(Malt, run)
    planned = hours(cfg, load_of(cfg, Lengths(110, 6)), shape_of(brief, cfg.lora), HERE)
    assert found["hours, training"] == (planned["training"], spent["training"] / 3600)
    assert found["hours, generating"] == (planned["reading"] + planned["writing"], spent["generating"] / 3600)
    command(["plan", str(run), "--lengths.question", "30"])
    assert "happened / planned" in " ".join(capsys.readouterr().out.split())


def test_what_an_activation_takes_is_about_what_is_reckoned(tmp_path: Path) -> None:
    """Counted, not timed: the tensors that autograd keeps for the way back, beside the plan's bytes."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from teamtune.models import HOUSE
    from teamtune.resources import ACTIVATION

    config: Any = LlamaConfig.from_pretrained(HOUSE, hidden_size=256, intermediate_size=768, num_attention_heads=4)
    config.num_key_value_heads = 4
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(HOUSE).save_pretrained(tmp_path)
    model = TeamModel.open(Team(str(tmp_path), (Agent("one"),)), ["one"], Lora(rank=8))
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    held = {p.untyped_storage().data_ptr() for p in model.model.parameters()}
    ids = torch.randint(5, 1000, (2, 200))
    low = torch.autocast("cpu", dtype=torch.bfloat16)
    with low, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        states = model.states(ids, ["one", "one"])
    bytes_kept = sum(size for where, size in kept.items() if where not in held)
    reckoned = ids.numel() * config.num_hidden_layers * ACTIVATION * (256 + 768)
    assert states.requires_grad and 0.5 < bytes_kept / reckoned < 2
