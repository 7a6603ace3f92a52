"""MAPoRL as a recipe on the tiny model: everything in one run, killed and resumed, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from teamtune.amiss import amiss
from teamtune.calibration import drift
from teamtune.cli import main as command
from teamtune.credit.discussion import INCENTIVES, Incentives, Rewards
from teamtune.credit.penalty import CAUSES
from teamtune.curate.discussions import best_discussions
from teamtune.recipes.maporl_rivals import answers_for
from teamtune.recipes.maporl_team import (
    Lab,
    Maporl,
    Trained,
    generated,
    rewards_of,
    size,
    trained_tokens_of,
    untrained_team,
)
from teamtune.recipes.scorer_source import questions_before, trained_on
from teamtune.recipes.stored import stored_options
from teamtune.reporting import facts
from teamtune.store import read_table, write_rows
from teamtune.tasks import TaskSpec, parted
from teamtune.tasks.stages import problem_rows
from teamtune.train.fit import Metrics
from teamtune.train.policies import Ppo
from teamtune.types import SCORER, Row, TeamtuneError, place_of

OPTIONS = """
--task tests.spoken_task --train 24 --test 6 --scorer-questions 8
--sampling.max-tokens 32 --sampling.temperature 1 --rewards.gate.shortest 0
--ppo.updates 3 --ppo.problems 4 --ppo.fit.epochs 1 --ppo.fit.rate 1e-3 --ppo.save-every 1
"""
MAKING = """
--making.samples 8 --making.quota 1 --making.ask 0 --making.sampling.max-tokens 12 --making.fit.rate 1e-2
"""
SMALL = [*OPTIONS.split(), *MAKING.split()]
DEFAULT = ["--scorer-questions", "500"]
GRADED = ["--scorer", "grader", *DEFAULT]
UNGATED = "--rewards.gate.shortest 0 --rewards.gate.repeats 0 --rewards.gate.no-unread --rewards.gate.no-after".split()
ALL = (
    "off-the-shelf votes no-feedback hidden-scores single-agent frozen-partners no-scorer sft no-collaboration".split()
)
ALL += ["incentives"]


def trained(model: str, out: Path, *more: str) -> Path:
    """A run of small settings; those of making a scorer only where one is made."""
    own = SMALL if not {"grader", "none", "--scorer-from"} & {*more} else OPTIONS.split()
    command(["maporl", "--model", model, "--out", str(out), *own, *more])
    return out


def rows(folder: Path, name: str) -> list[Row]:
    return read_table(folder / name).rows()


def metrics(folder: Path, stage: str) -> list[Row]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "seconds" not in k} for line in lines if line["stage"] == stage]


@pytest.fixture(scope="module")
def whole(brief: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything in one run, which is broken off after the second update."""
    out = tmp_path_factory.mktemp("maporl") / "run"
    options = ["--baselines", *ALL, "--sizes", "3x3", "2x2", "--eval-task", "tests.spoken_task:poisoned"]
    with pytest.MonkeyPatch.context() as patch:
        from teamtune.recipes import maporl_learn

        real, calls = maporl_learn.rewards_in, []

        def broken(*args: Any, **named: Any) -> Any:
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return real(*args, **named)

        patch.setattr(maporl_learn, "rewards_in", broken)
        with pytest.raises(SystemExit, match="130"):
            trained(brief, out, *options)
    assert len(metrics(out, "ppo")) == 2
    return trained(brief, out, *options)


def test_every_system_stands_in_the_comparison(whole: Path) -> None:
    table = {row["system"]: row for row in rows(whole, "comparison")}
    assert list(table) == [
        *("Off-the-shelf, 2x2", "MAPoRL, 2x2", "Off-the-shelf", "Off-the-shelf, alone, equal calls"),
        "Off-the-shelf without scores",
        *("MAPoRL, scores not shown", "Single-agent RL, alone", "Single-agent RL, alone, equal calls"),
        *("Single-agent RL, in discussion", "One agent trained, beside untrained ones"),
        *("One agent trained, in all places", "MAPoRL without a scorer", "SFT on the best discussions"),
        "Trained, the question alone",
        *(f"MAPoRL with {name} 2" for name in ("alpha_0", "alpha_1", "beta_0", "beta_1")),
        "MAPoRL",
    ]
    assert table["MAPoRL"]["calls"] == 9 and table["MAPoRL, 2x2"]["calls"] == 4, "scores are no generations"
    assert table["MAPoRL"]["prompt_tokens"] and table["Single-agent RL, alone"]["calls"] == 3
    assert table["Single-agent RL, alone, equal calls"]["calls"] == 9
    assert table["Off-the-shelf, alone, equal calls"]["calls"] == 9
    assert not any(row["agent"] == SCORER for row in rows(whole, "test/votes/turns")), "nobody asks for scores"
    assert table["Off-the-shelf"]["trained_tokens"] == 0 < table["MAPoRL"]["trained_tokens"]
    assert [one["agent"] for one in table["One agent trained, in all places"]["trained"]] == ["agent-1"]


