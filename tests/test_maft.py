"""Multiagent Finetuning from the command line, on the tiny model: the method, its iterations, and no look at gold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, get_args

import pytest
from safetensors.torch import load_file

from teamtune.cli import main as command
from teamtune.engines.render import Renderer
from teamtune.protocols import exchange
from teamtune.recipes import maft_rivals, stored
from teamtune.recipes.maft_team import Lab, Maft, Rival, Step
from teamtune.reporting.table import NONE
from teamtune.store import read_table
from teamtune.train.examples import sft_example
from teamtune.train.forward import batch_of
from teamtune.train.team import Lora, TeamModel
from teamtune.types import Agent, Sampling, Team, TeamtuneError

SMALL = [
    *("--task", "tests.spoken_task", "--train", "30", "--test", "3", "--sampling.max-tokens", "12"),
    *("--lora.rank", "2", "--lora.alpha", "4", "--sft.rate", "1e-2", "--sft.batch", "4", "--sft.epochs", "1"),
]


def trained(model: str, out: Path, *more: str) -> Path:
    command(["maft", "--model", model, "--out", str(out), *SMALL, *more])
    return out


def rows(run: Path, stage: str) -> list[dict[str, Any]]:
    return read_table(run / stage).rows()


def start(run: Path, iteration: int) -> dict[str, Any]:
    return json.loads((run / f"iteration-{iteration}" / "sft" / "DONE.json").read_text())["inputs"]["team"]


@pytest.fixture(scope="module")
def whole(brief: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(brief, tmp_path_factory.mktemp("maft") / "run", "--iterations", "2")


def test_every_agent_is_trained_on_its_own_part_in_one_fit(whole: Path) -> None:
    for number in (1, 2):
        place = whole / f"iteration-{number}"
        names = sorted(path.name for path in (place / "sft").iterdir() if path.is_dir())
        assert names == [f"{role}-{n}" for role in ("critic", "generator") for n in (1, 2, 3)]
        author = {(t["problem"], t["take"], t["turn"]): t["agent"] for t in rows(whole, f"iteration-{number}/turns")}
        for row in rows(whole, f"iteration-{number}/sft-rows"):
            assert author[row["problem"], row["take"], row["turn"]] == row["agent"]
    calls = {row["system"]: row["calls"] for row in rows(whole, "comparison")}
    matched = next(name for name in calls if name.endswith("(equal tokens)"))
    assert list(calls.items()) == [
        *(("Base", 1), ("Majority of 3", 3), ("Majority of 9 (equal calls)", 9), (matched, calls[matched])),
        *(("Debate", 9), ("Majority FT", 3)),
        *(("Single-agent FT, iteration 1", 9), ("Single-agent FT, iteration 2", 9), ("Single-agent FT, alone", 1)),
        *(("One model, all agents' data", 9), ("MAFT, iteration 1", 9), ("MAFT, iteration 2", 9)),
    ]
    assert matched == f"Majority of {calls[matched]:g} (equal tokens)" and calls[matched] > 9


def test_single_models_learn_from_the_same_debates(whole: Path) -> None:
    team, union, single = (
        rows(whole, f"{name}/sft-rows") for name in ("iteration-1", "union-ft/iteration-1", "single-ft/iteration-1")
    )
    assert {row["agent"] for row in [*union, *single]} == {"solver"}
    texts = lambda table: sorted((row["problem"], row["turn"], row["completion"]) for row in table)  # noqa: E731
    assert texts(union) == texts(team)
    credit = [row for row in rows(whole, "single-ft/iteration-1/credit") if row["agrees"]]
    assert len(single) <= len(credit) and {row["turn"] for row in single} <= {row["turn"] for row in credit}
    tokens = {row["system"]: row["trained_tokens"] for row in rows(whole, "comparison")}
    assert tokens["One model, all agents' data"] == tokens["MAFT, iteration 2"] > tokens["MAFT, iteration 1"]


def test_labels_are_votes_and_no_row_disagrees_with_its_label(whole: Path) -> None:
    credit = {(r["problem"], r["take"], r["turn"]): r for r in rows(whole, "iteration-1/credit")}
    for row in rows(whole, "iteration-1/sft-rows"):
        assert credit[row["problem"], row["take"], row["turn"]]["agrees"]


def test_a_critics_loss_is_on_its_last_answer_alone(whole: Path, brief: str) -> None:
    """Token by token (specification 4.11, 5): its earlier answer stands in the prompt and bears no loss."""
    model = TeamModel.open(Team(brief, (Agent("critic-1"),)), ["critic-1"], Lora(rank=2, alpha=4))
    renderer = Renderer(model.tokenizer, "the base")
    turns = {(t["problem"], t["take"], t["turn"]): t for t in rows(whole, "iteration-1/turns")}
    own = [row for row in rows(whole, "iteration-1/sft-rows") if row["agent"] == "critic-1"]
    assert own
    for row in own:
        turn = turns[row["problem"], row["take"], row["turn"]]
        ids, mask = batch_of(model, [sft_example(row, renderer)])
        assert ids[0, mask[0]].tolist() == turn["token_ids"] and ids[0, ~mask[0]].tolist() == turn["prompt_ids"]
        first = [t["text"] for t in turns.values() if t["problem"] == row["problem"] and t["tag"] == "round-1"]
        said = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
        assert said and set(said) <= set(first)


def test_a_team_that_grows_alike_is_warned_of_and_the_report_says_so(
    brief: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []

    def collapse(before: Any, after: Any) -> list[str]:
        seen.append(len(before["vote"]) == len(after["vote"]) == 3)
        return ["agents copied each other"]

    monkeypatch.setattr("teamtune.diversity.collapse", collapse)
    run = trained(brief, tmp_path / "run", "--baselines", "debate", "--iterations", "2")
    assert seen == [True] * 3, "against the untrained debate, and against the iteration before, on the same problems"
    assert "warning: MAFT, iteration 1: agents copied each other, since Debate" in capsys.readouterr().err
    for number, since in ((1, ["Debate"]), (2, ["Debate", "MAFT, iteration 1"])):
        told = [row["warning"] for row in rows(run, f"collapse/iteration-{number}")]
        assert told == [f"agents copied each other, since {name}" for name in since]
    assert "agents copied each other" in (run / "report.md").read_text()


def test_an_iteration_goes_on_from_the_one_before_or_from_the_base(whole: Path, brief: str, tmp_path: Path) -> None:
    again = trained(brief, tmp_path / "base", "--iterations", "2", "--init", "base", "--baselines")
    continued = {agent["name"]: agent["adapter"] for agent in start(whole, 2)["agents"]}
    anew = {agent["name"]: agent["adapter"] for agent in start(again, 2)["agents"]}
    assert continued["critic-2"] == "run:iteration-1/sft/critic-2" and continued["summariser"] is None
    assert set(anew.values()) == {None}
    # What is played in the second iteration is the trained team either way.
    turns = json.loads((again / "iteration-2" / "turns" / "DONE.json").read_text())["inputs"]["team"]["agents"]
    assert {agent["name"]: agent["adapter"] for agent in turns}["critic-2"] == "run:iteration-1/sft/critic-2"


def test_poisoned_gold_answers_change_nothing_that_is_trained(whole: Path, brief: str, tmp_path: Path) -> None:
    poisoned = trained(brief, tmp_path / "poisoned", "--iterations", "2", "--level", "poisoned")
    gold = [{row["id"]: row["answer"] for row in rows(run, "problems/train")} for run in (whole, poisoned)]
    assert gold[0].keys() == gold[1].keys() and all(gold[0][name] != gold[1][name] for name in gold[0])
    for number in (1, 2):
        for stage in ("turns", "parsed", "credit", "sft-rows"):
            mine, theirs = (run / f"iteration-{number}" / stage / "rows.parquet" for run in (whole, poisoned))
            assert mine.read_bytes() == theirs.read_bytes(), stage
    assert alike(whole, poisoned) > {"sft", "majority-ft", "single-ft", "union-ft"}


def test_questions_without_answers_are_enough(brief: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [{"question": f"Say {i}"} for i in range(23)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked[:20]))
    (tmp_path / "test.jsonl").write_text("".join(json.dumps({**one, "answer": "1"}) + "\n" for one in asked[20:]))
    own = ("--task", "data", "--data", str(tmp_path), "--grader", "tests.spoken_task:grade", "--unlabelled")
    options = (*own, "--train", "20", "--measures.problems", "0", "--baselines")
    with pytest.raises(SystemExit, match="2"):
        trained(brief, tmp_path / "none", *options, "star")
    assert "baseline star learns from gold answers" in capsys.readouterr().err and not (tmp_path / "none").exists()
    run = trained(brief, tmp_path / "run", *options, "union-ft")
    assert {row["answer"] for row in rows(run, "problems/train")} == {""}
    assert not (run / "iteration-1" / "grades").exists() and rows(run, "union-ft/iteration-1/sft-rows")
    assert len(rows(run, "comparison")) == 2
    text = (run / "report.md").read_text()
    assert "How many labels are right is not known" in text and "not finished" not in text


@pytest.mark.parametrize("objective", ["dpo", "ppo"])
def test_poisoned_gold_answers_change_no_preference_and_no_reward(brief: str, tmp_path: Path, objective: str) -> None:
    how = ("--objective", objective, "--baselines", "majority-ft")
    mine = trained(brief, tmp_path / "run", *how)
    assert objective in alike(mine, trained(brief, tmp_path / "poisoned", *how, "--level", "poisoned"))


def alike(run: Path, other: Path) -> set[str]:
    """Compares all that two runs trained but STaR's, which asks the gold answers; the fits and systems there were."""
    adapters = [file for file in run.rglob("adapter_model.safetensors") if "star" not in file.relative_to(run).parts]
    for adapter in adapters:
        theirs = load_file(other / adapter.relative_to(run))
        assert all((tensor == theirs[name]).all() for name, tensor in load_file(adapter).items()), adapter
    return {part for adapter in adapters for part in adapter.relative_to(run).parts}


