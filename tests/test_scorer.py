"""The learned scorer: its data, its loss, what it learns where there is something to learn, its measures."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tests.helpers import base_of
from tests.helpers import surroundings as surroundings

from teamtune import calibration
from teamtune.cli import main as cli
from teamtune.credit.discussion import scores_in
from teamtune.curate.judged import asked_for, judged_rows
from teamtune.engines import EngineSpec, open_engine
from teamtune.play import Live, rolling, waves
from teamtune.protocols.discussion import by_policy, discussion, seats
from teamtune.recipes.scorer import all_asked_for, under_own_name, with_scorer
from teamtune.recipes.scorer_measures import calibration_rows, unable
from teamtune.rollout import episode_rows
from teamtune.scorer import LearnedScorer, check_scorer
from teamtune.store import read_table
from teamtune.tasks import TaskSpec, grade_turns
from teamtune.tasks.stages import problem_row
from teamtune.train import losses
from teamtune.train.examples import Example
from teamtune.train.fit import Fit, fit, fit_model
from teamtune.train.forward import batch_of, surprises
from teamtune.train.hints import LEAST, logistic
from teamtune.train.objective import Scoring
from teamtune.train.team import Lora, TeamModel
from teamtune.types import (
    SCORER,
    Agent,
    Ask,
    Message,
    Problem,
    Row,
    Sampling,
    Team,
    TeamtuneError,
    assistant,
    turn_row,
    user,
)

# ---- the loss --------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), min_size=1, max_size=4))
def test_parts_of_answers(spans: list[tuple[int, int]]) -> None:
    mask = torch.zeros(len(spans), 10, dtype=torch.bool)
    for row, (before, count) in enumerate(spans):
        mask[row, before : before + count] = True
    for part in ("all", "half", "last"):
        found = losses.last_part(mask, part)  # type: ignore[arg-type]
        for row, (before, count) in enumerate(spans):
            kept = {"all": count, "half": count - count // 2, "last": 1}[part]
            assert found[row].nonzero().flatten().tolist() == list(range(before + count - kept, before + count))


def test_the_loss_against_a_slow_loop() -> None:
    logits, right = torch.randn(3, 5), torch.tensor([1.0, 0.0, 1.0])
    mask = torch.tensor([[False, True, True, False, False], [False, False, True, True, True], [False] * 4 + [True]])
    found = losses.scoring(logits, right, mask)
    for row in range(3):
        chance = [torch.sigmoid(x) for x, here in zip(logits[row], mask[row], strict=True) if here]
        each = [-torch.log(p if right[row] else 1 - p) for p in chance]
        assert float(found[row]) == pytest.approx(float(sum(each) / len(each)), abs=1e-5)


# ---- learning --------------------------------------------------------------------------------------------------------


def separable(count: int, seed: int) -> list[Row]:
    """Answers of which those that end in "good" are right."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        right = rng.random() < 0.5
        said = f"{rng.randint(0, 99)} + {rng.randint(0, 99)} is {'good' if right else 'bad'} {rng.randint(0, 9)}"
        messages = [{"role": "user", "content": f"What is {rng.randint(0, 99)}?"}]
        place = {"problem": f"p{number}", "take": 0, "turn": 0, "agent": SCORER}
        rows.append({**place, "messages": messages, "completion": said, "right": right})
    return rows


def asked(row: Row) -> Ask:
    messages = [Message(message["role"], message["content"]) for message in row["messages"]]
    return Ask(SCORER, (*messages, assistant(row["completion"])), "score-1")