def test_a_run_that_was_broken_off_ends_as_an_unbroken_one(whole: Path, brief: str, tmp_path: Path) -> None:
    again = trained(brief, tmp_path / "run", "--baselines")
    assert metrics(again, "ppo") == metrics(whole, "ppo")
    files = [folder / "ppo" / "agent" / "adapter_model.safetensors" for folder in (whole, again)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_turn_by_turn(whole: Path) -> None:
    table = rows(whole, "by-turn")
    own = [row for row in table if row["system"] == "MAPoRL"]
    assert [row["turn"] for row in own] == [1, 2, 3] and all(row["n"] == 6 for row in own)
    # The first turn is the base's, and its draws are the same.
    assert own[0]["diff"] == 0 == own[0]["low"] == own[0]["high"]
    final = next(row for row in rows(whole, "comparison") if row["system"] == "MAPoRL")
    assert own[-1]["accuracy"] == pytest.approx(final["accuracy"])
    paired = [row for row in table if row["system"] == "MAPoRL, 2x2"]
    base = {row["turn"]: row["accuracy"] for row in table if row["system"] == "Off-the-shelf, 2x2"}
    assert [row["turn"] for row in paired] == [1, 2]
    for row in paired:
        assert row["diff"] == pytest.approx(row["accuracy"] - base[row["turn"]]), "beside its own size"
    further = rows(whole, "transfer/tests.spoken_task-poisoned/by-turn")
    assert {row["system"] for row in further} >= {"Off-the-shelf", "MAPoRL"}


def test_incentives_are_studied_beside_none(whole: Path) -> None:
    found = rows(whole, "shifts")
    assert {row["system"] for row in found} == {
        f"MAPoRL with {n} 2" for n in ("alpha_0", "alpha_1", "beta_0", "beta_1")
    }
    assert len(found) == 4 * 2 * 2 * 6 and all(row["n"] == 6 for row in found)
    table = {(row["system"], row["turn"]): row for row in rows(whole, "by-turn")}
    for row in found:
        prefix = "influence " if row["of"] == "influence" else ""
        name = {"delta_0": f"{prefix.strip()}_delta_0".lstrip("_"), "delta_1": f"{prefix.strip()}_delta_1".lstrip("_")}
        key = name.get(row["cell"], f"{prefix}{row['cell']}")
        assert row["share"] == pytest.approx(table[row["system"], row["turn"]][key])
        assert row["without"] == pytest.approx(table["MAPoRL", row["turn"]][key])
        assert row["low"] <= row["diff"] <= row["high"]
    for name, turns in (("alpha_0", (2, 3)), ("alpha_1", (2, 3)), ("beta_0", (2,)), ("beta_1", (2,))):
        lines = metrics(whole, f"incentives/{name}/ppo")
        assert any(line[f"agent-{a}-turn-{t}/incentive"] for line in lines for a in (1, 2) for t in turns), name
    assert not any(line[f"agent-{a}-turn-3/incentive"] for line in metrics(whole, "ppo") for a in (1, 2))


def test_a_single_agent_is_trained_on_as_many_tokens(whole: Path) -> None:
    answers = list(generated(whole / "single-agent" / "ppo"))
    assert {(row["agent"], row["tag"]) for row in answers} == {("agent", "turn-1")} and len(answers) % (3 * 4) == 0
    team = sum(line["generated_tokens"] for line in metrics(whole, "ppo"))
    first = [len(row["token_ids"]) for row in generated(whole / "ppo") if row["tag"] == "turn-1"]
    # As near as whole answers come: half an answer for each of three updates' four problems.
    assert abs(len(answers) - team / (sum(first) / len(first))) <= 3 * 4 / 2


def test_how_many_answers_have_as_many_tokens_as_a_discussion(tmp_path: Path) -> None:
    """First answers have 10 tokens, later ones 20 and 30: two agents over three turns make 120, or 12 first answers."""
    row = lambda agent, turn: {"agent": agent, "tag": f"turn-{turn}", "token_ids": [1] * 10 * turn}  # noqa: E731
    found = [row("agent", turn) for turn in (1, 2, 3) for _ in range(2)] * 4
    scorer = [{"agent": SCORER, "tag": "score-1", "token_ids": None}] * 6
    for number in range(2):
        write_rows(tmp_path / "updates" / f"{number:06d}.parquet", [*found, *scorer])
    assert answers_for(tmp_path, Ppo(updates=2, problems=4)) == 12
    assert answers_for(tmp_path, Ppo(updates=2, problems=2, takes=2)) == 24, "for a problem, of all its takes"


def test_without_a_scorer_the_last_answer_is_all_that_counts(whole: Path) -> None:
    found = pq.read_table(whole / "no-scorer" / "ppo" / "updates" / "000000.parquet").to_pylist()
    rounds = {key: [row for row in found if (row["problem"], row["tag"]) == key] for key in ids(found)}
    assert len(found) == 4 * 2 * 3 and not any(row["penalty"] or row["incentive"] for row in found)
    for (problem, _), own in rounds.items():
        last = rounds[problem, "turn-3"]
        assert [row["reward"] for row in own] == [float(row["graded"]) for row in last], "agent by agent"
    some = [pq.read_table(file).to_pylist() for file in (whole / "no-scorer" / "ppo" / "updates").iterdir()]
    assert len({row["reward"] for rows_ in some for row in rows_}) == 2, "both grades are met"


def ids(turns: list[Row]) -> set[tuple[str, str]]:
    """The turns of discussions."""
    return {(row["problem"], row["tag"]) for row in turns}


def test_what_was_learned_from_is_kept_with_its_rewards(whole: Path) -> None:
    found = pq.read_table(whole / "ppo" / "updates" / "000001.parquet").to_pylist()
    answers = [row for row in found if row["agent"] != SCORER]
    assert len(answers) == len(found) / 2 == 4 * 2 * 3
    assert all(row["reward"] == pytest.approx(row["base"] + row["incentive"]) for row in answers)
    scores = {(row["problem"], row["parents"][0]): float(row["text"]) for row in found if row["agent"] == SCORER}
    assert all(row["score"] == scores[row["problem"], row["turn"]] for row in answers)
    assert not any((whole / "ppo").glob("state*")) and not (whole / "ppo" / "opener").exists()


def test_the_scorer_is_made_on_other_problems(whole: Path) -> None:
    ids = {name: {row["id"] for row in rows(whole, f"problems/{name}")} for name in ("first", "train", "test")}
    assert [len(found) for found in ids.values()] == [8, 24, 6]
    assert not (ids["first"] & ids["train"] or ids["first"] & ids["test"] or ids["train"] & ids["test"])
    assert {row["problem"] for row in rows(whole, "scorer/rows")} <= ids["first"]


def test_the_report_tells_of_it(whole: Path) -> None:
    text = (whole / "report.md").read_text()
    for title in ("## Turn by turn", "## How answers moved", "## Scorer", "## Learning"):
        assert title in text
    assert "not finished" not in text and "WRR" in text
    learning = text[text.index("## Learning") :]
    assert "| Agent and turn | reward | base | incentive |" in learning
    paid = learning[learning.index("incentives/alpha_1/ppo: incentives, penalties and ends of all updates") :]
    assert "paid" in paid.split("\n\n")[1].splitlines()[0], "what was paid is told, by agent and turn"
    assert "ended early" not in text
    assert "score " in (page := (whole / "report.html").read_text())
    assert "24 train" in text and "Test on tests.spoken_task-poisoned: MAPoRL" in page
    assert "of tests.spoken_task-poisoned" not in page and "Of tests, the same problems for every system" in page
    found = {row["system"]: row["parameters"] for row in facts.gather(whole)["costs"]}
    assert found["Off-the-shelf"] == 0, "a scorer is nobody who answers"
    assert found["MAPoRL"] == found["MAPoRL without a scorer"] > 0
    assert "Base, answers for the scorer" in text and "| scorer |" not in text


def test_a_plan_counts_what_the_run_then_takes(whole: Path, brief: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--baselines", *ALL, "--sizes", "3x3", "2x2", "--eval-task", "tests.spoken_task:poisoned", "--dry-run"]
    command(["maporl", "--model", brief, "--out", str(whole / "none"), *SMALL, *options])
    plan = json.loads(capsys.readouterr().out)["plan"]
    own = lambda folder: sum(row["agent"] != SCORER for row in read_table(folder).rows())  # noqa: E731
    played = [file.parent for part in ("test", "transfer") for file in (whole / part).rglob("turns/DONE.json")]
    assert plan["test generations"] == sum(map(own, played))
    assert plan["generations for the scorer"] == len(rows(whole, "scorer/turns"))
    assert plan["answers of an update"] == 24 and plan["training generations"] == 9 * 3 * 24 + 24 * 6


def test_a_trained_team_in_other_discussions(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = tmp_path / "same"
    command(["eval", "--run", str(whole), "--out", str(same), "--sizes", "3x3"])
    found = {row["system"]: row for row in rows(same, "comparison")}
    expected = {row["system"]: row for row in rows(whole, "comparison")}
    for name in ("Off-the-shelf", "MAPoRL"):
        assert found[name]["accuracy"] == expected[name]["accuracy"], "as in the run itself"
        assert found[name]["trained_tokens"] == expected[name]["trained_tokens"]
    assert "Test: MAPoRL" in (same / "report.html").read_text()
    other = tmp_path / "other"
    command(
        ["eval", "--run", str(whole), "--out", str(other), "--sizes", "1x2", "2x4", "--no-feedback", "--limit", "3"]
    )
    assert [row["turn"] for row in rows(other, "by-turn") if row["system"] == "MAPoRL, 2x4"] == [1, 2, 3, 4]
    shown = [row["messages"][-1]["content"] for row in rows(other, "test/team-2x4/turns") if row["tag"] == "turn-2"]
    assert not any("score" in text for text in shown)
    found = {row["system"]: row for row in rows(other, "comparison")}
    assert list(found)[-1] == "MAPoRL, 1x2" and found["MAPoRL, 1x2"]["diff"] == 0, "the first size is compared with"
    votes = tmp_path / "votes"
    command(["eval", "--run", str(whole), "--out", str(votes), "--sizes", "3x1", "--limit", "3"])
    assert rows(votes, "comparison")[-1]["trained_tokens"] == 0, "a frozen first turn alone"
    back = tmp_path / "back"
    command(["eval", "--run", str(whole), "--out", str(back), "--untrained", "agent", "--limit", "3", "--sizes", "2x2"])
    one, two = (row["accuracy"] for row in rows(back, "comparison"))
    assert one == two, "a team without its policies is the base"
    for dry in ([], ["--dry-run"]):
        with pytest.raises(SystemExit, match="2"):
            command(["eval", "--run", str(whole), "--out", str(tmp_path / "bad"), "--untrained", "opener", *dry])
        assert "is no trained seat; there are agent" in capsys.readouterr().err
    server = ("--engine.kind", "openai", "--engine.openai.base-url", "http://127.0.0.1:9/v1", "--engine.openai.names")
    with pytest.raises(SystemExit, match="2"):
        command(["eval", "--run", str(whole), "--out", str(tmp_path / "bad"), *server, "nobody=x"])
    assert "has a name for 'nobody', and seats are opener, agent" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "bad").exists()


def test_a_scorer_of_discussions_says_what_incentives_are_paid_for(brief: str, tmp_path: Path) -> None:
    """One that is told how likely the base finds an answer, in a training that is tracked."""
    pytest.importorskip("tensorboard")
    options = ["--baselines", "--ppo.updates", "1", "--sizes", "2x2", "--track", "tensorboard"]
    options += ["--making.agents", "2", "--making.turns", "2", "--making.scoring.surprise"]
    options += ["--rewards.incentives.alpha-1", "1", "--rewards.right-by", "scorer"]
    folder = trained(brief, tmp_path / "run", *options)
    found = pq.read_table(folder / "ppo/updates/000000.parquet").to_pylist()
    answers = [row for row in found if row["agent"] != SCORER]
    assert all(row["right"] == (row["score"] > 0.5) for row in answers)
    assert len({row["score"] for row in answers}) > 1 and any(row["right"] != row["graded"] for row in answers)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    [line] = metrics(folder, "ppo")
    assert {f"ppo/{name}" for name in line if "/" in name} <= {*events.Tags()["scalars"]}


@pytest.mark.parametrize("more", [GRADED, ["--share", "agent-turn", "--first-turn", "trained"]])
def test_other_ways_to_train(brief: str, tmp_path: Path, more: list[str]) -> None:
    folder = trained(brief, tmp_path / "run", "--baselines", "--ppo.updates", "1", "--sizes", "2x2", *more)
    policies = {path.name for path in (folder / "ppo").iterdir() if (path / "adapter_config.json").exists()}
    expected = {f"agent-{a}-turn-{t}" for a in (1, 2) for t in (1, 2, 3)} if "agent-turn" in more else {"agent"}
    assert policies == expected and (folder / "scorer").exists() == ("grader" not in more)


def test_discussions_that_end_early(brief: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both give the same answer, and its score is good."""
    read_as_the_task_does = lambda problem, texts: [str(len(text) % 2) for text in texts]  # noqa: E731
    monkeypatch.setattr("teamtune.protocols.discussion.settled", read_as_the_task_does)
    options = ["--baselines", "off-the-shelf", "no-feedback", "--early.share", "1", "--early.score", "0.46"]
    folder = trained(brief, tmp_path / "run", *options)
    lines = metrics(folder, "ppo")
    assert any(1 < line["turns"] < 3 for line in lines), "some end early, and others do not"
    for number, line in enumerate(lines):
        found = pq.read_table(folder / "ppo/updates" / f"{number:06d}.parquet").to_pylist()
        answers = [row for row in found if row["agent"] != SCORER]
        last = {problem: max(row["tag"] for row in answers if row["problem"] == problem) for problem, _ in ids(answers)}
        own = [row for row in answers if row["tag"] == last[row["problem"]]]
        assert line["last/score"] == pytest.approx(sum(row["score"] for row in own) / len(own))
        assert line["last/graded"] == pytest.approx(sum(row["graded"] for row in own) / len(own))
        assert line["turns"] == pytest.approx(sum(int(tag[-1]) for tag in last.values()) / len(last))
    text = (folder / "report.md").read_text()
    assert "some discussions ended early; turns of a discussion" in text


def test_a_policy_that_nothing_ever_came_to_is_named_with_a_way_out(
    brief: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("teamtune.protocols.discussion.settled", lambda problem, texts: ["same"] * len(texts))
    options = ["--baselines", *GRADED, "--share", "turn", "--first-turn", "trained", "--early.share", "1"]
    with pytest.raises(SystemExit, match="2"):
        trained(brief, tmp_path / "run", *options, "--ppo.updates", "1")
    told = " ".join(capsys.readouterr().err.split())
    assert "turn-2 learned from no answer in" in told and "let fewer end early (early.share is 1)" in told


def test_agents_on_other_bases_open_and_learn_on_their_own(
    brief: str, tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--partners", tiny, "--share", "agent", "--sizes", "2x2", "--ppo.updates", "1"]
    options += ["--baselines", "off-the-shelf", "votes", "single-agent", "no-collaboration"]
    folder = trained(brief, tmp_path / "run", *options)
    said = capsys.readouterr().err
    assert f"the scorer is trained on answers of {brief} and scores those of {tiny} too" in " ".join(said.split())
    turns = rows(folder, "test/team/turns")
    assert {row["agent"] for row in turns} == {"agent-1-opener", "agent-2-opener", "agent-1", "agent-2", SCORER}
    learned = {path.name for path in (folder / "ppo").iterdir() if (path / "adapter_config.json").exists()}
    assert learned == {"agent-1", "agent-2"}
    opened = [
        [(row["problem"], row["text"]) for row in rows(folder, f"test/{place}/turns") if "opener" in row["agent"]]
        for place in ("team", "base")
    ]
    assert opened[0] == opened[1] and len(opened[0]) == 12
    assert {row["agent"] for row in rows(folder, "test/votes/turns")} == {"agent-1-opener"}
    out = tmp_path / "later"
    command(["eval", "--run", str(folder), "--out", str(out), "--sizes", "2x2"])
    assert [row["accuracy"] for row in rows(out, "comparison")] == [
        row["accuracy"] for row in rows(folder, "comparison") if row["system"] in ("Off-the-shelf", "MAPoRL")
    ]


def test_each_agent_is_finetuned_on_its_own_base(brief: str, tmp_path: Path) -> None:
    other = shutil.copytree(brief, tmp_path / "other")
    options = ["--partners", str(other), "--share", "agent", "--sizes", "2x2", "--ppo.updates", "1", *GRADED]
    folder = trained(brief, tmp_path / "run", *options, "--baselines", "sft")
    for number, name in ((1, "agent-1"), (2, "agent-2")):
        adapters = {p.name for p in (folder / f"sft/sft-{number}").iterdir() if (p / "adapter_config.json").exists()}
        assert adapters == {name}, "each on its own base"
        assert {row["agent"] for row in rows(folder, f"sft/rows-{number}")} == {name}
    assert "not finished" not in (folder / "report.md").read_text()
    table = {row["system"]: row for row in rows(folder, "comparison")}
    tuned = {one["agent"]: one["tokens"] for one in table["SFT on the best discussions"]["trained"]}
    assert set(tuned) == {"agent-1", "agent-2"} and min(tuned.values()) > 0


def test_a_scorer_that_is_there_already(whole: Path, brief: str, tmp_path: Path) -> None:
    for told in (whole / "scorer" / "fit" / SCORER, whole):
        options = ["--baselines", "--ppo.updates", "1", *DEFAULT, "--scorer-from", str(told)]
        folder = trained(brief, tmp_path / told.name, *options)
        assert not (folder / "scorer").exists()
        # The team's problems come after the scorer's, as in the run that made both.
        assert rows(folder, "problems/train") == rows(whole, "problems/train")
    out = tmp_path / "later"
    command(["eval", "--run", str(tmp_path / "run"), "--out", str(out), "--limit", "3", "--sizes", "1x1"])
    assert len(rows(out, "comparison")) == 2


def test_a_scorer_that_was_made_for_a_team_is_measured_elsewhere(
    whole: Path, brief: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "measured"
    command(["scorer", "eval", "--run", str(whole), "--out", str(out), "--test-samples", "2"])
    assert rows(out, "problems/test") == rows(whole, "problems/test")
    assert {row["by"] for row in rows(out, "calibration")} >= {""}
    for dry in ([], ["--dry-run"]):
        with pytest.raises(SystemExit, match="2"):
            command(["scorer", "eval", "--run", str(whole), "--out", str(out), "--task", "tests.seen_task", *dry])
        assert "are in the training set too" in capsys.readouterr().err
    graded = trained(brief, tmp_path / "graded", "--baselines", "--ppo.updates", "1", *GRADED)
    with pytest.raises(SystemExit, match="2"):
        command(["scorer", "eval", "--run", str(graded), "--out", str(tmp_path / "none")])
    assert "made no scorer, it was scored by grader; give a run that made one" in capsys.readouterr().err
    (tmp_path / "killed").mkdir()
    shutil.copy(whole / "config.json", tmp_path / "killed")
    with pytest.raises(SystemExit, match="2"):
        trained(brief, tmp_path / "none", *DEFAULT, "--scorer-from", str(tmp_path / "killed"))
    assert "has no scorer that is whole: it made none, or did not end" in capsys.readouterr().err


def test_a_scorer_that_has_seen_the_problems_is_refused(
    whole: Path, brief: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The scorer's eight problems are the fourth task's training problems, under another name of the task."""
    options = ["--baselines", *DEFAULT, "--scorer-from", str(whole), "--level", "other"]
    with pytest.raises(SystemExit, match="2"):
        trained(brief, tmp_path / "run", *options)
    assert "8 of 24 training problems were the scorer's" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):  # a further task's test problems, that the scorer was trained on
        trained(brief, tmp_path / "run", *options[:-2], "--data-seed", "1", "--eval-task", "tests.seen_task")
    assert "6 of 6 test (tests.seen_task) problems were the scorer's" in capsys.readouterr().err
    alone = tmp_path / "taken" / "elsewhere"
    shutil.copytree(whole / "scorer" / "fit" / SCORER, alone)
    assert not trained_on(str(alone)) and questions_before(str(alone), TaskSpec()) == 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--turns", "1"], "turns is 1 and the first"),
        (["--sizes", "three"], "size 'three' is no AGENTSxTURNS"),
        (["--partners", "house"], "1 partners and 2 agents that share shared"),
        (
            ["--baselines", "incentives", "--rewards.incentives.alpha-0", "1"],
            "the rewards have incentives and the base",
        ),
        (["--scorer", "grader", "--scorer-from", "x"], "--scorer-from has no use"),
        (["--rewards.penalty", "5"], "penalty of the rewards is 5.0; it must be 0 or below"),
        (["--ppo.gap", "0"], "gap of ppo is 0.0; it must be above 0"),
        (["--ppo.problems", "700"], "24 problems to train on, and 700 asked for an update; raise train, or lower ppo"),
        (["--turns", "2", "--baselines", "incentives"], "beta_0 of the incentives pays for no answer that anybody"),
        (
            ["--turns", "2", "--rewards.incentives.beta-1", "1"],
            "by their table paper over 2 turns, the first of them frozen; take other cells, --turns 3 or --first-turn",
        ),
        (
            [
                *("--turns", "2", "--first-turn", "trained"),
                *("--rewards.incentives.table", "official-code", "--rewards.incentives.beta-0", "1"),
            ],
            "beta_0 of the incentives pays for no answer that anybody learns from, by their table official-code",
        ),
        (
            ["--rewards.incentives.alpha-0", "1", "--rewards.incentives.cells", "revision WRR=+alpha_1"],
            "alpha_0 of the incentives pays for no answer that anybody learns from, by their cells over 3 turns",
        ),
        (
            ["--ppo.objective", "rloo", "--ppo.group", "agent"],
            "every group of agent has a single one; take ppo.takes 2",
        ),
        (["--agents", "1", "--baselines", "--ppo.objective", "group"], "every group of turn has a single one"),
        (["--agents", "1", "--baselines", "--early.share", "1"], "there is 1 agent, with nobody to agree with"),
        (
            [*("--scorer", "none", "--baselines", "no-scorer", *DEFAULT), *UNGATED],
            "no-scorer is the method itself with scorer none and no gate",
        ),
        (
            ["--agents", "1", "--turns", "1", "--first-turn", "trained", "--baselines", "single-agent"],
            "single-agent is the method itself with 1 agent and 1 turn",
        ),
        (["--no-feedback", *GRADED], "feedback has no use with scorer grader"),
        (["--scorer", "none", "--scorer-questions", "500", "--no-feedback"], "feedback has no use with scorer none"),
        (["--scorer", "none", "--scorer-questions", "500", "--rewards.rule", "immediate"], "rule immediate of the rew"),
        (["--rewards.rule", "immediate", "--rewards.gamma", "0.5"], "gamma of the rewards has no use with rule immed"),
        (["--no-feedback", "--baselines", "hidden-scores"], "baseline hidden-scores has no use"),
        (["--ppo.objective", "group", "--ppo.trace", "0.5"], "trace of ppo has no use with objective group"),
        (["--ppo.group", "agent"], "group of ppo has no use with objective ppo"),
        (["--ppo.fit.save-every", "7"], "save_every of ppo.fit has no use"),
        (["--ppo.policy.kl", "0.1"], "kl of ppo.policy has no use"),
        (["--lora.bits", "4", "--engine.kind", "vllm"], "lora.bits 4 trains on another"),
        ([*DEFAULT, "--scorer-from", "no/such"], "no folder at 'no/such' to take a scorer from"),
        (["--rewards.gamma", "2"], "gamma of the rewards is 2.0"),
        ([*GRADED, "--ppo.problems", "25"], "24 problems to train on, and 25 asked for an update"),
        ([*GRADED, "--sampling.top-p", "0.9"], "PPO needs the whole distribution"),
        (["--engine.kind", "scripted"], "engine.kind scripted samples from no model"),
        (["--engine.kind", "openai"], "give --engine.openai.load-adapters --engine.openai.ids"),
        (
            ["--engine.kind", "openai", "--engine.openai.names", "agnt=x"],
            "has a name for 'agnt', and seats are",
        ),
        (["--engine.kind", "openai", "--partners", "house", "--share", "agent", "--sizes", "2x3"], "holds one base"),
        (["--lora.shard"], "lora.shard has no use in MAPoRL"),
        (["--baselines", "--incentive", "1"], "incentive has no use with baselines without incentives"),
        (["--baselines", "incentives", "--incentive", "0"], "incentive is 0, and the baseline incentives pays it"),
        (["--baselines", "--sft.rate", "1e-3"], "sft has no use with baselines without sft"),
        ([*GRADED, "--making.samples", "5"], "making has no use with scorer grader"),
        ([*DEFAULT, "--scorer-from", "x", "--making.samples", "5"], "making has no use with scorer_from"),
        (["--making.quota", "0", "--making.ask", "3"], "ask of the scorer has no use with quota 0"),
        (["--scorer", "none", *DEFAULT, "--rewards.gamma", "1"], "gamma of the rewards has no use with scorer none"),
        (["--rewards.right-by", "scorer"], "right_by of the rewards has no use with incentives that are not paid"),
        (["--rewards.incentives.ties", "include-self"], "ties of the incentives has no use with incentives that are"),
        (
            ["--rewards.incentives.alpha-0", "1", "--rewards.incentives.ties", "include-self"],
            "ties of the incentives has no use with 2 agents",
        ),
        (["--rewards.incentives.cells", "revision WRR=+alpha_1"], "cells of the incentives has no use"),
        (
            ["--baselines", "incentives", "--rewards.incentives.cells", "revision WRR=+alpha_1"],
            "alpha_0 of the incentives pays for no answer",
        ),
        (["--agents", "1", "--rewards.incentives.alpha-0", "1"], "there are 1 agents and 3 turns; leave them out"),
        (["--agents", "1", "--baselines", "frozen-partners"], "frozen-partners has no use with 1 agent"),
        (
            ["--turns", "1", "--first-turn", "trained", "--baselines", "no-collaboration"],
            "no-collaboration has no use with 1 turn",
        ),
        (["--early.score", "0.46"], "early.score has no use with early.share 1.1"),
        ([*GRADED, "--early.share", "1", "--early.score", "0.46"], "early.score has no use with scorer grader"),
        (["--making.lora.targets", "nothing"], "has no LoRA target 'nothing'"),
        (["--sizes", "3x3", "3x1"], "size 3x1 has 1 turn and the first one is frozen"),
        (
            ["--turns", "1", "--first-turn", "trained", "--sizes", "3x1", "--rewards.gamma", "0.9"],
            "gamma of the rewards has no use with 1 turn",
        ),
        (["--ppo.kl", "0", "--ppo.kl-in", "loss"], "kl_in of ppo has no use with kl 0"),
        ([*UNGATED, "--penalty-scope", "self"], "scope of the rewards has no use with a gate that is off"),
    ],
)
def test_what_is_refused(
    brief: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], told: str
) -> None:
    """By a run, before anything is played, and by its dry run."""
    for dry in ([], ["--dry-run"]):
        with pytest.raises(SystemExit, match="2"):
            trained(brief, tmp_path / "run", *more, *dry)
        assert told in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_cell_decides_whether_its_incentive_is_learned_from() -> None:
    """Whatever coefficient it names: those of revisions at the turn itself, those of influence at the one before."""
    swapped = Incentives(cells=("revision WRR=+beta_0", "influence WRR=+alpha_0"))
    assert swapped.learned(2, frozen=True) == {"beta_0"} and swapped.learned(2, frozen=False) == {"beta_0", "alpha_0"}
    assert swapped.learned(1, frozen=False) == set() and swapped.learned(3, frozen=True) == {"beta_0", "alpha_0"}
    code = Incentives(table="official-code")
    assert code.learned(2, frozen=False) == {"alpha_0", "alpha_1"} and code.learned(3, frozen=True) == {*INCENTIVES}


