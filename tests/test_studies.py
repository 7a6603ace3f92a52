"""The study program whole, on a tiny model: every run of it, a second call that makes nothing anew, and its tables."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

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