def test_ties_masking_weight_and_summaries_are_as_asked(whole: Path, brief: str, tmp_path: Path) -> None:
    asked = ("--ties", "drop", "--masking", "all", "--weight", "1", "--summary", "own", "--baselines")
    run = trained(brief, tmp_path / "run", *asked)
    usual, credit = rows(whole, "iteration-1/credit"), rows(run, "iteration-1/credit")
    judged = [{row["problem"] for row in table if row["label"] is not None} for table in (credit, usual)]
    assert judged[0] and judged[0] < judged[1], "debates without a winner have no label"
    kinds = {row["kind"] for row in rows(run, "iteration-1/sft-rows")}
    assert "own earlier turn" in kinds and "corrected" in kinds and "kept right" not in kinds
    assert {row["kind"] for row in rows(whole, "iteration-1/sft-rows")} == {"first", "corrected", "kept right"}
    by = {turn["agent"] for turn in rows(run, "iteration-1/turns") if turn["tag"].startswith("summary")}
    assert by == {"critic-1", "critic-2", "critic-3"}


def test_without_critics_they_stay_at_the_base(brief: str, tmp_path: Path) -> None:
    run = trained(brief, tmp_path / "run", "--no-critics", "--baselines", "--summary", "none")
    assert sorted(path.name for path in (run / "iteration-1" / "sft").iterdir() if path.is_dir()) == [
        "generator-1",
        "generator-2",
        "generator-3",
    ]
    assert {turn["tag"] for turn in rows(run, "iteration-1/turns")} == {"round-1", "round-2"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--agents", "0"], "agents is 0; it must be 1 or above"),
        (["--rounds", "1"], "rounds is 1; it must be 2 or above"),
        (["--iterations", "0"], "iterations is 0"),
        (["--weight", "1.5"], "weight is 1.5; it must lie in [0, 1]"),
        (["--summary", "none", "--baselines", "no-summary"], "baseline no-summary is the method itself"),
        (["--objective", "ppo", "--init", "base", "--iterations", "2"], "objective is ppo and init is base"),
        (["--dpo.rate", "1e-3"], "dpo has no use with objective sft; leave it out"),
        (["--objective", "dpo", "--policy.clip", "0.1"], "policy has no use with objective dpo"),
        (["--objective", "ppo", "--preference.beta", "0.5"], "preference has no use with objective ppo"),
        (["--star-rounds", "2", "--baselines", "debate"], "star_rounds has no use with baselines without star"),
        (["--no-critics", "--weight", "0.3"], "weight has no use with critics that are not finetuned"),
        (["--measures.encoder", "no-such/encoder"], "no encoder 'no-such/encoder' to be had"),
        (["--measures.pooling", "mean"], "measures.pooling has no use with no encoder"),
        (["--measures.problems", "0", "--measures.encoder", "x"], "measures.encoder has no use with problems 0"),
        (["--init", "base"], "init has no use with one iteration"),
        (["--agents", "1", "--summary", "own"], "summary has no use with one agent, which hears nobody"),
        (["--agents", "1", "--manner", "cooperate"], "manner has no use with one agent, which hears nobody"),
        (["--agents", "1", "--ties", "drop"], "ties has no use with one agent, whose vote is its own answer"),
        *(
            (["--agents", "1", "--baselines", name], f"baseline {name} is the method itself with 1 agent; leave it out")
            for name in ("no-summary", "cooperative", "no-interaction")
        ),
        (
            ["--objective", "ppo", "--weight", "0.3", "--baselines", "majority-ft"],
            "weight has no use with objective ppo",
        ),
        (["--no-critics", "--masking", "all", "--baselines"], "masking has no use with critics that are not finetuned"),
        (["--objective", "ppo", "--sampling.temperature", "0.3"], "objective is ppo and sampling.temperature is 0.3"),
        (
            ["--turns-from", "x", "--baselines", "no-summary"],
            "baseline no-summary holds first debates of its own, by this model, and turns_from has the team learn from",
        ),
        (
            ["--eval-task", "stories", "arithmetic", "stories"],
            "eval_tasks has stories twice, at 'stories' again; test on one of them, and on the other with teamtune ev",
        ),
    ],
)
def test_options_out_of_range(
    more: list[str], said: str, brief: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        trained(brief, tmp_path / "run", *more)
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("agents", [1, 2])
@pytest.mark.parametrize("objective", ["sft", "dpo", "ppo"])
@pytest.mark.parametrize("more", [{}, {"critics": False}, {"critics": False, "masking": "all"}, {"iterations": 2}])
def test_every_baseline_can_be_made_or_is_refused_before_the_run(
    agents: int, objective: Any, more: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them with training left out: what the options of a variant cannot be must not be found out after it."""
    tried: list[tuple[str, Any]] = []

    def iterations(lab: Any, method: Any, held: Any = ()) -> Any:
        tried.append((lab.prefix, lab.cfg.masking))
        yield Step(method.start, {}, lab.cfg.iterations)

    said = {"problem": "p", "take": 0, "tag": "round-1", "prompt_ids": [1], "token_ids": [1]}
    monkeypatch.setattr(maft_rivals, "iterations", iterations)
    monkeypatch.setattr(maft_rivals, "debates", lambda *_: None)
    monkeypatch.setattr(maft_rivals, "learn", lambda *rest: rest[4])
    monkeypatch.setattr(maft_rivals, "star", lambda _: iter(()))
    monkeypatch.setattr(maft_rivals, "read_table", lambda _: Rows([said, {**said, "tag": "round-2"}]))
    for name in get_args(Rival):
        try:
            cfg = Maft(tmp_path, agents=agents, objective=objective, baselines=(name,), **more)
        except TeamtuneError:
            continue
        lab = Lab(Folder(tmp_path), cfg, None, Team("none", exchange.seats(cfg.names, Sampling())))  # type: ignore[arg-type]
        list(maft_rivals.rivals(lab, Step(lab.base, {}, cfg.iterations)))
        single = name in ("single-ft", "union-ft", "temperature-2")
        assert not single or tried[-1][1] == cfg.masking, "an option that a single model reads is as asked"
    assert tried or (agents == 1 and objective != "sft")


@dataclass
class Rows:
    """A table that is at hand."""

    held: list[dict[str, Any]]

    def rows(self) -> list[dict[str, Any]]:
        return self.held


@dataclass
class Folder:
    """A run that nothing is kept in."""

    path: Path


def test_a_plan_counts_what_the_run_then_takes(whole: Path, brief: str, capsys: pytest.CaptureFixture[str]) -> None:
    command(["maft", "--model", brief, "--out", str(whole / "none"), *SMALL, "--iterations", "2", "--dry-run"])
    plan = json.loads(capsys.readouterr().out)["plan"]
    made = [f"iteration-{n}/turns" for n in (1, 2)] + ["majority-ft/turns", "single-ft/iteration-2/turns"]
    assert plan["training generations"] == sum(len(rows(whole, name)) for name in made)
    played = [file.parent for file in (whole / "test").rglob("DONE.json") if file.parent.name == "turns"]
    # How many single answers a debate's tokens pay for is known only after it.
    votes = len(read_table(whole / "test" / "base-solo" / "turns")) - 9 * 3
    assert plan["test generations"] == sum(len(read_table(folder)) for folder in played) - votes
    assert "counted when that is known" in plan["besides"]


RIVALS = "majority debate star majority-ft single-ft union-ft no-critic no-summary no-interaction unique-id cooperative"


@pytest.fixture(scope="module")
def everybody(brief: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All baselines, ablations and measures in one run, which is broken off in the middle of STaR."""
    out = tmp_path_factory.mktemp("maft-all") / "run"
    options = ["--train", "16", "--baselines", *RIVALS.split(), "temperature-2", "--star-rounds", "2"]
    options += ["--eval-task", "tests.spoken_task:poisoned", "--measures.problems", "2"]
    with pytest.MonkeyPatch.context() as patch:
        real, calls = maft_rivals.star_rows, []

        @wraps(real)
        def broken(*args: Any) -> Any:
            calls.append(1)  # the first round's rows are made before anybody is trained
            if len(calls) == 2:
                raise KeyboardInterrupt
            return real(*args)

        patch.setattr(maft_rivals, "star_rows", broken)
        with pytest.raises(SystemExit, match="130"):
            trained(brief, out, *options)
    turns = out / "iteration-1" / "turns" / "rows.parquet"
    before = turns.stat().st_mtime_ns
    trained(brief, out, *options)
    assert turns.stat().st_mtime_ns == before, "what was sealed is read"
    return out


def test_all_rivals_stand_in_one_table(everybody: Path) -> None:
    table = {row["system"]: row for row in rows(everybody, "comparison")}
    names = [name for name in table if "equal tokens" not in name]
    assert names == [
        *("Base", "Majority of 3", "Majority of 9 (equal calls)", "Debate", "Debate, unique ids"),
        *("STaR", "STaR, majority of 3", "Majority FT", "Single-agent FT, iteration 1", "Single-agent FT, alone"),
        *("Single-agent FT, temperature 2", "One model, all agents' data", "MAFT without critics"),
        *("MAFT, one generator", "MAFT without summaries", "Debate, cooperative", "MAFT, cooperative"),
        "MAFT, iteration 1",
    ]
    assert {row["n"] for row in table.values()} == {3}
    assert table["Base"]["consensus"] is None and 0 < table["Debate"]["consensus"] <= 1
    assert table["MAFT without summaries"]["calls"] == 6 and table["STaR"]["calls"] == 1
    by_agent = {one["agent"]: one["tokens"] for one in table["MAFT, iteration 1"]["trained"]}
    assert len(by_agent) == 6 and sum(by_agent.values()) == table["MAFT, iteration 1"]["trained_tokens"]
    bare = table["MAFT without critics"]["trained"]
    assert {one["agent"]: one["tokens"] for one in bare} == {n: t for n, t in by_agent.items() if n[0] == "g"}


def test_ablations_change_what_they_name(everybody: Path) -> None:
    def asked(name: str) -> list[dict[str, Any]]:
        return rows(everybody, f"test/{name}/turns")

    adapters = json.loads((everybody / "test" / "no-critic" / "turns" / "DONE.json").read_text())["inputs"]["team"]
    seats = {agent["name"]: agent["adapter"] for agent in adapters["agents"]}
    assert seats["critic-1"] is None and seats["generator-1"] == "run:iteration-1/sft/generator-1"
    first = [turn["agent"] for turn in asked("no-interaction") if turn["tag"] == "round-1"]
    assert set(first) == {"generator-1"} and len(first) == 9
    assert "summariser" not in {turn["agent"] for turn in asked("no-summary")}
    assert any("Combine these answers" in turn["messages"][-1]["content"] for turn in asked("cooperative"))
    assert asked("unique-id")[0]["messages"][0]["content"].startswith("GEN1. ")
    hot = json.loads((everybody / "test" / "temperature-2" / "turns" / "DONE.json").read_text())["inputs"]["team"]
    assert {agent["name"]: agent["sampling"]["temperature"] for agent in hot["agents"]} == {
        "solver": 2.0,
        "summariser": 1.0,
    }


def test_star_learns_from_gold_and_from_hints(everybody: Path) -> None:
    grades = rows(everybody, "star/round-1/grades")
    told = rows(everybody, "star/round-1/hinted")
    assert len(told) == sum(row["score"] != 1 for row in grades) > 0
    assert all("The right answer is 1;" in row["question"] for row in told)
    asked = {turn["problem"]: turn["prompt_ids"] for turn in rows(everybody, "star/round-1/turns")}
    for row in rows(everybody, "star/round-1/sft-rows"):
        assert row["prompt_ids"] == asked[row["problem"]] and len(row["completion"]) % 2 == 1


def test_every_debate_is_measured_and_the_report_says_so(everybody: Path) -> None:
    for place in ("base", "iteration-1", "single-ft-1", "no-interaction"):
        assert len(rows(everybody, f"test/{place}/rounds")) == 6
        found = rows(everybody, f"test/{place}/likelihood")
        assert len(found) == 2 and all(row["nll"] > 0 for row in found)
        assert all((row["kl"] == pytest.approx(0, abs=1e-5)) == (place in ("base", "single-ft-1")) for row in found)
    text = (everybody / "report.md").read_text()
    for title in ("Further tasks", "Pseudo-labels", "How the agents differ", "Round by round", "Costs"):
        assert f"## {title}" in text
    assert "not finished" not in text and "tests.spoken_task-poisoned" in text
    assert len(rows(everybody, "transfer/tests.spoken_task-poisoned/comparison")) == 12


def test_votes_of_equal_tokens_are_so_many_as_debates_pay_for_there(everybody: Path) -> None:
    place = "transfer/tests.spoken_task-poisoned"
    there, here = (rows(everybody, f"{name}/turns") for name in (f"{place}/iteration-1", "iteration-1"))
    table = {row["system"]: row for row in rows(everybody, f"{place}/comparison")}
    assert list(table)[:3] == ["Base", "Majority of 3", "Majority of 9 (equal calls)"]
    counts = [maft_rivals.matched(turns)[1] for turns in (there, here)]
    assert f"Majority of {counts[0]} (equal tokens)" in table
    assert f"Majority of {counts[1]} (equal tokens)" in {row["system"] for row in rows(everybody, "comparison")}
    own, votes = (table[name] for name in ("MAFT, iteration 1", f"Majority of {counts[0]} (equal tokens)"))
    spent = [row["prompt_tokens"] + row["completion_tokens"] for row in (own, votes)]
    assert spent[1] == pytest.approx(spent[0], rel=0.2)


def test_a_team_that_had_ablations_may_be_asked_as_they_were(everybody: Path, tmp_path: Path) -> None:
    """An evaluation has no baselines that would be the method itself."""
    for n, more in enumerate((["--summary", "none"], ["--manner", "cooperate"])):
        command(["eval", "--run", str(everybody), "--out", str(tmp_path / str(n)), "--limit", "2", *more])
        assert [row["system"] for row in rows(tmp_path / str(n), "comparison")] == ["Untrained team", "Trained team"]


def test_votes_of_equal_tokens_go_by_what_a_server_counts(capsys: pytest.CaptureFixture[str]) -> None:
    lengths = [("round-1", 5)] * 3 + [("summary-2", 15)] * 3 + [("round-2", 15)] * 3
    hidden = [
        {"problem": "p", "take": 0, "tag": tag, "prompt_ids": None, "token_ids": None, "usage": [length, 5]}
        for tag, length in lengths
    ]
    assert maft_rivals.matched(hidden) == (9, 15)
    shown = [{**turn, "prompt_ids": [1] * turn["usage"][0], "token_ids": [1] * 5, "logprobs": None} for turn in hidden]
    assert [stored.bare(turn)["usage"] for turn in shown] == [turn["usage"] for turn in hidden]
    cfg = Maft(Path("x"), baselines=("majority",))
    lab = Lab(Folder(Path("x")), cfg, None, Team("none", exchange.seats(cfg.names, Sampling())))  # type: ignore[arg-type]
    blind = [{**turn, "usage": None} for turn in hidden]
    assert [one.name for one in maft_rivals.alone(lab, blind)] == [
        "Base",
        "Majority of 3",
        "Majority of 9 (equal calls)",
    ]
    assert "no majority of equal tokens: the engine does not tell" in " ".join(capsys.readouterr().err.split())
    same = [{**turn, "usage": [5, 5]} for turn in hidden]
    assert [one.name for one in maft_rivals.alone(lab, same)][-1] == "Majority of 9 (equal calls and tokens)"


def test_another_task_has_another_number_of_votes(tmp_path: Path) -> None:
    cfg = Maft(tmp_path, baselines=("majority",))
    lab = Lab(Folder(tmp_path), cfg, None, Team("none", exchange.seats(cfg.names, Sampling())))  # type: ignore[arg-type]

    def debate(later: int) -> list[dict[str, Any]]:
        place = {"problem": "p", "take": 0, "token_ids": [1] * 5}
        lengths = [("round-1", 5)] * 3 + [("summary-2", later)] * 3 + [("round-2", later)] * 3
        return [{**place, "tag": tag, "prompt_ids": [1] * length} for tag, length in lengths]

    home = [*maft_rivals.alone(lab, debate(15)), maft_rivals.untrained_debate(lab)]
    other = maft_rivals.away(lab, home, debate(35))
    told = lambda some: [(one.name, one.takes) for one in some if "equal tokens" in one.name]  # noqa: E731
    assert told(home) == [("Majority of 15 (equal tokens)", 15)]
    assert told(other) == [("Majority of 27 (equal tokens)", 27)]
    assert [one.name for one in other if one.place != "base-solo"] == ["Debate"]


def test_what_systems_cost(everybody: Path) -> None:
    from teamtune.reporting import facts
    from teamtune.reporting.debate_sections import spending

    told = facts.gather(everybody)
    found = {row["system"]: row for row in told["costs"]}
    team, single, base = (found[name] for name in ("MAFT, iteration 1", "Single-agent FT, iteration 1", "Debate"))
    assert team["parameters"] == 6 * single["parameters"] > 0 == base["parameters"]
    assert found["MAFT without critics"]["parameters"] == 3 * single["parameters"]
    assert base["train_seconds"] == 0 < single["train_seconds"]
    place = "transfer/tests.spoken_task-poisoned/comparison"
    there = {row["system"]: row for row in told["further_costs"][place]}
    assert list(there) == [row["system"] for row in rows(everybody, place)]
    own = there["MAFT, iteration 1"]
    same = ("parameters", "train_seconds")
    assert [own[key] for key in same] == [team[key] for key in same], "what was trained is the same elsewhere"
    played = json.loads((everybody / place).with_name("iteration-1").joinpath("turns", "DONE.json").read_text())
    assert own["test_seconds"] == played["seconds"] != team["test_seconds"]
    here, away, each = spending(told)["tables"]
    assert (here["title"], away["title"]) == ("", "On tests.spoken_task-poisoned")
    assert [row[0] for row in away["rows"]] == list(there) and each["title"] == "Trained tokens, agent by agent"


@pytest.mark.parametrize(("objective", "stages"), [("dpo", ["sft", "dpo"]), ("ppo", ["ppo"])])
def test_other_objectives_on_the_same_turns(objective: str, stages: list[str], brief: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = SMALL if "sft" in stages else SMALL[: SMALL.index("--sft.rate")]
    options = ["--objective", objective, f"--{objective}.rate=1e-2", "--baselines", "--measures.problems", "0"]
    command(["maft", "--model", brief, "--out", str(run), *small, *options])
    place = run / "iteration-1"
    made = [name for name in ("sft", "dpo", "ppo") if (place / name / "DONE.json").exists()]
    assert made == stages
    team = json.loads((run / "test" / "iteration-1" / "turns" / "DONE.json").read_text())["inputs"]["team"]
    adapters = {agent["adapter"] for agent in team["agents"]} - {None}
    assert adapters == {f"run:iteration-1/{stages[-1]}/{r}-{n}" for r in ("generator", "critic") for n in (1, 2, 3)}
    assert not (run / "test" / "iteration-1" / "likelihood").exists()
    [line] = rows(run, "comparison")
    assert line["trained_tokens"] > 0


def test_other_objectives_need_others_to_compare_with(
    brief: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        trained(brief, tmp_path / "run", "--agents", "1", "--objective", "ppo")
    assert "objective is ppo and agents is 1" in capsys.readouterr().err


def test_one_agent_debates_with_itself(brief: str, tmp_path: Path) -> None:
    more = ("--agents", "1", "--baselines", "majority", "debate", "--measures.problems", "2")
    run = trained(brief, tmp_path / "run", *more)
    assert [row["nll"] for row in rows(run, "test/base/likelihood")] == [None, None]
    calls = {row["system"]: row["calls"] for row in rows(run, "comparison")}
    assert calls == {"Base": 1, "Debate": 2, "MAFT, iteration 1": 2} | {
        name: count for name, count in calls.items() if name.startswith("Majority of")
    }
    assert "Majority of 2 (equal calls)" in calls and "Majority of 1" not in calls


def test_a_trained_team_on_other_problems_and_other_debates(whole: Path, tmp_path: Path) -> None:
    def evaluated(name: str, *more: str) -> list[dict[str, Any]]:
        command(["eval", "--run", str(whole), "--out", str(tmp_path / name), *more])
        return rows(tmp_path / name, "comparison")

    again = evaluated("same")
    own = {row["system"]: row["accuracy"] for row in rows(whole, "comparison")}
    assert {row["system"]: row["accuracy"] for row in again} == {
        "Untrained team": own["Debate"],
        "Trained team": own["MAFT, iteration 2"],
    }
    assert "## How the agents differ" in (tmp_path / "same" / "report.md").read_text()
    spent = {row["system"]: row["trained_tokens"] for row in rows(whole, "comparison")}
    assert again[-1]["trained_tokens"] == spent["MAFT, iteration 2"]
    first = evaluated("first", "--iteration", "1")
    assert (first[-1]["accuracy"], first[-1]["trained_tokens"]) == (
        own["MAFT, iteration 1"],
        spent["MAFT, iteration 1"],
    )
    assert "No look for signs of a collapse" in (tmp_path / "first" / "report.md").read_text()
    costs = (tmp_path / "same" / "report.md").read_text().split("## Costs")[1]
    line = next(line for line in costs.splitlines() if line.startswith("| Trained team |"))
    assert [cell.strip() for cell in line.split("|")][6] == NONE, "what training took stands in the run"
    longer = evaluated("longer", "--rounds", "3", "--untrained", "critic-1", "critic-2", "--summary", "none")
    assert longer[-1]["system"] == "Trained team, critic-1 untrained, critic-2 untrained" and longer[-1]["calls"] == 9


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--iteration", "3"], "iteration is 3, but the run has 2"),
        (["--rounds", "1"], "rounds is 1; it must be 2 or above"),
        (["--untrained", "nobody"], "no agent named 'nobody'"),
        (["--task", "tests.seen_task"], "are in the training set too"),
        (["--roles", "GV"], "--roles"),
    ],
)
def test_evaluations_that_cannot_be(
    more: list[str], said: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for dry in ([], ["--dry-run"]):
        with pytest.raises(SystemExit, match="2"):
            command(["eval", "--run", str(whole), "--out", str(tmp_path / "e"), *more, *dry])
        assert said in capsys.readouterr().err and not (tmp_path / "e").exists()


GRADED_BY_COLUMN = """
def reward(completions, answer, solution, **more):
    return [float(a in c) for c, a in zip(completions, answer)]
"""


def test_a_grader_that_needs_the_gold_answer_is_refused_before_the_run(
    brief: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The vote labels debates, so it is shown neither the gold answer nor a column that may tell it."""
    data = [{"question": f"What is {n} + 1?", "answer": str(n + 1), "solution": "add"} for n in range(20)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
    (tmp_path / "by_column.py").write_text(GRADED_BY_COLUMN)
    monkeypatch.syspath_prepend(str(tmp_path))
    options = [
        "--model",
        brief,
        "--task",
        "data",
        "--data",
        str(tmp_path / "sums.jsonl"),
        "--train",
        "8",
        "--test",
        "3",
    ]
    for dry in ([], ["--dry-run"]):
        with pytest.raises(SystemExit, match="2"):
            command(["maft", *options, "--grader", "by_column:reward", "--out", str(tmp_path / "run"), *dry])
        told = " ".join(capsys.readouterr().err.split())
        assert "the grader cannot read an answer where the gold one is hidden" in told and "'solution'" in told
    assert not (tmp_path / "run").exists()


def test_agents_without_rows_stop_the_run_with_counts_and_a_way_out(
    brief: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        trained(brief, tmp_path / "run", "--sampling.max-tokens", "1")
    told = " ".join(capsys.readouterr().err.split())
    assert "nothing to train generator-1, " in told and "generator-1: first, cut off" in told
    assert "take more training problems, with another --out" in told


def test_star_without_rows_stops_before_anybody_is_trained(
    brief: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        trained(brief, tmp_path / "run", "--baselines", "star", "--task", "tests.hopeless_task")
    assert "nothing to train solver on" in (told := capsys.readouterr().err)
    assert "leave star out of the baselines, with another --out" in " ".join(told.split())
    assert not (tmp_path / "run" / "iteration-1").exists()
