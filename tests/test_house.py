"""The house model's corpus and its build: small ones, whole."""

from __future__ import annotations

import json
import operator
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from teamtune.house import build, corpus, measure
from teamtune.house.build import Build
from teamtune.models import load_model
from teamtune.tasks import find
from teamtune.types import Sampling, TeamtuneError

WORKED = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}
SMALL = Build(
    steps=8,
    tokens=1024,
    longest=300,
    vocabulary=300,
    width=16,
    layers=1,
    heads=2,
    inner=16,
    save_every=3,
    compile=False,
)
DOCUMENTS = [corpus.document(0, i) for i in range(40_000, 42_000)]


@pytest.fixture(autouse=True)
def few_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "TOKENIZER_DOCUMENTS", range(10**9, 10**9 + 100))
    monkeypatch.setattr("teamtune.house.data.WINDOW", 256)


def curve(folder: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(str(folder / "model"))[0].state_dict()


def test_a_build_that_breaks_ends_with_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build.build(tmp_path / "whole", replace(SMALL, steps=22))
    rate_at = build.rate_at

    def breaking(cfg: Build, step: int) -> float:
        if step == 20:
            raise RuntimeError("power cut")
        return rate_at(cfg, step)

    monkeypatch.setattr(build, "rate_at", breaking)
    with pytest.raises(RuntimeError, match="power cut"):
        build.build(tmp_path / "broken", replace(SMALL, steps=22))
    monkeypatch.setattr(build, "rate_at", rate_at)
    build.build(tmp_path / "broken", replace(SMALL, steps=22))
    assert [step for step, _ in curve(tmp_path / "broken")] == [0, 10, 20]
    broken, whole = (dict(curve(tmp_path / name)) for name in ("broken", "whole"))
    assert broken == pytest.approx(whole)
    for name, tensor in weights(tmp_path / "whole").items():
        torch.testing.assert_close(weights(tmp_path / "broken")[name], tensor, msg=name)


def test_a_build_of_other_options_is_refused(tmp_path: Path) -> None:
    build.build(tmp_path, SMALL)
    with pytest.raises(TeamtuneError, match="other options"):
        build.build(tmp_path, replace(SMALL, steps=9))


def test_documents_follow_from_their_place_and_every_role_is_there() -> None:
    assert DOCUMENTS[:50] == [corpus.document(0, i) for i in range(40_000, 40_050)]
    assert DOCUMENTS[:50] != [corpus.document(1, i) for i in range(40_000, 40_050)]
    assert set(Counter(d.kind for d in DOCUMENTS)) == {"drill", *corpus.SHARES}


def test_calculations_of_drills_are_correct() -> None:
    checked = 0
    for document in (d for d in DOCUMENTS if d.kind == "drill"):
        asked = document.messages[1].content.removeprefix("Work these out: ").split(", ")
        for question, line in zip(asked, document.messages[2].content.split("\n"), strict=True):
            x, op, y = question.split(" ")
            want = WORKED[op](int(x), int(y))
            assert line.startswith(question) and line.endswith(f" {want}")
            checked += 1
    assert checked > 1000


def test_critics_verdicts_and_answers_agree() -> None:
    """What a critic says of a solution follows from its own result, whatever that is worth."""
    said = Counter()
    for document in (d for d in DOCUMENTS if d.kind == "verify"):
        solution, critique = document.messages[1].content, document.messages[2].content
        theirs, own = (re.findall(r"Answer: (-?\d+)", text) for text in (solution, critique))
        verdict = measure.VERDICT.search(critique)
        assert verdict, critique
        if theirs and own:
            said[verdict.group(1), theirs[-1] == own[-1]] += 1
    assert said["right", True] > 50 and said["wrong", False] > 50
    assert said["right", False] == 0
    assert said["wrong", True] < 10, "steps that differ, and results that agree by chance"


def test_no_question_of_dev_or_test_is_in_the_corpus() -> None:
    rows = measure.overlap(500, 200)
    assert {row["task"] for row in rows} == {"arithmetic", "stories"}
    for row in rows:
        assert row["n"] == 200
        # 30 times 30 sums: the smallest level is shared out by hash, and no question is on two sides
        assert row["whole"] == 0, row


def test_the_corpus_table_counts_every_document(tiny: str) -> None:
    rows = measure.corpus_table(load_model(tiny)[1], range(40_000, 40_300), longest=400)
    kinds, total = rows[1:], rows[0]
    assert total["kind"] == "all" and total["n"] == 300
    assert sum(row["n"] for row in kinds) == 300
    assert sum(row["too_long"] for row in kinds) == total["too_long"] > 0


def test_every_role_of_a_model_is_measured(brief: str) -> None:
    rows = list(measure.measure(brief, 3, 1.0, {"arithmetic": ("1",), "stories": ("2",)}))
    assert {row["role"] for row in rows} == {"generator", "verifier", "refiner", "debater", "summariser"}
    assert all(0 <= row["value"] <= 1 and 0 < row["n"] <= 3 for row in rows)


def test_the_shipped_model_is_small_and_its_curve_whole() -> None:
    house = Path(build.__file__).parent
    assert sum(file.stat().st_size for file in (house / "model").iterdir()) < 8e6
    curve = [json.loads(line) for line in (house / "training.jsonl").read_text().splitlines()]
    assert [row["step"] for row in curve] == list(range(0, Build().steps, 10))


@pytest.mark.parametrize(("task", "level"), [("arithmetic", "paper"), ("stories", "3")])
def test_the_model_that_ships_is_competent_and_improvable(task: str, level: str) -> None:
    """The card's bands, widened by three standard errors: a solver of 35 to 70 %, a critic well above chance."""
    problems = find(task).load("dev", 100, measure.SEED, level=level)
    scores = measure.pipeline_scores("house", task, problems, Sampling(1.0, max_tokens=320))
    found = {(role, name): sum(values) / len(values) for role, name, values in scores if values}
    assert 0.3 < found["generator", "right"] < 0.8
    assert found["verifier", "verdict agrees with the truth"] > 0.58
    assert found["refiner", "right"] > 0.4
