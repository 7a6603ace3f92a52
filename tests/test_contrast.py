"""Preferences and advantages from debates, and STaR's rows, on worked examples."""

from __future__ import annotations

from typing import Any

import pytest
from tests.test_debate import debate, everyone

from teamtune.credit.consensus import consensus
from teamtune.curate.contrast import advantage_rows, debate_pairs
from teamtune.curate.star import hinted, star_rows
from teamtune.types import Row


def numbered(turns: list[Row]) -> list[Row]:
    """The turns with ids that tell who sampled what, and another text each."""
    own = {"prompt_ids": [1], "logprobs": [-0.5]}
    return [{**turn, **own, "token_ids": [10 + turn["turn"]], "text": f"text {turn['turn']}"} for turn in turns]


def contrasted(*rounds: tuple[str | None, ...], **how: Any) -> tuple[list[Row], list[Row], list[Row]]:
    turns, parsed = debate(*rounds, **how)
    turns = numbered(turns)
    return turns, list(consensus(turns, parsed).rows), parsed


def test_pairs_of_the_worked_example() -> None:
    """Answers (5, 7, 5), then (5, 5, 7): the vote says 5."""
    turns, credit, _ = contrasted(("5", "7", "5"), ("5", "5", "7"))
    found = debate_pairs(turns, credit, everyone(3))
    sides = [(row["agent"], row["chosen_turn"], row["rejected_turn"]) for row in found.rows]
    # Generators: own answer against those judged otherwise. Critic 1 kept its answer (1 was wrong), critic 2 corrected
    # its own; critic 3 lost the vote and has no answer to choose.
    assert sides == [
        *(("generator-1", 0, 1), ("generator-2", 0, 1), ("generator-2", 2, 1), ("generator-3", 2, 1)),
        *(("critic-1", 3, 1), ("critic-2", 4, 1)),
    ]
    for row in found.rows:
        assert (row["chosen"], row["rejected"]) == (f"text {row['chosen_turn']}", f"text {row['rejected_turn']}")
        assert row["chosen_ids"] == [10 + row["chosen_turn"]]
    prompts = {row["agent"]: row["messages"] for row in found.rows}
    assert prompts["critic-2"] == turns[4]["messages"] and prompts["generator-2"] == turns[1]["messages"]


def test_unanimous_first_answers_give_no_pair_but_a_correction_does() -> None:
    turns, credit, _ = contrasted(("5", "5", "5"), ("5", "5", "5"))
    assert not list(debate_pairs(turns, credit, everyone(3)).rows)
    turns, credit, _ = contrasted(("7", "7", "7"), ("5", "5", "7"))
    pairs = list(debate_pairs(turns, credit, everyone(3)).rows)
    assert [(row["agent"], row["rejected_turn"]) for row in pairs] == [("critic-1", 0), ("critic-2", 1)]


def test_what_a_pair_cannot_be_made_of_is_counted() -> None:
    turns, credit, _ = contrasted(("5", "7", "5"), ("5", "5", "7"))
    cut = [{**turn, "finish": "length"} if turn["turn"] == 4 else turn for turn in turns]
    found = debate_pairs(cut, credit, everyone(3))
    assert found.counts["critic-2: chosen cut off at the token limit"] == 1
    same = [{**turn, "text": "the same"} for turn in turns]
    found = debate_pairs(same, credit, everyone(3))
    assert not list(found.rows) and found.counts["generator-2: no other text to reject"] == 2
    assert debate_pairs(turns, [], everyone(3)).counts == {"episodes without a label": 1}


def test_only_learners_get_pairs_and_one_may_get_all() -> None:
    turns, credit, _ = contrasted(("5", "7", "5"), ("5", "5", "7"))
    assert {row["agent"] for row in debate_pairs(turns, credit, {"critic-2": "critic-2"}).rows} == {"critic-2"}
    pooled = list(debate_pairs(turns, credit, dict.fromkeys(everyone(3), "solver")).rows)
    assert len(pooled) == 4 and {row["agent"] for row in pooled} == {"solver"}


def test_advantages_are_agreement_less_the_rounds_mean() -> None:
    turns, credit, _ = contrasted(("5", "7", "5"), ("5", "5", "5"))
    found = advantage_rows(turns, credit, everyone(3))
    told = {row["agent"]: round(row["advantage"], 6) for row in found.rows}
    assert told == {"generator-1": 0.333333, "generator-2": -0.666667, "generator-3": 0.333333}
    assert found.counts["critic-1: everybody in the round agrees"] == 1
    assert all(row["logprobs"] == [-0.5] for row in found.rows)
    assert sum(found.counts.values()) == len(turns)


def test_advantages_need_what_was_sampled() -> None:
    turns, credit, _ = contrasted(("5", "7", "5"), ("5", "5", "5"))
    bare = [{**turn, "logprobs": None} for turn in turns]
    found = advantage_rows(bare, credit, everyone(3))
    assert not list(found.rows) and found.counts["generator-2: no ids or log-probabilities"] == 1


PROBLEMS = [{"id": name, "question": f"What is {name}?", "answer": name, "ending": "", "meta": "{}"} for name in "abc"]


def answered(scores: dict[str, float], said: str, finish: str = "stop") -> tuple[list[Row], list[Row]]:
    turns = [
        {
            **{"problem": name, "take": 0, "turn": 0, "agent": "solver", "text": f"{said} {name}", "finish": finish},
            **{"messages": [{"role": "user", "content": f"{said}?"}], "prompt_ids": [len(said)], "token_ids": [7]},
        }
        for name in scores
    ]
    return turns, [{"problem": name, "take": 0, "turn": 0, "score": score} for name, score in scores.items()]


def test_star_hints_at_what_was_wrong_and_learns_it_without_the_hint() -> None:
    turns, grades = answered({"a": 1.0, "b": 0.0, "c": 0.0}, "plain")
    told = hinted(PROBLEMS, grades)
    assert [row["id"] for row in told] == ["b", "c"]
    assert told[0]["question"] == "What is b?\n(The right answer is b; show how to get there.)"
    again, regraded = answered({"b": 1.0, "c": 0.0}, "hinted")
    found = star_rows(turns, grades, again, regraded)
    rows = list(found.rows)
    assert [(row["problem"], row["completion"]) for row in rows] == [("a", "plain a"), ("b", "hinted b")]
    # The rationale answers the question as it will be asked, not the one with the hint.
    assert rows[1]["messages"] == turns[1]["messages"] and rows[1]["prompt_ids"] == turns[1]["prompt_ids"]
    assert found.counts == {
        "solver: answer kept": 1,
        "solver: answer wrong": 2,
        "solver: rationale kept": 1,
        "solver: rationale wrong": 1,
    }


@pytest.mark.parametrize("finish", ["length", "overflow"])
def test_star_learns_nothing_that_was_cut_off(finish: str) -> None:
    found = star_rows(*answered({"a": 1.0}, "plain", finish), [], [])
    assert not list(found.rows) and sum(found.counts.values()) == 1


def test_a_learner_of_everybodys_turns_has_no_pair_twice() -> None:
    turns, credit, _ = contrasted(("5", "7", "5"), ("5", "5", "7"))
    found = debate_pairs(turns, credit, dict.fromkeys(everyone(3), "solver"))
    sides = [(row["agent"], row["chosen_turn"], row["rejected_turn"]) for row in found.rows]
    assert sides == [("solver", 0, 1), ("solver", 2, 1), ("solver", 3, 1), ("solver", 4, 1)]
    assert sum(count for told, count in found.counts.items() if told.endswith("duplicate")) == 2
