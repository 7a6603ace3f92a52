"""Multiagent Finetuning's parts: who reads whom, the label, and what each agent learns from (specification 4.11)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teamtune import Scripted
from teamtune.credit.consensus import consensus
from teamtune.curate.debate import debate_rows
from teamtune.play import Live, waves
from teamtune.protocols import exchange
from teamtune.protocols.exchange import by_one, by_roles
from teamtune.types import Ask, Completion, Problem, Row, Sampling, Team, TeamtuneError, turn_row

PROBLEM = Problem("p", "What is 2 + 3?", "5", "End with: Answer: <number>")


class Narrow(Scripted):
    """Everybody says their name and the tag of what they were asked, but for those whom the context is too small for,
    (agent, tag)."""

    def __init__(self, lost: Container[tuple[str, str]]):
        super().__init__(lambda ask, seed: f"{ask.agent} {ask.tag}")
        self.lost = lost

    def generate(self, asks: Sequence[Ask], seeds: Sequence[int]) -> list[Completion]:
        said = super().generate(asks, seeds)
        lost = [(ask.agent, ask.tag) in self.lost for ask in asks]
        return [Completion("", "overflow") if gone else one for gone, one in zip(lost, said, strict=True)]


def played(speakers: exchange.Speakers, lost: Container[tuple[str, str]] = (), **how: Any) -> Live:
    """A debate in which everybody says their name and the tag of what they were asked, or nothing where that is
    lost."""
    names = [name for names in speakers for name in names]
    team = Team("none", exchange.seats(names, Sampling()))
    live = Live(PROBLEM, 0, partial(exchange.exchange, speakers=speakers, **how), team)
    engine = Narrow(lost)
    engine.adopt(team)
    for _ in waves([live], engine, 0):
        pass
    return live


def shown(ask: Ask) -> str:
    return "\n".join(message.content for message in ask.messages if message.role == "user")


# The play


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("rounds", [1, 2, 3])
@pytest.mark.parametrize("summary", ["base", "own", "none"])
def test_everybody_speaks_once_a_round_and_reads_the_others(count: int, rounds: int, summary: Any) -> None:
    live = played(by_roles(count, rounds), summary=summary)
    summaries = 0 if summary == "none" or count == 1 else count * (rounds - 1)
    assert len(live.turns) == count * rounds + summaries
    for turn in live.turns:
        kind, _, number = turn.ask.tag.partition("-")
        place = [t.index for t in live.turns if t.ask.tag == turn.ask.tag].index(turn.index)
        if kind == "summary":
            who = "summariser" if summary == "base" else f"critic-{place + 1}"
            assert turn.ask.agent == who
            assert len(turn.ask.parents) == count - 1
            continue
        assert turn.ask.agent == ("generator" if number == "1" else "critic") + f"-{place + 1}"
        if number == "1":
            assert not turn.ask.parents
            continue
        own = next(
            t for t in live.turns if t.ask.tag == f"round-{int(number) - 1}" and t.ask.agent.endswith(f"-{place + 1}")
        )
        assert own.index in turn.ask.parents
        assert [m.content for m in turn.ask.messages if m.role == "assistant"][-1] == own.text
        assert own.text not in shown(turn.ask)
        others = [t for t in live.turns if t.ask.tag == own.ask.tag and t is not own]
        read = [live.turns[i] for i in turn.ask.parents if i != own.index]
        assert read == others if not summaries else [t.ask.tag for t in read] == [f"summary-{number}"]
        assert all(t.text in shown(turn.ask) for t in read)
    assert live.episode().answer == next(t.index for t in live.turns if t.ask.tag == f"round-{rounds}")


@pytest.mark.parametrize("manner", ["contest", "cooperate"])
def test_what_did_not_fit_the_context_is_shown_to_nobody(manner: Any) -> None:
    """An empty summary, or an empty answer among the others', would be read as one."""
    whole = played(by_roles(3, 2), lost={("generator-2", "round-1")}, summary="none", manner=manner)
    third = next(turn.ask for turn in whole.turns if turn.ask.agent == "critic-3")
    assert "Agent 1:\ngenerator-1 round-1" in shown(third) and "Agent 2" not in shown(third)
    short = played(by_roles(3, 2), lost={("summariser", "summary-2")}, manner=manner)
    for turn in short.turns:
        if turn.ask.tag == "round-2":
            assert "in short" not in shown(turn.ask) and "Check your answer" in shown(turn.ask)


def test_agents_that_cooperate_are_asked_to_combine() -> None:
    assert "Combine" in shown(played(by_roles(3, 2), manner="cooperate").turns[-1].ask)
    assert "Combine" not in shown(played(by_roles(3, 2)).turns[-1].ask)


