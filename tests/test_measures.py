"""Measures of debates: worked rounds, warnings of a collapse, pseudo-labels against gold, what systems cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.test_debate import debate
from tests.test_score import talked  # noqa: F401  (a fixture)

from teamtune import diversity
from teamtune.credit.consensus import consensus
from teamtune.protocols import exchange
from teamtune.recipes.measures import (
    Measured,
    Measures,
    collapse_rows,
    embedded_rows,
    likelihood_rows,
    round_rows,
)
from teamtune.recipes.systems import scores
from teamtune.reporting import debates
from teamtune.reporting.costs import costs, upstream
from teamtune.tasks import TaskSpec, grade_turns
from teamtune.tasks.stages import problem_row
from teamtune.types import Problem, Row, Sampling, Team, TeamtuneError


def graded(parsed: list[Row], gold: str) -> list[Row]:
    return [{**row, "score": float(row["parsed"] == gold)} for row in parsed]


def test_rounds_of_the_worked_example() -> None:
    turns, parsed = debate(("5", "7", "5"), ("5", "5", "7"))
    first, last = round_rows(turns, graded(parsed, "5"))
    assert [first[name] for name in ("round", "consensus", "accuracy", "vote", "copied")] == [
        1,
        pytest.approx(2 / 3),
        pytest.approx(2 / 3),
        1,
        0,
    ]
    assert {name: last[name] for name in diversity.flips([], [], None)} == {
        **{"kept right": 1, "corrected": 1, "lost": 1, "kept wrong": 0, "changed wrong": 0}
    }
    # The second took over what the first or the third had said; the third what the second had.
    assert last["adopted"] == [
        {"agent": "critic-2", "source": "generator-1"},
        {"agent": "critic-2", "source": "generator-3"},
        {"agent": "critic-3", "source": "generator-2"},
    ]
    assert last["copied"] == pytest.approx(2 / 3)


def test_one_model_in_all_places_is_told_by_place() -> None:
    turns, parsed = debate(("5", "7", "5"), ("5", "5", "7"))
    for turn in turns:
        turn["agent"] = "solver" if turn["tag"].startswith("round") else turn["agent"]
    last = round_rows(turns, graded(parsed, "5"))[-1]
    assert last["adopted"][0] == {"agent": "solver, place 2", "source": "solver, place 1"}
    assert debates.takeovers([last])["solver, place 3", "solver, place 2"] == 1


@pytest.mark.parametrize("gold", ["x+1", "7"])
def test_equal_answers_vote_together_however_they_are_written(gold: str) -> None:
    said = ("1+x", "x+1", "7"), ("x+1", "1+x", "7")
    turns, _ = debate(*said)
    answers = [answer for one in said for answer in one]
    for turn, answer in zip(turns, answers, strict=True):
        turn |= {"text": f"\\boxed{{{answer}}}", "final": turn["tag"] == "round-2"}
    problem = problem_row(Problem("p", "What is left?", gold))
    grades = grade_turns(turns, [problem], TaskSpec("math"), "train").rows
    last = round_rows(turns, list(grades))[-1]
    assert last["consensus"] == pytest.approx(2 / 3) and last["adopted"] == []
    assert last["vote"] == scores(turns, list(grades), 1)["p"] == (gold != "7")
    assert last["kept right"] == (1 if gold == "7" else 2)
    told = [row["turn"] for row in grades if "x+1 counts as 1+x" in row["reason"]]
    assert told == ([1, 3] if gold == "7" else []), "a right answer is read as the gold one is written"


def test_answers_that_differ_in_their_units_alone_do_not_vote_together() -> None:
    said = ("162\\text{ minutes}", "162\\text{ hours}", "162")
    turns, _ = debate(said, said)
    for turn, answer in zip(turns, said * 2, strict=True):
        turn |= {"text": f"\\boxed{{{answer}}}", "final": turn["tag"] == "round-2"}
    problem = problem_row(Problem("p", "How long is it?", "162\\text{ minutes}"))
    grades = list(grade_turns(turns, [problem], TaskSpec("math"), "train").rows)
    assert [row["score"] for row in grades] == [1.0, 0.0, 1.0] * 2
    assert grades[0]["parsed"] == grades[2]["parsed"] != grades[1]["parsed"]
    assert round_rows(turns, grades)[-1]["vote"] == scores(turns, grades, 1)["p"] == 1


def test_answers_that_a_grader_reads_alike_and_scores_apart_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comparison must not end a run whose grader looks at more than the answer, such as its form."""
    (tmp_path / "by_form.py").write_text(
        "from teamtune.types import Grade\n"
        "def grade(problem, text):\n    return Grade(text.split()[-1], 0.5 * ('so' in text) + 0.5 * ('5' in text))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    said = ("so 5", "5", "7", "so 5", "5", "so 7")
    turns, _ = debate(said[:3], said[3:])
    for turn, text in zip(turns, said, strict=True):
        turn |= {"text": text, "final": turn["tag"] == "round-2"}
    task = TaskSpec("data", data=str(tmp_path / "none.jsonl"), grader="by_form:grade")
    found = grade_turns(turns, [problem_row(Problem("p", "?", "5"))], task, "train")
    grades = list(found.rows)
    assert [row["parsed"] for row in grades[:3]] == ["5", "5 (scored 0.5)", "7 (scored 0)"]
    assert found.counts["answers read alike and scored apart"] == 3
    assert scores(turns, grades, 1)["p"] == pytest.approx(2 / 3), "three answers, one right and two half right"


def test_a_users_right_answers_may_differ() -> None:
    turns, parsed = debate(("red", "blue", "grey"), ("blue", "red", "grey"))
    grades = [{**row, "score": float(row["parsed"] != "grey")} for row in parsed]
    last = round_rows(turns, grades)[-1]
    assert last["kept right"] == 2 and last["consensus"] == pytest.approx(1 / 3) and last["copied"] > 0


def test_flips_go_by_the_grade_whatever_an_answer_says() -> None:
    turns, parsed = debate(("right", "left"), ("right", "right"))
    last = round_rows(turns, graded(parsed, "left"))[-1]
    assert {name: last[name] for name in diversity.FLIPS if last[name]} == {"lost": 1, "kept wrong": 1}


def test_lengths_are_those_that_the_engine_tells() -> None:
    """By ids, or as a server counts them; where it does neither there are none, and no sign of a collapse in them."""
    turns, parsed = debate(("5", "7"), ("5", "5"))
    tables = []
    for usage, long in ((None, 1), ([7, 40], 40), ([7, 90], 90)):
        told = [{**turn, "token_ids": None, "usage": usage} for turn in turns]
        rows = round_rows(told, graded(parsed, "5"))
        assert [row["tokens"] for row in rows] == [None if usage is None else long] * 2
        assert ("tokens" in debates.by_rounds(rows)[0]["values"]) == (usage is not None)
        tables.append(Measured(f"iteration {long}", Held(rows)))  # type: ignore[arg-type]
    none, short, long = tables
    assert not list(collapse_rows([none, short])) and not list(collapse_rows([none, none]))
    [row] = collapse_rows([short, long])
    assert row["warning"].startswith("answers went from 40 to 90 tokens")


class Held:
    """Rows that are a table already."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = lambda: rows


def columns(**values: list[float]) -> dict[str, list[float]]:
    usual = {"vote": [0.5, 1.0] * 20, "consensus": [0.6, 0.7] * 20, "entropy": [0.5, 0.6] * 20}
    return {**usual, "copied": [0.1, 0.2] * 20, "tokens": [50.0, 60.0] * 20, **values}


def test_a_collapse_is_named_and_a_gain_is_none() -> None:
    alike = columns(consensus=[0.9, 1.0] * 20, entropy=[0.1, 0.2] * 20, copied=[0.5, 0.6] * 20)
    told = diversity.collapse(columns(), alike)
    assert [text.split()[0] for text in told] == ["consensus", "entropy", "agents"]
    assert "from 65 to 95 %" in told[0] and "accuracy went from 75 to 75 %" in told[0]
    better = {**alike, "vote": [0.9, 1.0] * 20}
    assert diversity.collapse(columns(), better) == []
    # A gain as large as that of consensus is no sign, even where it is too noisy to count by itself.
    noisy = columns(consensus=[0.7, 0.8] * 20, vote=[0.5, 1.0] * 16 + [1.5, 0.0, 2.5, 1.0, 1.0, 2.0, 2.0, 1.5])
    assert diversity.collapse(columns(), noisy) == []
    copies = columns(copied=[0.8, 0.9] * 20, entropy=[0.0, 0.1] * 20)
    assert [text.split()[0] for text in diversity.collapse(columns(), copies)] == ["entropy", "agents"]
    assert diversity.collapse(columns(), columns()) == []
    assert diversity.collapse(columns(), columns(tokens=[90.0] * 40)) == ["answers went from 55 to 90 tokens"]


def test_noise_is_no_collapse() -> None:
    noisy = [0.6, 0.7] * 19 + [1.0, 1.0]
    assert diversity.collapse(columns(), columns(consensus=noisy)) == []


def test_pseudo_labels_by_margin() -> None:
    tables: list[tuple[list[Row], list[Row]]] = []
    for name, answers, gold in (("a", ("5", "5", "5"), "5"), ("b", ("5", "5", "7"), "5"), ("c", ("5", "5", "7"), "7")):
        turns, parsed = debate(answers, answers, problem=name)
        parsed = [{**row, "problem": name} for row in parsed]
        tables.append((list(consensus(turns, parsed).rows), graded(parsed, gold)))
    credit, grades = ([row for pair in tables for row in pair[i]] for i in (0, 1))
    found: Any = debates.pseudo_labels(credit, grades)
    assert (found["n"], found["precision"]) == (3, pytest.approx(2 / 3))
    assert [(round(b["margin"], 2), b["n"], b["precision"]) for b in found["bins"]] == [(0.33, 2, 0.5), (1.0, 1, 1.0)]
    assert debates.pseudo_labels([], grades) is None


def test_takeovers_and_flips_add_up_over_problems() -> None:
    turns, parsed = debate(("5", "7", "5"), ("5", "5", "7"))
    rows = [row for name in "ab" for row in ({**r, "problem": name} for r in round_rows(turns, graded(parsed, "5")))]
    assert debates.takeovers(rows)["critic-3", "generator-2"] == 2
    first, last = debates.by_rounds(rows)
    assert first["flips"] is None and last["flips"]["corrected"] == 2 and last["values"]["vote"].n == 2
    assert set(debates.differences(rows, None, None)) == {"vote", *debates.BY_ROUND} - {"tokens"}, (
        "no ids are told here"
    )


def test_likelihood_against_the_scores_it_is_made_of(talked: tuple[list[Row], Team]) -> None:  # noqa: F811
    from teamtune.train.score import score_turns

    turns, team = talked
    found = likelihood_rows(turns, team, "debater-2", 2)
    rows = list(found.rows)
    assert [row["problem"] for row in rows] == ["p0", "p1"]
    names = [f"debater-{i}" for i in range(3)]
    lasts = [turn for turn in turns if turn["problem"] == "p0" and turn["tag"] == "round-3"]
    asked = list(score_turns(lasts, team, names, given="question").rows)
    others = [row for row in asked if row["under"] != row["agent"]]
    slow = [-sum(row["logprobs"]) / len(row["logprobs"]) for row in others]
    assert rows[0]["nll"] == pytest.approx(sum(slow) / 6, rel=1e-4)
    assert rows[0]["nll_answer"] == pytest.approx(sum(-sum(row["logprobs"]) for row in others) / 6, rel=1e-4)
    shown = list(score_turns(lasts, team, names, given="turn").rows)
    apart = [row["kl"] for row in shown if row["under"] != row["agent"]]
    assert rows[0]["kl"] == pytest.approx(sum(apart) / 6, rel=1e-4) and min(apart) > 0
    # debater-2 is the base: its own part of the divergence from the base is zero.
    base = [row["kl"] for row in shown if row["under"] == "debater-2"]
    assert base[2] == pytest.approx(0, abs=1e-6) and rows[0]["base_kl"] == pytest.approx(sum(base) / 3, rel=1e-4)
    assert rows[0]["k3"] > 0


def test_one_model_in_all_places_does_not_differ_from_itself(talked: tuple[list[Row], Team]) -> None:  # noqa: F811
    turns, team = talked
    alike = [{**turn, "agent": "debater-2"} for turn in turns]
    for row in likelihood_rows(alike, team, "debater-2", 1).rows:
        assert row["kl"] == pytest.approx(0, abs=1e-5) and row["k1"] == pytest.approx(0, abs=1e-5)
        assert row["base_kl"] == pytest.approx(0, abs=1e-5) and row["nll"] > 0


def test_likelihood_without_ids_is_counted() -> None:
    turns, _ = debate(("5", "7"), ("5", "5"))
    bare = [{**turn, "token_ids": None} for turn in turns]
    found = likelihood_rows(bare, Team("none", exchange.seats(["critic-1"], Sampling())), "summariser", 1)
    assert not list(found.rows) and found.counts == {"no ids, so nothing is scored: answers": 2}


def test_embeddings_of_equal_answers_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from teamtune import embed

    directions = {"x": [1.0, 0.0], "y": [0.0, 1.0]}
    fake = lambda texts, *_: embed.Embedded(np.array([directions[text] for text in texts]), 0)  # noqa: E731
    monkeypatch.setattr(embed, "embed", fake)
    turns, parsed = debate(("5", "5", "7"))
    said = [{**turn, "text": text} for turn, text in zip(turns, ("x", "x", "y"), strict=True)]
    [row] = embedded_rows(said, parsed, "any", "mean", 5).rows
    assert row["dissimilarity"] == pytest.approx(2 / 3) and row["dissimilarity_agreeing"] == pytest.approx(0)
    alone = [turn if turn["turn"] != 1 else {**turn, "text": " "} for turn in said]
    [row] = embedded_rows(alone, parsed, "any", "mean", 5).rows
    assert row["dissimilarity"] == pytest.approx(1)


def test_of_several_winners_each_counts_whoever_speaks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from teamtune import embed

    directions = {"x": [1.0, 0.0], "y": [0.0, 1.0], "z": [0.6, 0.8]}
    fake = lambda texts, *_: embed.Embedded(np.array([directions[text] for text in texts]), 0)  # noqa: E731
    monkeypatch.setattr(embed, "embed", fake)
    found = []
    for answers, texts in ((("5", "5", "7", "7"), "xxyz"), (("7", "7", "5", "5"), "zyxx")):
        turns, parsed = debate(answers)
        said = [{**turn, "text": text} for turn, text in zip(turns, texts, strict=True)]
        found += [row["dissimilarity_agreeing"] for row in embedded_rows(said, parsed, "any", "own", 5).rows]
    assert found == pytest.approx([0.1, 0.1]), "the mean of 0, of those who said 5, and of 1 - 0.8"


def test_measures_out_of_range() -> None:
    with pytest.raises(TeamtuneError, match="problems of measures is -1"):
        Measures(problems=-1)
    with pytest.raises(TeamtuneError, match="no encoder at 'nowhere'"):
        Measures(encoder="nowhere")


def stage(name: str, key: str, seconds: float, peak: float | None = None, **inputs: Any) -> Row:
    return {
        **{"name": name, "state": "sealed", "key": key, "seconds": seconds, "peak_mb": peak, "inputs": inputs},
    }


def test_what_a_system_cost_is_all_that_it_stands_on(tmp_path: Any) -> None:
    team = {"agents": [{"adapter": "run:sft/critic-1"}, {"adapter": None}]}
    stages = [
        stage("problems/train", "p", 1),
        stage("problems/test", "q", 1),
        stage("turns", "t", 10, 500.0, problems={"table": "p"}),
        stage("other", "o", 1000, 9000.0),
        stage("sft-rows", "r", 2, None, turns={"table": "t"}),
        stage("sft", "s", 30, 800.0, rows={"table": "r"}),
        stage("test/team/turns", "x", 40, 600.0, team=team, how={"takes": 4}, problems={"table": "q"}),
    ]
    played = {"turns": {"table": "x"}}
    systems = [{"name": "one", "votes": 1, "played": played}, {"name": "all", "votes": 4, "played": played}]
    stages.append(stage("comparison", "c", 1, None, systems=systems))
    one, whole = costs(tmp_path, stages)
    assert one["train_seconds"] == whole["train_seconds"] == 42
    assert (one["test_seconds"], whole["test_seconds"]) == (10, 40)
    assert one["peak_mb"] == 800 and one["parameters"] is None  # the adapter is not there
    stages[2]["inputs"] = {"turns": {"table": "of another run"}}
    assert [row["train_seconds"] for row in costs(tmp_path, stages)] == [None, None], "its seconds stand there"
    stages[2]["inputs"] = {"problems": {"table": "p"}}
    sealed = {row["name"]: row for row in stages}
    found = upstream(sealed["sft"], sealed, {row["key"]: row for row in stages})
    assert [row["name"] for row in found] == ["sft-rows", "turns"]