def test_one_trained_agent_speaks_beside_the_bases_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from teamtune.recipes import maporl_rivals

    options: dict[str, Any] = {"baselines": ("frozen-partners",), "share": "agent", "sizes": ("3x3",), "agents": 3}
    places = {"house": ["agent-1", "agent-2", "agent-2"], "others": ["agent-1", "agent-2", "agent-3"]}
    for name, partners in (("house", ()), ("others", ("b", "c"))):
        cfg = Maporl(Path("x"), partners=partners, **options)
        lab = Lab(None, cfg, None, untrained_team(cfg, None))  # type: ignore[arg-type]
        done = Trained(lab.team, Counter(), Path("x"))
        monkeypatch.setattr(maporl_rivals, "trained", lambda variant, only, done=done: done)
        beside, _ = maporl_rivals.frozen_partners(lab)
        assert beside.protocol.keywords["speakers"][-1] == places[name]  # type: ignore[attr-defined]


def test_tokens_of_updates_that_may_end_early_are_those_that_were_taken(whole: Path) -> None:
    """Where none ends early, as many as all answers have."""
    ppo = Ppo(**{name: getattr(stored_options(Maporl, whole).ppo, name) for name in ("updates", "problems", "fit")})
    every = trained_tokens_of(whole, "ppo", ["agent"], ppo)
    assert every == trained_tokens_of(whole, "ppo", ["agent"], replace(ppo, target_kl=9.0)) and every["agent"] > 0