def test_unique_ids_open_every_seats_prompt() -> None:
    team = exchange.seats(["generator-1", "critic-2"], Sampling(), ids=True)
    assert [seat.system.split(".")[0] for seat in team[:2]] == ["GEN1", "CRIT2"]


def test_rounds_of_different_sizes_are_refused() -> None:
    with pytest.raises(TeamtuneError, match="give each the same number"):
        played([["a", "b"], ["a"]])


def test_one_agent_may_take_every_place() -> None:
    assert {turn.ask.agent for turn in played(by_one("solver", 3, 2), summary="none").turns} == {"solver"}


# The label and the data


def debate(*rounds: tuple[str | None, ...], problem: str = "p", finish: str = "stop") -> tuple[list[Row], list[Row]]:
    """A Turn table and its parsed rows, from the answers of every round."""
    live = played(by_roles(len(rounds[0]), len(rounds)), summary="none")
    answers = [answer for one in rounds for answer in one]
    turns = [{**turn_row(problem, 0, turn), "finish": finish} for turn in live.turns]
    return turns, [{"problem": problem, "take": 0, "turn": i, "parsed": answer} for i, answer in enumerate(answers)]


def everyone(count: int) -> dict[str, str]:
    return {f"{role}-{n + 1}": f"{role}-{n + 1}" for role in ("generator", "critic") for n in range(count)}


def kinds(turns: list[Row], parsed: list[Row], **how: Any) -> dict[str, list[str]]:
    found = debate_rows(turns, list(consensus(turns, parsed).rows), everyone(len(turns)), **how)
    by_agent: dict[str, list[str]] = {}
    for row in found.rows:
        by_agent.setdefault(row["agent"], []).append(row["kind"])
    return by_agent


def test_the_worked_example() -> None:
    """Specification 4.1: answers (5, 7, 5), then (5, 5, 7)."""
    turns, parsed = debate(("5", "7", "5"), ("5", "5", "7"))
    credit = list(consensus(turns, parsed).rows)
    assert {row["label"] for row in credit} == {"5"}
    assert [row["agrees"] for row in credit] == [True, False, True, True, True, False]
    assert {round(row["share"], 3) for row in credit} == {0.667} and {round(row["margin"], 3) for row in credit} == {
        0.333
    }
    assert kinds(turns, parsed, weight=None) == {
        "generator-1": ["first"],
        "generator-3": ["first"],
        "critic-1": ["kept right"],
        "critic-2": ["corrected"],
    }


def test_five_agents_and_three_rounds_look_at_the_first_and_the_last() -> None:
    turns, parsed = debate(("1", "2", "1", "3", None), ("9", "9", "9", "9", "9"), ("1", "1", "2", None, "1"))
    assert kinds(turns, parsed, weight=None) == {
        "generator-1": ["first"],
        "generator-3": ["first"],
        "critic-1": ["kept right"],
        "critic-2": ["corrected"],
        "critic-5": ["corrected"],
    }


def test_a_debate_nobody_can_be_read_in_has_no_label() -> None:
    turns, parsed = debate(("1", "1", "1"), (None, None, None))
    found = consensus(turns, parsed)
    assert not list(found.rows)
    assert found.counts["episodes without a readable last answer"] == 1
    assert debate_rows(turns, [], everyone(3)).counts["episodes without a label"] == 1


@pytest.mark.parametrize(
    ("ties", "labels"), [("random", {"1", "2"}), ("first", {"2"}), ("last", {"2"}), ("drop", set())]
)
def test_ties(ties: Any, labels: set[str]) -> None:
    turns, parsed = debate(("1", "2"), ("2", "1"))
    found = [consensus(turns, parsed, ties, seed) for seed in range(40)]
    assert {row["label"] for one in found for row in one.rows} == labels
    assert all(one.counts["episodes with a tie"] == 1 for one in found)
    assert [list(one.rows) for one in found] == [list(consensus(turns, parsed, ties, seed).rows) for seed in range(40)]


def test_a_turn_that_was_not_parsed_is_refused() -> None:
    turns, parsed = debate(("1", "2"), ("2", "1"))
    with pytest.raises(TeamtuneError, match="turn 3 was not parsed"):
        consensus(turns, parsed[:3])


def many(corrected: int, kept: int) -> tuple[list[Row], list[Row]]:
    tables = [
        debate(("7" if i < corrected else "5", "5"), ("5", "5"), problem=f"p{i}") for i in range(corrected + kept)
    ]
    return [row for turns, _ in tables for row in turns], [row for _, parsed in tables for row in parsed]