@pytest.fixture(scope="module")
def learned(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a scorer that was trained on separable answers."""
    folder = tmp_path_factory.mktemp("scorer")
    team = Team(tiny, (Agent(SCORER),))
    model = TeamModel.open(team, [SCORER], Lora(rank=8), heads=[SCORER])
    list(fit_model(folder, model, separable(256, 0), Scoring(), Fit(rate=1e-2, epochs=3, batch=16)))
    return str(folder / SCORER)


def test_separable_answers_are_told_apart(tiny: str, learned: str) -> None:
    held_out = separable(200, 1)
    scores = LearnedScorer.open(tiny, learned)([asked(row) for row in held_out])
    right = [row["right"] for row in held_out]
    assert calibration.accuracy(scores, right) > 0.95 and calibration.auroc(scores, right) > 0.98  # type: ignore[operator]


def test_a_new_scorer_knows_nothing(tiny: str) -> None:
    model = TeamModel.open(Team(tiny, (Agent(SCORER),)), [SCORER], Lora(), heads=[SCORER])
    assert LearnedScorer(model)([asked(row) for row in separable(3, 0)]) == [0.5] * 3


def test_the_score_is_that_of_the_last_token_whatever_the_batch(tiny: str, learned: str) -> None:
    rows = separable(12, 2)
    scorer = LearnedScorer.open(tiny, learned)
    together = scorer([asked(row) for row in rows])
    scorer.tokens = 1
    assert scorer([asked(row) for row in rows]) == pytest.approx(together, abs=1e-5)
    for row, score in zip(rows, together, strict=True):
        one = asked(row)
        ids = [*scorer.renderer.prompt(one.messages[:1])]
        ids += scorer.model.tokenizer(row["completion"], add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            whole = scorer.model.values(torch.tensor([ids]), [SCORER])
        assert float(whole[0, -1].sigmoid()) == pytest.approx(score, abs=1e-5)


def test_how_likely_the_base_finds_an_answer_against_a_slow_loop(tiny: str) -> None:
    model = TeamModel.open(Team(tiny, (Agent(SCORER),)), [SCORER], Lora(), heads=[SCORER])
    examples = [Example([5, 6, 7], [8, 9]), Example([5], [9, 3, 4, 2])]
    ids, mask = batch_of(model, examples)
    found = surprises(model, ids, mask)
    plain = base_of(tiny)
    for row, one in enumerate(examples):
        whole, most, late = 0.0, 0.0, 0.0
        for at in range(len(one.prompt), len(one)):
            with torch.no_grad():
                logits = plain(torch.tensor([[*one.prompt, *one.answer][:at]])).logits[0, -1]
            told = -float(logits.log_softmax(-1)[[*one.prompt, *one.answer][at]])
            whole, most = whole + told, max(most, told)
            late += told if at - len(one.prompt) >= len(one.answer) // 4 else 0.0
            assert found[row, at].tolist() == pytest.approx(
                [math.log(1 + x) for x in (told, whole, late, most)], abs=1e-5
            )
        assert not found[row, : len(one.prompt)].any()


def test_a_scorer_may_be_told_how_likely_answers_are(tmp_path: Path) -> None:
    """The house model's own answers, half of them right: it knows better than a few steps can teach an adapter."""
    task = TaskSpec("stories", train=64, test=1)
    problems = task.load("train")
    team = Team("house", seats(by_policy("shared", 1, 1), Sampling(1.0, max_tokens=160)))
    engine = open_engine(EngineSpec(), team)
    engine.adopt(team)
    lives = [Live(p, take, lambda p: discussion(p, [["agent"]]), team) for p in problems for take in range(8)]
    for _ in waves(lives, engine, 0):
        pass
    turns = [row for live in lives for row in episode_rows(live.episode())]
    table = [problem_row(one) for one in problems]
    grades = list(grade_turns(turns, table, task, "train").rows)
    first, last = (list(judged_rows(part, turns, grades, quota=1).rows) for part in (table[:40], table[40:]))
    options, scorer = Fit(rate=1e-2, epochs=3, batch=2), Team("house", (Agent(SCORER),))
    list(fit(tmp_path, first, scorer, [SCORER], Lora(rank=1), Scoring(surprise=True), options))
    made = LearnedScorer.open("house", str(tmp_path / SCORER))
    head = made.model.heads[SCORER]
    assert head.hints == 4 and head.weight.shape == (made.model.model.config.hidden_size + 4,)
    right = [row["right"] for row in last]
    told = calibration.auroc(made([asked(row) for row in last]), right)
    with torch.no_grad():
        head.weight[-4:] = 0
    untold = calibration.auroc(made([asked(row) for row in last]), right)
    assert told is not None and untold is not None and told > 0.8 and told > untold, (told, untold, len(last))


@given(st.integers(0, 1000))
def test_the_logistic_regression_is_where_its_gradient_is_zero(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    rows = torch.randn(60, 3, generator=rng) * torch.tensor([1.0, 5.0, 0.1]) + torch.tensor([0.0, 30.0, 2.0])
    right = (torch.rand(60, generator=rng) < (rows[:, 1] / 10 - 3).sigmoid()).float()
    weight, bias = logistic(rows, right)
    off = (rows @ weight + bias).sigmoid() - right
    spread = rows.std(0, correction=0).clamp(min=LEAST)
    assert abs(float(off.mean())) < 1e-3
    for column in range(3):
        # The slope of the mean cross-entropy along a standardised column (whose spread is `LEAST` at least), and that
        # of the ridge.
        slope = float((off * (rows[:, column] - rows[:, column].mean()) / spread[column]).mean())
        assert slope + 2 * 1e-3 * float(weight[column] * spread[column]) == pytest.approx(0, abs=1e-3)


def test_an_answer_without_text_has_a_score_too(tiny: str, learned: str) -> None:
    [score] = LearnedScorer.open(tiny, learned)([Ask(SCORER, (user("What?"), assistant("")), "score-1")])
    assert 0 <= score <= 1


@pytest.mark.parametrize("driver", [waves, rolling])
def test_a_scorer_takes_part_in_a_discussion(tiny: str, learned: str, driver: Any) -> None:
    speakers = by_policy("turn", 2, 2)
    team = Team(tiny, seats(speakers, Sampling(max_tokens=8), learned))
    engine = open_engine(EngineSpec(dtype="float32"), team)
    engine.adopt(team)
    lives = [
        Live(Problem(f"p{i}", f"What is {i}?", "1", "End."), 0, lambda p: discussion(p, speakers, True), team)
        for i in range(3)
    ]
    for _ in driver(lives, engine, 0):
        pass
    alone = LearnedScorer.open(tiny, learned)
    for live in lives:
        rows = [turn_row(live.problem.id, 0, turn) for turn in live.turns]
        scores = scores_in(rows)
        assert len(scores) == 4
        for turn in live.turns:
            if turn.ask.agent == SCORER:
                [expected] = alone([turn.ask])
                assert scores[live.problem.id, 0, turn.ask.parents[0]] == pytest.approx(expected, abs=1e-5)


def test_the_base_answers_as_it_does_without_a_scorer(tiny: str, learned: str) -> None:
    """The scorer's adapter lies on the same model in memory; nobody else may be changed by it."""
    speakers = by_policy("shared", 2, 2)
    found = []
    for scorer in (None, learned):
        team = Team(tiny, seats(speakers, Sampling(max_tokens=12), scorer))
        engine = open_engine(EngineSpec(dtype="float32"), team)
        engine.adopt(team)
        live = Live(Problem("p", "What?", "1", "End."), 0, lambda p: discussion(p, speakers), team)
        for _ in waves([live], engine, 0):
            pass
        found.append([(turn.text, turn.completion.logprobs) for turn in live.turns])
    assert found[0] == found[1]


def test_what_is_no_scorer_is_refused(tiny: str, learned: str, tmp_path: Path) -> None:
    with pytest.raises(TeamtuneError, match="no adapter in"):
        check_scorer(str(tmp_path))
    bare = tmp_path / "bare"
    shutil.copytree(learned, bare)
    (bare / "head.safetensors").unlink()
    with pytest.raises(TeamtuneError, match=r"has no head\.safetensors, so it is no scorer"):
        LearnedScorer.open(tiny, str(bare))
    with pytest.raises(TeamtuneError, match="scorer's seat has no adapter"):
        team = with_scorer(Team(tiny, (Agent("agent"),)), None)
        open_engine(EngineSpec(), team)


# ---- data ------------------------------------------------------------------------------------------------------------


def answers(found: dict[str, str], take: int = 0) -> tuple[list[Row], list[Row]]:
    """Turns and grades from {problem: letters}, R right, W wrong, L cut off, N without an answer, D said before."""
    turns: list[Row] = []
    grades: list[Row] = []
    for problem, letters in found.items():
        for number, letter in enumerate(letters, start=take):
            place = {"problem": problem, "take": number, "turn": 0}
            text = "the same" if letter == "D" else f"{letter} {problem} {number}"
            turns.append({**place, "agent": "agent", "text": text, "finish": "length" if letter == "L" else "stop"})
            grades.append({**place, "parsed": None if letter == "N" else "5", "score": float(letter == "R")})
    return turns, grades


PROBLEMS = [problem_row(Problem(name, f"What is {name}?", "5", "End.")) for name in "pqrs"]


def test_as_many_right_as_wrong_of_each_question() -> None:
    turns, grades = answers({"p": "RRRRWW", "q": "RWWWWW", "r": "WWWWWW", "s": "RRRRDLN"})
    found = judged_rows(PROBLEMS, turns, grades, quota=2)
    rows = list(found.rows)
    assert {row["problem"] for row in rows} == {"p"} and sum(row["right"] for row in rows) == 2 == len(rows) // 2
    assert found.counts == {
        "answers left out, cut off at the token limit": 1,
        "answers left out, no answer in them": 1,
        "questions left out, too few right answers": 2,
        "questions left out, too few wrong answers": 1,
        "scorer: right answers kept": 2,
        "scorer: wrong answers kept": 2,
    }
    assert [message["role"] for message in rows[0]["messages"]] == ["system", "user"]
    assert rows[0]["messages"][1]["content"].startswith("What is p?")
    often = list(judged_rows(PROBLEMS[:1], *answers({"p": "RRDD"}), quota=2).rows)
    assert [row["completion"] for row in often if not row["right"]] == ["the same"] * 2, "as often as it is said"
    everything = judged_rows(PROBLEMS, turns, grades, quota=0)
    assert len(list(everything.rows)) == 6 + 6 + 6 + 5
    with pytest.raises(TeamtuneError, match="quota is -1"):
        judged_rows(PROBLEMS, turns, grades, quota=-1)


def test_what_is_no_solution_with_a_final_answer_is_left_out() -> None:
    turns, grades = answers({"p": "RRWW"})
    grades[0] |= {"rule": "last number"}
    turns[2]["text"] = "Answer: 5"
    found = judged_rows(PROBLEMS[:1], turns, grades, quota=0)
    assert [row["completion"] for row in found.rows] == [turns[1]["text"], turns[3]["text"]]
    assert found.counts["answers left out, no answer in them"] == 1
    assert found.counts["answers left out, nothing stands before the answer"] == 1


def test_the_draw_depends_on_the_seed_alone() -> None:
    turns, grades = answers({"p": "RRRRRRWWWWWW"})
    texts = lambda seed: [row["completion"] for row in judged_rows(PROBLEMS, turns, grades, quota=2, seed=seed).rows]  # noqa: E731
    assert texts(0) == texts(0) and len({tuple(texts(seed)) for seed in range(8)}) > 1


def test_what_is_lacking_is_asked_for_and_fills_up() -> None:
    turns, grades = answers({"p": "RRWW", "q": "RRRW", "r": "WWW"})
    assert [row["id"] for row in all_asked_for(PROBLEMS, turns, grades, 2)] == ["wrong:q", "wrong:s"]
    [right] = asked_for(PROBLEMS, *answers({"p": "RW", "r": "WW"}), quota=2, right=True)
    assert right["id"] == "p" and "One right solution is:\nR p 0" in right["question"]
    more, more_grades = answers({"wrong:q": "WWR"})
    more[1]["text"] = "Let me rephrase it"
    more[0]["text"] = "Six and one and none make seven in all.\n#### 7"
    more = under_own_name(more)
    assert [(row["problem"], row["take"]) for row in more] == [("q", 3), ("q", 4), ("q", 5)]
    more_grades = [{**row, "problem": "q", "take": row["take"] + 3} for row in more_grades]
    found = judged_rows(PROBLEMS[:2], turns, grades, more, more_grades, quota=2)
    own = [(row["right"], row["source"]) for row in found.rows if row["problem"] == "q"]
    assert own == [(True, "sampled"), (True, "sampled"), (False, "sampled"), (False, "asked for")]
    assert found.counts["answers left out, they speak of the request"] == 1


# ---- measures --------------------------------------------------------------------------------------------------------

scored = st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 0.55, 0.9, 1.0]), st.booleans()), min_size=1, max_size=12)


