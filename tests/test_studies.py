"""The study program whole, on a tiny model: every run of it, a second call that makes nothing anew, and its tables."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import pytest

from teamtune.reporting import read
from teamtune.store import read_table

STUDIES = Path(__file__).parent.parent / "studies"
TASK = "tests.easy_task"
SETTINGS = """
model: {model}
train: 16
test: 4
width: 2
votes: 2
baselines: base
sampling: {{max_tokens: 16}}
lora: {{rank: 2, alpha: 4}}
sft: {{rate: 1e-2}}
dpo: {{rate: 1e-2}}
"""


def test_the_study_runs_resumes_and_writes_what_its_runs_say(
    brief: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))
    import malt as study  # pyright: ignore[reportMissingImports]

    (tmp_path / "small.yaml").write_text(SETTINGS.format(model=brief))
    monkeypatch.setattr(study, "SETTINGS", tmp_path / "small.yaml")
    monkeypatch.setattr(study, "TASKS", (TASK,))
    monkeypatch.setattr(study, "HARDER", {TASK: ""})
    page, out = tmp_path / "page.md", tmp_path / "runs"
    page.write_text("# Ours\n\nWords that stay.\n")
    asked = study.Study(out, task=TASK, seeds=(0, 1), ablation_test=3, write=page)
    study.main(asked)

    sealed = {file: file.stat().st_mtime_ns for file in out.rglob("DONE.json")}
    study.main(asked)
    assert {file: file.stat().st_mtime_ns for file in out.rglob("DONE.json")} == sealed

    text = page.read_text()
    assert text.startswith("# Ours\n\nWords that stay.\n\n<!-- tables -->")
    found = [read_table(out / f"malt-{TASK}-{seed}" / "comparison").rows()[-1] for seed in (0, 1)]
    mean = 50 * sum(row["accuracy"] for row in found)
    (line,) = re.findall(r"^\| MALT \+ MV@2 \| (\S+) .*\| 8 \| 6 \|", text, flags=re.MULTILINE)
    assert line == f"{mean:.1f}"
    for name in ("generator untrained", "roles GR", "threshold 0.7", "generator by DPO too", "harder level"):
        assert f"| {name} |" in text
    sys.modules.pop("malt")


MAFT = """
model: {model}
train: 14
test: 3
sampling: {{max_tokens: 12}}
lora: {{rank: 2, alpha: 4}}
sft: {{rate: 1e-2, batch: 4, epochs: 1}}
measures: {{problems: 2}}
"""


def test_the_study_of_debates_runs_resumes_and_writes_what_its_runs_say(
    brief: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))
    import maft as study  # pyright: ignore[reportMissingImports]

    task = "tests.spoken_task"
    (tmp_path / "small.yaml").write_text(MAFT.format(model=brief))
    monkeypatch.setattr(study, "SETTINGS", tmp_path / "small.yaml")
    monkeypatch.setattr(study, "TASKS", (task,))
    monkeypatch.setattr(study, "FURTHER", {task: (f"{task}:poisoned",)})
    monkeypatch.setattr(study, "ITERATIONS", 2)
    page, out = tmp_path / "page.md", tmp_path / "runs"
    asked = study.Study(out, tmp_path / "records", task=task, seeds=(0,), write=page)
    study.main(asked)

    sealed = {file: file.stat().st_mtime_ns for file in out.rglob("DONE.json")}
    text, told = page.read_text(), (tmp_path / "records" / f"{task}-0-table.json").read_text()
    study.main(replace(asked, out=tmp_path / "none"))
    assert page.read_text() == text and not (tmp_path / "none").exists(), "records are all that tables need"
    rmtree(tmp_path / "records")
    study.main(asked)
    assert {file: file.stat().st_mtime_ns for file in out.rglob("DONE.json")} == sealed
    assert page.read_text() == text and (tmp_path / "records" / f"{task}-0-table.json").read_text() == told
    same = [out / f"maft-{task}-0-{part}" / "iteration-1" / "sft" / "DONE.json" for part in study.SAME_TEAM]
    assert len({file.read_bytes() for file in same}) == 1, "the first iteration is trained once"
    lines = [read.metrics(out / f"maft-{task}-0-{part}") for part in ("table", "ablations")]
    first, again = ([row for row in own if row["stage"] == "iteration-1/sft"] for own in lines)
    assert first and first == again, "and its curve comes along"

    found = {row["system"]: row for row in read_table(out / f"maft-{task}-0-table" / "comparison").rows()}
    found |= {row["system"]: row for row in read_table(out / f"maft-{task}-0-ablations" / "comparison").rows()}
    for name, row in found.items():
        assert f"| {name} | {100 * row['accuracy']:.1f} |" in text
    assert "MAFT, cooperative" in found and "Majority FT" in found
    assert f"### Trained on {task}, tested on {task}:poisoned" in text
    five = read_table(out / f"maft-{task}-0-five" / "comparison").rows()[-1]
    assert five["system"] == "MAFT, iteration 2" and f"| {five['system']} | {100 * five['accuracy']:.1f} |" in text
    assert (tmp_path / f"page-{task}-vote.svg").read_text().startswith("<svg ")
    titles = ("Baselines and ablations", "Round by round", "Costs", "How the agents differ", "Five iterations")
    for title in (*titles, "Five agents", "Pseudo-labels"):
        assert f"### {title}" in text
    for agents in (3, 5):
        assert f"| Majority FT, {agents} agents |" in text.split("### Five agents")[1]
    record = json.loads(told)
    assert record["rounds"]["Debate"][1]["flips"] and record["counts"]["iteration-1/sft-rows"]
    import maft_page  # pyright: ignore[reportMissingImports]

    transfer = json.loads((tmp_path / "records" / f"{task}-0-transfer.json").read_text())
    place = f"transfer/{task}-poisoned/comparison"
    told_of = [line for line in maft_page.costs([transfer], place) if line.startswith("| MAFT, iteration 1 |")]
    own = next(row for row in transfer["further_costs"].pop(place) if row["system"] == "MAFT, iteration 1")
    seconds = f"{own['train_seconds']:.0f} | {own['test_seconds']:.0f} | {own['peak_mb']:.0f} |"
    assert told_of and told_of[0].endswith(seconds) and told_of[0] in text
    [older] = [line for line in maft_page.costs([transfer], place) if line.startswith("| MAFT, iteration 1 |")]
    assert older == told_of[0].removesuffix(seconds) + f"{own['train_seconds']:.0f} |  |  |", "as older records tell"
    (tmp_path / "records" / f"{task}-0-table.json").write_text("{}")
    study.main(replace(asked, again=True, write=None))
    assert (tmp_path / "records" / f"{task}-0-table.json").read_text() == told
    for module in ("maft", "maft_page"):
        sys.modules.pop(module)


MAPORL = """
model: {model}
train: 24
test: 6
sampling: {{temperature: 1.0, max_tokens: 24}}
rewards: {{gate: {{shortest: 0}}}}
lora: {{rank: 2, alpha: 4}}
ppo: {{updates: 2, problems: 4, fit: {{rate: 1e-3, epochs: 1}}}}
"""
SCORER = """
model: {model}
train: 8
test: 6
test_samples: 1
scorer: {{samples: 8, quota: 1, sampling: {{max_tokens: 12}}, fit: {{rate: 1e-2, epochs: 1}}}}
"""


def test_the_study_of_discussions_writes_what_its_runs_say(
    brief: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))
    import maporl as study  # pyright: ignore[reportMissingImports]

    task = "tests.spoken_task"
    for name, text in (("SETTINGS", MAPORL), ("SCORER", SCORER)):
        (tmp_path / f"{name}.yaml").write_text(text.format(model=brief))
        monkeypatch.setattr(study, name, tmp_path / f"{name}.yaml")
    monkeypatch.setattr(study, "TASKS", (task,))
    monkeypatch.setattr(study, "FURTHER", {task: (f"{task}:poisoned",)})
    monkeypatch.setattr(study, "SIZES", ("2x2",))
    monkeypatch.setattr(study, "COOLER_SIZES", ("2x2", "4x1"))
    monkeypatch.setattr(study, "ELSEWHERE", {task: ("poisoned",)})
    page, out = tmp_path / "page.md", tmp_path / "runs"
    asked = study.Study(out, tmp_path / "records", task=task, seeds=(0,), write=page)
    study.main(asked)

    text = page.read_text()
    study.main(replace(asked, out=tmp_path / "none"))
    assert page.read_text() == text and not (tmp_path / "none").exists(), "records are all that tables need"
    folders = {part: out / f"maporl-{task}-0-{part}" for part in study.PARTS}
    for one in folders.values():
        sealed = {str(file.parent.relative_to(one)) for file in one.rglob("DONE.json")}
        told = set(read.expected(read.options(one)["config"]))
        assert told <= sealed, "what a run is told to hold, it holds"
        assert {name for name in sealed if name.startswith("test/") or name.endswith("ppo")} <= told
    same = [(folders[part] / "ppo" / "DONE.json").read_bytes() for part in study.SAME_TEAM]
    assert len(set(same)) == 1, "the team is trained once"
    assert [row for row in read.metrics(folders["rivals"]) if row["stage"] == "ppo"], "and its curves come along"
    last = {row["system"]: row for part in study.SAME_TEAM for row in read_table(folders[part] / "by-turn").rows()}
    for name, row in last.items():  # the last row of a system is that of its last turn
        assert re.search(rf"^\| {re.escape(name)} \| 6 \|.*{100 * row['accuracy']:.1f} ± ", text, flags=re.MULTILINE)
    assert "MAPoRL without a scorer" in last and "| 2x2 |" not in text
    assert (tmp_path / f"page-{task}-moves.svg").read_text().startswith("<svg ")
    assert "Off-the-shelf without scores" in last and "SFT on the best discussions" in last
    for title in (
        "Accuracy by turn",
        "The first turn trained too, and votes of the base",
        "Answers at temperature 0.7",
        "Cost",
        "How the majority moved, %",
        "How answers moved, %",
        "Scorer",
        "Incentives, two agents over two turns",
    ):
        assert f"### {title}" in text
    assert f"### Trained on {task}, tested on {task}-poisoned" in text
    assert f"| maporl-{task}-0-scorer | " in text and f"| maporl-{task}-0-scorer-poisoned | " in text
    assert re.search(r"its discussions of test problems\): \d+ minutes\. Minutes of whole runs: ", text)
    assert (tmp_path / f"page-{task}-accuracy.svg").read_text().startswith("<svg ")
    sys.modules.pop("maporl")


def test_tables_of_discussions_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seeds with different numbers of moves: shares and shifts are means over seeds, rates are of all answers."""
    monkeypatch.syspath_prepend(str(STUDIES))
    import maporl_page  # pyright: ignore[reportMissingImports]

    def row(name: str, corrected: float, moves: int) -> dict[str, object]:
        cells = dict.fromkeys(maporl_page.SHIFTED, 0.1) | {"WRR": corrected}
        moved = {"kept right": 0.5, "corrected": corrected, "lost": 0.0, "kept wrong": 0.5 - corrected}
        return {"system": name, "turn": 2, "moves": moves, **cells, **moved}

    turns = [[row("MAPoRL", 0.1, 10), row("paid", 0.2, 10)], [row("MAPoRL", 0.3, 30), row("paid", 0.3, 30)]]
    shift = {"system": "paid", "turn": 2, "of": "revision", "diff": 0.1, "low": 0.0, "high": 0.2}
    shifts = [[shift | {"cell": "WRR"}], [shift | {"cell": "WRR", "diff": 0.0}]]
    lines = maporl_page.shifted(shifts, turns)
    assert lines[2] == "| MAPoRL | 10.0 | 10.0 | 10.0 | 20.0 | 10.0 | 10.0 | 50.0 | 0.0 |"
    # half: (0.1² + 0.1²)^0.5 / 2; corrected: (10 · 0.2 + 30 · 0.3) of 20 that were wrong
    assert lines[3] == "| paid | 10.0 | 10.0 | 10.0 | 25.0 (+5.0 ± 7.1) | 10.0 | 10.0 | 55.0 | 0.0 |"
    assert maporl_page.rates([row("all right", 0.0, 10) | {"kept right": 1.0, "kept wrong": 0.0}]) == [None, 0.0]

    told = {"majority kept right": 0.5, "majority corrected": 0.2, "majority lost": 0.1, "majority kept wrong": 0.2}
    told |= {"system": "MAPoRL", "n": 100, "gain": 0.3, "gain_low": 0.2, "gain_high": 0.4}
    found = maporl_page.majorities([[told | {"turn": turn} for turn in (1, 2, 3)]])
    # 1.96 · ((0.3 - 0.1²) / 100)^0.5 = 0.1055
    assert [since for _, _, since in found] == [["+30.0 ± 10.0", "+30.0 ± 10.0"], ["+10.0 ± 10.6", "+30.0 ± 10.0"]]
    sys.modules.pop("maporl_page")
