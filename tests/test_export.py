"""What agents learn from, in other trainers' files; and runs that stop once it is made."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from teamtune.cli import main as command
from teamtune.planning import outcome
from teamtune.recipes.maft_team import Maft
from teamtune.recipes.malt import Malt
from teamtune.recipes.stored import stored_options
from teamtune.recipes.workload import Lengths
from teamtune.store import read_table

SMALL = ["--task", "tests.easy_task", "--train", "6", "--test", "2"]
QUICK = ["--engine.kind", "scripted", "--engine.script", "tests.easy_task:answer"]


@pytest.fixture(scope="module")
def malt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of MALT by a model that nobody has here."""
    run = tmp_path_factory.mktemp("malt") / "run"
    command(["malt", *SMALL, *QUICK, "--width", "2", "--model", "nobody/has-this", "--rows-only", "--out", str(run)])
    return run


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def sentence(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    with pytest.raises(SystemExit) as stop:
        command(list(args))
    assert stop.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_a_run_may_stop_at_its_rows(malt: Path) -> None:
    stages = {str(file.parent.relative_to(malt)) for file in malt.rglob("DONE.json")}
    assert stages == {"problems/train", "turns", "grades", "values", "sft-rows", "pairs"}
    assert (malt / "report.md").exists()


@pytest.mark.parametrize("format", ["openai-finetune", "trl", "chat-jsonl"])
def test_every_row_is_in_its_agents_file(
    malt: Path, tmp_path: Path, format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command(["export", str(malt), "--format", format, "--out", str(tmp_path / "files")])
    told = capsys.readouterr().out
    for stage in ("sft-rows", "pairs"):
        rows = read_table(malt / stage).rows()
        for agent, count in Counter(row["agent"] for row in rows).items():
            file = tmp_path / "files" / stage / f"{agent}.jsonl"
            assert len(lines(file)) == count and f"{file}: {count} rows" in told
            own = [row for row in rows if row["agent"] == agent]
            for row, line in zip(own, lines(file), strict=True):
                check(row, line, format)
    assert len(list((tmp_path / "files").rglob("*.jsonl"))) == 3 + 2


def check(row: dict[str, Any], line: dict[str, Any], format: str) -> None:
    """The line holds the row's prompt and answers, in the shape that the format's readers document."""
    prompt = row["messages"]
    said = lambda text: [{"role": "assistant", "content": text}]  # noqa: E731
    if "chosen" not in row:
        whole = [*prompt, *said(row["completion"])]
        assert line == ({"prompt": prompt, "completion": whole[-1:]} if format == "trl" else {"messages": whole})
    elif format == "openai-finetune":
        assert line["input"] == {"messages": prompt}
        assert line["preferred_output"] == said(row["chosen"])
        assert line["non_preferred_output"] == said(row["rejected"])
    elif format == "trl":
        assert line == {"prompt": prompt, "chosen": said(row["chosen"]), "rejected": said(row["rejected"])}
    else:
        assert line == {"messages": prompt, "chosen": row["chosen"], "rejected": row["rejected"]}


@pytest.mark.parametrize("stage", ["sft-rows", "pairs"])
def test_trl_trains_on_its_files(malt: Path, tmp_path: Path, tiny: str, stage: str) -> None:
    from datasets import load_dataset
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    command(["export", str(malt), "--format", "trl", "--out", str(tmp_path / "files")])
    file = str(tmp_path / "files" / stage / "verifier.jsonl")
    data: Any = load_dataset("json", data_files=file, split="train", cache_dir=str(tmp_path / "cache"))
    same: dict[str, Any] = {"output_dir": str(tmp_path / "trl"), "use_cpu": True, "bf16": False, "max_steps": 1}
    same |= {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "dataloader_pin_memory": False}
    trainer = (
        SFTTrainer(tiny, args=SFTConfig(**same), train_dataset=data)
        if stage == "sft-rows"
        else DPOTrainer(tiny, args=DPOConfig(**same), train_dataset=data)
    )
    assert trainer.train().training_loss > 0


def test_a_run_that_stopped_at_its_rows_goes_on(brief: str, tmp_path: Path) -> None:
    """The same folder, without --rows-only: what is there is not made again."""
    line = ["malt", *SMALL, "--width", "2", "--model", brief, "--sampling.max-tokens", "10", "--votes", "1"]
    line += ["--baselines", "none", "--out", str(tmp_path / "run")]
    command([*line, "--rows-only"])
    before = (tmp_path / "run/turns/DONE.json").read_bytes()
    command(line)
    assert (tmp_path / "run/turns/DONE.json").read_bytes() == before
    assert len(read_table(tmp_path / "run/comparison").rows()) == 2


def test_debates_give_rows_too(brief: str, tmp_path: Path) -> None:
    line = ["maft", *SMALL, "--model", brief, "--sampling.max-tokens", "16", "--agents", "2", "--objective", "dpo"]
    command([*line, "--baselines", "debate", "--rows-only", "--out", str(tmp_path / "run")])
    command(["export", str(tmp_path / "run"), "--out", str(tmp_path / "files")])
    names = {str(file.relative_to(tmp_path / "files")) for file in (tmp_path / "files").rglob("*.jsonl")}
    assert "iteration-1/sft-rows/critic-1.jsonl" in names and "iteration-1/pairs/critic-1.jsonl" in names
    assert not list((tmp_path / "run").rglob("adapter_model.safetensors"))


@pytest.mark.parametrize("recipe", ["malt", "maft"])
def test_a_run_that_makes_no_rows_says_so(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mute = ["--engine.kind", "scripted", "--engine.script", "tests.easy_task:nothing", "--rows-only"]
    said = sentence(capsys, recipe, *SMALL, *mute, "--model", "nobody/has-this", "--out", str(tmp_path / "run"))
    assert "nothing to train generator" in said


def test_mistakes_are_told(malt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no run folder" in sentence(capsys, "export", str(tmp_path), "--out", str(tmp_path / "files"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert "holds something already" in sentence(capsys, "export", str(malt), "--out", str(tmp_path / "full"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    said = sentence(capsys, "export", str(tmp_path / "empty"), "--out", str(tmp_path / "files"))
    assert "holds no rows to learn from" in said and "--rows-only" in said
    said = sentence(capsys, "export", str(malt), "--out", str(tmp_path / "files"), "--format", "csv")
    assert "invalid choice" in said.lower() or "csv" in said


def test_an_agents_own_earlier_answers_are_not_learned_anew(tmp_path: Path) -> None:
    """Rows of critics hold what the agent said in the round before; hosted finetuning would train on it too."""
    quick = [*SMALL, *QUICK, "--model", "nobody/has-this", "--rows-only", "--out", str(tmp_path / "run")]
    command(["maft", *quick])
    command(["export", str(tmp_path / "run"), "--format", "openai-finetune", "--out", str(tmp_path / "files")])
    earlier = 0
    for file in (tmp_path / "files").rglob("*.jsonl"):
        for line in lines(file):
            *before, last = [message for message in line["messages"] if message["role"] == "assistant"]
            assert "weight" not in last and all(message["weight"] == 0 for message in before)
            assert all("weight" not in message for message in line["messages"] if message["role"] != "assistant")
            earlier += len(before)
    assert earlier > 0


@pytest.mark.parametrize(("recipe", "stage"), [("malt", "turns"), ("maft", "iteration-1/turns")])
def test_what_one_model_wrote_trains_another(brief: str, tmp_path: Path, recipe: str, stage: str) -> None:
    """Its texts alone: the ids of one model's vocabulary mean nothing to another."""
    rows, run = tmp_path / "rows", tmp_path / "run"
    common = ["--task", "tests.easy_task", "--train", "8", "--test", "2", "--sampling.max-tokens", "12"]
    none = ["--baselines", "none"] if recipe == "malt" else ["--baselines"]
    command([recipe, *common, *QUICK, *none, "--model", "nobody/has-this", "--rows-only", "--out", str(rows)])
    taking = [recipe, *common, *none, "--model", brief, "--turns-from", str(rows)]
    command([*taking, "--out", str(run)])
    for one in (rows, run):
        cfg = stored_options({"malt": Malt, "maft": Maft}[recipe], one, whole=True)
        planned, answered = next((p, a) for what, p, a in outcome(one, cfg, Lengths()) if what == "answers")
        assert planned == answered > 0, "nothing was planned that others had done, or that was left out"
    theirs, own = (read_table(one / stage).rows() for one in (rows, run))
    assert [turn["text"] for turn in own] == [turn["text"] for turn in theirs]
    assert all(turn["token_ids"] is None for turn in own)
    trained = read_table(run / "comparison").rows()[-1]["trained_tokens"]
    lines_ = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    spent = sum(n for line in lines_ for name, n in line.items() if name.endswith("/tokens"))
    assert 0 < trained < spent, "answers, of all that rows hold"
    assert (run / "comparison" / "DONE.json").exists() and list(run.glob("**/adapter_model.safetensors"))
    before = (run / "comparison" / "rows.parquet").read_bytes()
    command([*taking, "--out", str(run)])
    assert (run / "comparison" / "rows.parquet").read_bytes() == before, "and goes on as any run"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--train", "7"], "turns on 8 problems, 1 of which are not among this run's 7"),
        (["--width", "2"], "were played with width 3, and this run has 2"),
        (["--turns-from", "no/such"], "'no/such' is no run folder"),
    ],
)
def test_turns_of_other_problems_or_other_trees_are_refused(
    brief: str, tmp_path: Path, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--task", "tests.easy_task", "--test", "2", "--train", "8", "--sampling.max-tokens", "12"]
    rows = [*QUICK, "--model", "nobody/has-this", "--rows-only", "--out", str(tmp_path / "rows")]
    command(["malt", *common, *rows])
    with pytest.raises(SystemExit):
        taking = ["--turns-from", str(tmp_path / "rows"), *more, "--out", str(tmp_path / "run")]
        command(["malt", *common, "--model", brief, *taking])
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("changed", ["question", "ending"])
def test_turns_on_other_questions_of_the_same_names_are_refused(
    brief: str, tmp_path: Path, changed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows of a file without a column of names are called by their numbers."""
    for name, sign in (("one", "+"), ("two", "*")):
        data = [{"question": f"What is {n} {sign} 1?", "answer": str(n)} for n in range(12)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
    common = ["malt", "--task", "data", "--train", "8", "--test", "2", "--grader", "number"]
    one, two = (["--data", str(tmp_path / f"{name}.jsonl")] for name in ("one", "two"))
    command([*common, *one, *QUICK, "--model", "nobody/has-this", "--rows-only", "--out", str(tmp_path / "rows")])
    other = two if changed == "question" else [*one, "--ending", "Say it."]
    with pytest.raises(SystemExit, match="2"):
        taking = ["--turns-from", str(tmp_path / "rows"), "--out", str(tmp_path / "run")]
        command([*common, *other, "--model", brief, *taking])
    assert f"has the {changed} '" in (told := " ".join(capsys.readouterr().err.split()))
    assert "give the data and --ending that those turns were played with" in told