@given(scored)
def test_auroc_against_a_slow_loop(found: list[tuple[float, bool]]) -> None:
    right, wrong = [s for s, r in found if r], [s for s, r in found if not r]
    pairs = [(a > b) + 0.5 * (a == b) for a in right for b in wrong]
    expected = sum(pairs) / len(pairs) if pairs else None
    value = calibration.auroc([s for s, _ in found], [r for _, r in found])
    assert value == (None if expected is None else pytest.approx(expected))


@given(scored)
def test_calibration_against_a_slow_loop(found: list[tuple[float, bool]]) -> None:
    scores, right = [s for s, _ in found], [r for _, r in found]
    bins: dict[int, list[tuple[float, bool]]] = {}
    for score, label in found:
        bins.setdefault(min(9, int(score * 10)), []).append((score, label))
    gap = sum(abs(sum(s for s, _ in own) - sum(r for _, r in own)) for own in bins.values()) / len(found)
    assert calibration.ece(scores, right) == pytest.approx(gap)
    assert sum(row["n"] for row in calibration.curve(scores, right)) == len(found)


def test_measures_refuse_what_they_cannot_measure() -> None:
    with pytest.raises(TeamtuneError, match="1 scores and 2 labels"):
        calibration.auroc([0.5], [True, False])
    with pytest.raises(TeamtuneError, match="outside"):
        calibration.ece([1.5], [True])