@given(corrected=st.integers(0, 25), kept=st.integers(0, 25), weight=st.floats(0, 1))
def test_the_share_of_corrected_answers_is_the_weight_to_within_one(corrected: int, kept: int, weight: float) -> None:
    turns, parsed = many(corrected, kept)
    found = debate_rows(turns, list(consensus(turns, parsed).rows), {"critic-1": "critic-1"}, weight)
    count = Counter(row["kind"] for row in found.rows)
    total = count.total()
    if corrected and kept:
        assert abs(count["corrected"] - weight * total) <= 1
        if 0 < weight < 1 and total:  # as many as both sides allow
            unused = corrected - count["corrected"], kept - count["kept right"]
            assert min(unused) <= 1 / min(weight, 1 - weight)
    elif 0 < weight < 1:
        assert total == corrected + kept
        if total:
            missing = "corrected" if kept else "kept right"
            assert found.counts[f"critic-1: no {missing} answers, so all of the others"] == 1
    left = {
        kind: found.counts.get(f"critic-1: {kind}, left out for the weight", 0) for kind in ("corrected", "kept right")
    }
    if corrected and kept:
        assert (count["corrected"] + left["corrected"], count["kept right"] + left["kept right"]) == (corrected, kept)


def test_agents_learn_from_their_own_turns_alone_and_one_learner_from_all() -> None:
    turns, parsed = many(4, 4)
    credit = list(consensus(turns, parsed).rows)
    said = {(turn["problem"], turn["turn"]): turn["agent"] for turn in turns}
    for row in debate_rows(turns, credit, everyone(2)).rows:
        assert said[row["problem"], row["turn"]] == row["agent"]
    union = list(debate_rows(turns, credit, dict.fromkeys(everyone(2), "solver")).rows)
    assert {row["agent"] for row in union} == {"solver"}
    assert len(union) == len(list(debate_rows(turns, credit, everyone(2)).rows))
    without = debate_rows(turns, credit, {"generator-1": "generator-1"}).rows
    assert {row["agent"] for row in without} == {"generator-1"}


def test_loss_on_the_last_answer_alone_or_on_all_of_the_conversation() -> None:
    turns, parsed = debate(("7", "5"), ("5", "5"))
    credit = list(consensus(turns, parsed).rows)
    final, every = (
        list(debate_rows(turns, credit, {"critic-1": "critic-1"}, 1.0, masking).rows) for masking in ("final", "all")
    )
    assert [(row["kind"], row["turn"]) for row in final] == [("corrected", 2)]
    assert [(row["kind"], row["turn"]) for row in every] == [("corrected", 2), ("own earlier turn", 0)]
    # The earlier turn's messages open the later one's, so both rows together cost what one sequence with both would.
    assert every[0]["messages"][: len(every[1]["messages"])] == every[1]["messages"]
    assert every[0]["messages"][len(every[1]["messages"])]["content"] == every[1]["completion"]


def test_what_was_cut_off_is_counted_and_not_learned_from() -> None:
    turns, parsed = debate(("5", "5"), ("5", "5"), finish="length")
    found = debate_rows(turns, list(consensus(turns, parsed).rows), everyone(2))
    assert not list(found.rows)
    assert found.counts["generator-1: first, cut off at the token limit"] == 1
    assert found.counts["critic-2: kept right, cut off at the token limit"] == 1


def test_no_critic_learns_to_go_on_from_an_answer_that_was_never_said() -> None:
    turns, parsed = debate(("5", "5"), ("5", "5"))
    turns[1] = {**turns[1], "finish": "overflow", "text": ""}
    found = debate_rows(turns, list(consensus(turns, parsed).rows), everyone(2), 0.0)
    assert [row["agent"] for row in found.rows] == ["generator-1", "critic-1"]
    assert found.counts["critic-2: last answer after one of its own that was never said"] == 1


def test_a_weight_out_of_range_is_refused() -> None:
    with pytest.raises(TeamtuneError, match=r"weight is 1\.5"):
        debate_rows([], [], {}, 1.5)


def test_a_single_model_learns_from_the_rounds_between_too() -> None:
    turns, parsed = debate(("5", "7"), ("7", "5"), ("5", "5"))
    credit = list(consensus(turns, parsed).rows)
    found = debate_rows(turns, credit, dict.fromkeys(everyone(2), "solver"), weight=None)
    assert Counter(row["kind"] for row in found.rows) == {"first": 1, "between": 1, "kept right": 1, "corrected": 1}
    assert found.counts["critic-1: answer between off the label"] == 1
    team = debate_rows(turns, credit, everyone(2), weight=0.5)
    assert not any("between" in told for told in team.counts), "the method itself leaves them out"