def test_incentives_are_paid_by_the_table_that_was_asked_for(
    brief: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever decides how they are paid reaches every team of the study, and stops none of the other baselines."""
    from teamtune.recipes import maporl_rivals

    class Stop(Exception):
        pass

    def caught(lab: Lab, only: Any = ()) -> Any:
        found.append(lab.cfg)
        raise Stop

    monkeypatch.setattr(maporl_rivals, "trained", caught)
    cells = tuple(f"{kind} {cell}={sign}" for kind, cell, sign in (
        ("revision", "WRR", "+alpha_1"), ("revision", "WRW", "+alpha_0"), ("influence", "WRR", "+beta_1"),
        ("influence", "WRW", "+beta_0"),
    ))  # fmt: skip
    for rewards in (
        Rewards(incentives=Incentives(table="official-code")),
        Rewards(incentives=Incentives(cells=cells)),
        Rewards(incentives=Incentives(ties="include-self")),
        Rewards(right_by="scorer"),
    ):
        found: list[Maporl] = []
        cfg = Maporl(tmp_path, model=brief, agents=3, baselines=("incentives",), rewards=rewards)
        lab = Lab(None, cfg, None, untrained_team(cfg, "somewhere"))  # type: ignore[arg-type]
        with pytest.raises(Stop):
            list(maporl_rivals.incentives(lab))
        paid = found[0].rewards
        assert paid == replace(cfg.rewards, incentives=replace(cfg.rewards.incentives, alpha_0=cfg.incentive))
        with pytest.raises(Stop):
            list(maporl_rivals.frozen_partners(lab))
        with pytest.raises(Stop):
            maporl_rivals.no_scorer(lab)


def test_presets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*more: str) -> Any:
        command(["maporl", "--out", str(tmp_path / "run"), *more, "--dry-run"])
        return json.loads(capsys.readouterr().out)["options"]

    assert told("--preset", "paper") == told()
    code = told("--preset", "official-code", "--ppo.kl", "0.1")
    assert code["ppo"]["kl"] == 0.1 and code["rewards"]["incentives"]["table"] == "official-code"
    assert code["making"]["scoring"]["part"] == "all" != told()["making"]["scoring"]["part"]
    command(["scorer", "train", "--preset", "official-code", "--out", str(tmp_path / "scorer"), "--dry-run"])
    alone = json.loads(capsys.readouterr().out)["options"]
    assert alone["scorer"] == code["making"], "by itself or in a run of maporl"
    # Specification 3.3 and 3.5: the verifier's betas are those of the paper, PPO's are AdamW's own.
    made, taught = alone["scorer"]["fit"], code["ppo"]["fit"]
    assert (made["batch"], made["beta2"], made["decay"], made["rate"]) == (8, 0.95, "constant", 2e-4)
    assert (alone["scorer"]["quota"], alone["scorer"]["ask"], alone["scorer"]["sampling"]["top_p"]) == (10, 10, 0.9)
    assert (taught["rate"], taught["warmup"], taught["floor"], taught["beta2"]) == (1e-5, 0.0, 0.1, 0.999)
    assert told("--preset", "official-code")["ppo"]["kl"] == 0.002 and code["rewards"]["gamma"] == 0.3
    assert not code["rewards"]["gate"]["after"] and told()["rewards"]["gate"]["after"]
    graded = told("--preset", "official-code", "--scorer", "grader")
    assert graded["making"] == told()["making"], "what a preset says of making a scorer asks nothing of who makes none"
    with pytest.raises(SystemExit, match="2"):
        told("--preset", "mine")
    assert "maporl has no preset 'mine'; there are paper, house, official-code" in capsys.readouterr().err
    (tmp_path / "own.yaml").write_text("preset: house\ntask: stories\n")
    assert told("--config", str(tmp_path / "own.yaml")) == told("--preset", "house", "--task", "stories")
    assert told("--config", str(tmp_path / "own.yaml"), "--preset", "paper") == told("--task", "stories")
    house = told("--preset", "house", "--task", "stories")
    assert house["rewards"]["gate"]["shortest"] == 10 and house["making"]["scoring"]["surprise"]
    command(["scorer", "train", "--preset", "house", "--out", str(tmp_path / "scorer"), "--dry-run"])
    alone = json.loads(capsys.readouterr().out)["options"]
    assert alone["scorer"] == house["making"] and alone["task"]["train"] == house["scorer_questions"]
    assert told("--preset", "house", "--scorer", "none")["scorer_questions"] == told()["scorer_questions"]
    with pytest.raises(SystemExit, match="2"):
        told("--preset", "official-code", "--rewards.incentives.cells", "revision WRR=+alpha_1")
    assert "has no use" in (last := capsys.readouterr().err) and "come from preset official-code too" in last


def test_parts_of_the_options() -> None:
    cfg = Maporl(Path("x"), scorer="none", rewards=Rewards(rule="influence"))
    assert rewards_of(cfg).rule == "last-own" and size("3x12") == (3, 12)
    assert [agent.name for agent in untrained_team(cfg, None).agents] == ["opener", "agent"]
    two = Maporl(Path("x"), partners=("other",), share="agent-turn", sizes=("2x3",))
    models = {agent.name: agent.model for agent in untrained_team(two, None).agents}
    assert models["agent-2-turn-2"] == models["agent-2-opener"] == "other" and models["agent-1-opener"] == ""


def test_scores_that_rise_without_accuracy_are_told_of() -> None:
    noise = [0.01, -0.01] * 4
    flat = [(0.5 + e, 0.6 - e) for e in noise]
    for later, alarming in (
        ([(0.8 + e, 0.6 + e) for e in noise], True),
        ([(0.8 + e, 0.9 + e) for e in noise], False),  # both rise
        ([(0.5 - e, 0.6 + e) for e in noise], False),  # neither does
        ([(0.8 + e, 0.3 + e) for e in noise], True),
        ([(0.8 + e, 0.6 + e) for e in noise[:7]], False),  # too few to tell
    ):
        assert bool(drift([*flat, *later])) == alarming, later


def test_a_run_whose_scores_drift_warns_and_goes_on_warning_when_resumed(
    whole: Path, brief: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from teamtune.recipes import maporl_learn

    lengths: list[int] = []

    def drifting(history: list[tuple[float, float]]) -> str:
        lengths.append(len(history))
        return "scores rise alone" if len(history) > 1 else ""

    monkeypatch.setattr(maporl_learn, "drift", drifting)
    options = ["--baselines", *DEFAULT, "--scorer-from", str(whole)]
    folder = trained(brief, tmp_path / "run", *options)
    assert [line["alarm"] for line in metrics(folder, "ppo")] == [0.0, 1.0, 1.0] and lengths == [1, 2, 3]
    assert capsys.readouterr().err.count("warning: update 1: scores rise alone") == 1
    assert (
        "Warning, ppo: scores rose and accuracy did not clearly, from update 1 on."
        in (folder / "report.md").read_text()
    )
    done = [one for pair in maporl_learn.before(folder / "ppo", 3) for one in pair]
    logged = [line[f"last/{name}"] for line in metrics(folder, "ppo") for name in ("score", "graded")]
    assert done == pytest.approx(logged), "what a resumed training begins with"


def test_settings_that_do_not_suit_the_model_are_told_of_after_the_first_update(
    brief: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def place(right: float, charged: float, overflow: float, **causes: float) -> dict[str, float]:
        told = {"discussions": 10.0, "accuracy": right, "penalties_of_right": charged, "finish: overflow": overflow}
        return told | {f"penalty: {cause}": causes.get(cause.split()[-1], 0.0) for cause in CAUSES}

    def line(*places: dict[str, float]) -> Metrics:
        return {f"agent-1-turn-{n + 1}/{name}": x for n, own in enumerate(places) for name, x in own.items()}

    assert not amiss(line(place(0.5, 0.2, 0.4), place(0.5, 0.3, 0.0))), "a quarter of all right ones, half of a turn"
    [told] = amiss(line(place(0.5, 0.2, 0.0, begun=0.1), place(0.7, 0.4, 0.0, short=0.3, answer=0.2)))
    assert told.startswith("32% of the right answers of the first update were penalised") and ": too short)" in told
    [told] = amiss(line(place(0.5, 0.0, 0.0), place(0.1, 0.0, 0.6)))
    assert told.startswith("60% of the answers of agent 1 at turn 2 were not begun")
    assert not amiss(line(place(0.0, 0.0, 0.0)))
    assert not amiss({"groups": 10, "degenerate_groups": 9})
    assert amiss({"groups": 16, "degenerate_groups": 16})[0].startswith("16 of the 16 groups of the first update have")
    options = ["--baselines", "--ppo.updates", "2", *GRADED, "--rewards.gate.shortest", "33"]
    folder = trained(brief, tmp_path / "run", *options)
    err, said = (
        " ".join(capsys.readouterr().err.split()),
        "100% of the right answers of the first update were penalised",
    )
    assert err.count(f"warning: {said}") == 1 and f"Warning, ppo: {said}" in (folder / "report.md").read_text()


def test_problems_in_three_parts() -> None:
    first, train, test = parted(TaskSpec("arithmetic", train=6, test=4), 3)
    assert (first.span, train.span, test.span) == ((0, 3), (3, 9), None)


def test_questions_of_the_scorer_are_left_out_of_the_teams(tmp_path: Path) -> None:
    asked = [f"What is {i} + 1?" for i in range(4)]
    (tmp_path / "test.jsonl").write_text(json.dumps({"id": "t", "question": "Other?", "answer": "3"}) + "\n")

    def task(count: int) -> TaskSpec:
        rows = [{"id": str(i), "question": one, "answer": "3"} for i, one in enumerate(asked)]
        (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        pool, test = str(tmp_path / "pool.jsonl"), str(tmp_path / "test.jsonl")
        return TaskSpec("data", data=pool, test_data=test, grader="number", train=count, test=1)

    order = [int(problem.id) for problem in task(4).load("train")]  # they are mixed
    asked[order[2]] = f"{asked[order[0]].lower()}?"
    split = parted(task(2), 2)[1]
    found = problem_rows(split.task, "train", split.digest, 0, split.span)
    assert [int(row["id"]) for row in found.rows] == [order[3]]
    assert found.counts == {"among the problems of what is trained before": 1}
    asked[order[3]] = asked[order[1]]
    with pytest.raises(TeamtuneError, match="the 2 training problems after the first 2 are among those"):
        parted(task(2), 2)


def test_the_best_discussions_are_those_with_the_best_last_answers() -> None:
    turns: list[Row] = []
    grades: list[Row] = []
    scores = {}
    # Right and 0.9, right and 0.5, wrong, malformed.
    for take, (parsed, score) in enumerate([("5", 0.9), ("5", 0.5), ("7", 0.99), (None, 0.99)]):
        for turn, tag in enumerate(("turn-1", "turn-1", "turn-2", "turn-2")):
            place = {"problem": "p", "take": take, "turn": turn}
            seat = "opener" if tag == "turn-1" else "agent"
            ids = {"messages": [], "prompt_ids": [1], "token_ids": [2]}
            turns.append({**place, **ids, "agent": seat, "tag": tag, "text": "x", "finish": "stop"})
            grades.append({**place, "parsed": parsed, "score": float(parsed == "5")})
            scores[place_of(place)] = score if tag == "turn-2" else 1 - score
    found = best_discussions(turns, grades, scores, ["agent"], share=0.25)
    assert [(row["take"], row["agent"]) for row in found.rows] == [(0, "agent"), (0, "agent")]
    assert found.counts == {
        **{"discussions left out, malformed": 1, "discussions left out, the majority is wrong": 1},
        **{"discussions kept": 1, "discussions left out, others are better": 1, "agent: kept": 2},
    }
    assert math.isclose(len(list(best_discussions(turns, grades, {}, ["agent"], share=1.0).rows)), 4)
    early = [turn for turn in turns if turn["take"] or turn["tag"] == "turn-1"]  # the best one ended at once
    found = best_discussions(early, grades, scores, ["agent"], share=0.25)
    assert [row["take"] for row in found.rows] == [1, 1]
    assert found.counts["discussions left out, nobody spoke who learns"] == 1
    with pytest.raises(TeamtuneError, match="share of the best discussions is 0"):
        best_discussions(turns, grades, scores, ["agent"], share=0)