def test_measures_by_level_and_by_length() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {
            "score": float(rng.random()),
            "right": bool(rng.random() < 0.5),
            "tokens": 20 + 40 * (i % 3),
            "level": str(i % 2),
            "number": "1",
        }
        for i in range(60)
    ]
    found = calibration_rows(rows)
    assert [(row["by"], row["group"]) for row in found] == [
        *(("", "all"), ("level", "0"), ("level", "1")),
        *(("tokens", "0 to 39"), ("tokens", "40 to 79"), ("tokens", "80 to 119")),
    ]
    assert found[0]["n"] == 60 == sum(row["n"] for row in found if row["by"] == "tokens")


def test_a_scorer_that_knows_nothing_is_told_of() -> None:
    def told(auroc: float | None, right: float = 0.4) -> str:
        return unable([{"by": "", "n": 80, "right": right, "auroc": auroc}])

    assert not told(0.7) and "an AUROC of 0.55 ± 0.07 on 80 answers" in told(0.55)
    assert "an AUROC of 0.62 ± 0.06 on 80" in told(0.62), "which may be chance"
    # Hanley and McNeil 1982: n answers of each kind, all told apart but for chance.
    assert calibration.auroc_error(0.5, 50, 50) == pytest.approx(math.sqrt(0.25 + 49 / 6) / 50)
    assert calibration.auroc_error(1.0, 9, 4) == 0.0
    assert told(None, 1.0).startswith("all 80 answers to test problems are right")


def test_a_hint_that_hardly_varies_gets_no_say_of_its_own() -> None:
    """Last tokens that are all but certain: whoever ends in another way must not be right, or wrong, for that alone."""
    generator = torch.Generator().manual_seed(0)
    right = torch.tensor([1.0, 0.0] * 100)
    telling = right + torch.randn(200, generator=generator)
    still = 2e-5 * (right + torch.rand(200, generator=generator))
    weight, bias = logistic(torch.stack([still, telling], dim=-1), right)
    assert abs(float(weight[0])) < 1.0 < float(weight[1])
    alone, _ = logistic(telling[:, None], right)
    assert float(weight[1]) == pytest.approx(float(alone[0]), rel=1e-2)
    assert torch.isfinite(bias)


def test_a_scorers_fit_that_breaks_off_ends_the_same(tiny: str, tmp_path: Path) -> None:
    rows, scoring = separable(24, 3), Scoring(surprise=True)
    options = Fit(rate=1e-2, batch=4, epochs=2, save_every=2)
    args = (rows, Team(tiny, (Agent(SCORER),)), [SCORER], Lora(rank=2), scoring, options)
    whole = list(fit(tmp_path / "whole", *args))
    broken = fit(tmp_path / "broken", *args)
    for _ in range(6):
        next(broken)
    broken.close()
    rest = list(fit(tmp_path / "broken", *args))
    assert rest[0]["step"] == 4, "it goes on from the last state"
    for got, want in zip(rest, whole[4:], strict=True):
        assert got == pytest.approx(want, rel=1e-4, abs=1e-5)
    for file in ("adapter_model.safetensors", "head.safetensors"):
        one, other = (load_file(tmp_path / name / SCORER / file) for name in ("whole", "broken"))
        for name, tensor in one.items():
            torch.testing.assert_close(other[name], tensor, rtol=1e-4, atol=1e-6)


# ---- the commands ----------------------------------------------------------------------------------------------------


def test_the_commands_train_resume_and_measure(
    brief: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, options = tmp_path / "run", ["--task", "tests.easy_task", "--model", brief, "--train", "6", "--test", "4"]
    options += ["--test-samples", "2", "--scorer.samples", "12", "--scorer.quota", "1", "--scorer.ask", "1"]
    options += ["--scorer.sampling.max-tokens", "24", "--scorer.fit.batch", "4"]
    command = ["scorer", "train", "--out", str(out), *options]
    cli([*command, "--dry-run"])
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert not out.exists() and plan["training generations"] == 72 and plan["test generations"] == 8
    with monkeypatch.context() as patch:
        from teamtune.recipes import scorer_measures as recipe

        def broken(*_: object) -> None:
            raise KeyboardInterrupt

        broken.__module__, broken.__qualname__ = recipe.scored_rows.__module__, recipe.scored_rows.__qualname__
        patch.setattr(recipe, "scored_rows", broken)
        with pytest.raises(SystemExit, match="130"):
            cli(command)
    before = (out / "scorer" / "turns" / "rows.parquet").stat().st_mtime_ns
    cli(command)
    assert (out / "scorer" / "turns" / "rows.parquet").stat().st_mtime_ns == before
    assert "AUROC" in capsys.readouterr().out and "## Scorer" in (out / "report.md").read_text()
    assert len(read_table(out / "scored")) == 8
    again = tmp_path / "again"
    cli(["scorer", "eval", "--run", str(out), "--out", str(again), "--test-samples", "3"])
    assert len(read_table(again / "scored")) == 12
    with pytest.raises(SystemExit, match="2"):
        cli(["scorer", "judge"])
    assert "does train or eval, not judge" in capsys.readouterr().err


def test_a_scorer_may_learn_from_discussions(brief: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, options = tmp_path / "run", ["--task", "tests.easy_task", "--model", brief, "--train", "6", "--test", "3"]
    options += ["--test-samples", "2", "--scorer.samples", "3", "--scorer.quota", "1", "--scorer.agents", "2"]
    options += ["--scorer.turns", "2", "--scorer.sampling.max-tokens", "24", "--scorer.fit.batch", "4"]
    command = ["scorer", "train", "--out", str(out), *options]
    cli([*command, "--dry-run"])
    plan = json.loads(capsys.readouterr().out)["plan"]
    cli(command)
    turns, kept = read_table(out / "scorer" / "turns").rows(), read_table(out / "scorer" / "rows").rows()
    assert len(turns) == 6 * 3 * 2 * 2 == plan["training generations"] and SCORER not in {t["agent"] for t in turns}
    later = {(turn["problem"], turn["take"], turn["turn"]) for turn in turns if turn["tag"] == "turn-2"}
    assert any((row["problem"], row["take"], row["turn"]) in later for row in kept)
    assert all(len(row["messages"]) == 2 for row in kept), "each as if it were the first answer"
    scored = read_table(out / "scored").rows()
    assert len(scored) == 3 * 2 * 4 == plan["test generations"]
    told = {(row["by"], row["group"]): row["n"] for row in read_table(out / "calibration").rows()}
    assert told["turn", "1"] == told["turn", "2"] == 12
    again = tmp_path / "again"
    cli(["scorer", "eval", "--run", str(out), "--out", str(again)])
    assert len(read_table(again / "scored")) == 24


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--scorer.samples", "0"], "samples of the scorer is 0"),
        (
            ["--scorer.samples", "4", "--scorer.quota", "3", "--scorer.ask", "0"],
            "quota of 3 right and 3 wrong answers cannot be met by 4",
        ),
        (["--test-samples", "0"], "test_samples is 0"),
    ],
)
def test_options_out_of_range(more: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli(["scorer", "train", "--out", str(tmp_path / "run"), *more])
    assert told in capsys.readouterr().err
