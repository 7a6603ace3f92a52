"""MAPoRL's discussion: who sees what, scores between turns, an early end (specification 3.2, 3.13)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from teamtune import Scripted
from teamtune.engines.routed import Routed
from teamtune.play import Live, rolling, waves
from teamtune.protocols.discussion import (
    OPENER,
    Early,
    by_policy,
    discuss,
    discussion,
    in_words,
    policy,
    seats,
    unscored,
)
from teamtune.types import SCORER, Ask, Completion, Problem, Sampling, Team, TeamtuneError, Turn, turn_row

PROBLEM = Problem("p", "What is 2 + 3?", "5", "End with: Answer: <number>")


def scorer(asks: Sequence[Ask]) -> list[float]:
    """Longer answers are better."""
    return [min(1.0, len(ask.messages[-1].content) / 40) for ask in asks]


def say(ask: Ask, seed: int) -> str:
    return f"{ask.agent} at {ask.tag}, {len(ask.messages)} messages. Answer: 5"


def routed(team: Team, script: Any) -> Any:
    judge = Scripted(lambda ask, seed: f"{scorer([ask])[0]:.8f}")
    answering = Scripted(script)
    return Routed({name: judge if name == SCORER else answering for name in team.names})


def played(speakers: Any, driver: Any = waves, script: Any = say, **how: Any) -> Live:
    team = Team("none", seats(speakers, Sampling(), "a-folder" if how.get("scored") else None))
    live = Live(PROBLEM, 0, partial(discussion, speakers=speakers, **how), team)
    engine = routed(team, script)
    engine.adopt(team)
    for _ in driver([live], engine, 0):
        pass
    return live


def test_who_shares_an_adapter() -> None:
    assert by_policy("turn", 2, 3) == [["turn-1"] * 2, ["turn-2"] * 2, ["turn-3"] * 2]
    assert by_policy("agent", 2, 3) == [["agent-1", "agent-2"]] * 3
    assert by_policy("agent-turn", 2, 2)[1] == ["agent-1-turn-2", "agent-2-turn-2"]
    assert by_policy("shared", 2, 3, frozen=True) == [[OPENER] * 2, ["agent"] * 2, ["agent"] * 2]
    assert policy("agent", 1, 0, frozen=True) == OPENER


def test_a_discussion_of_another_size_than_that_of_training() -> None:
    assert by_policy("turn", 3, 4, trained=(2, 3)) == [[f"turn-{t}"] * 3 for t in (1, 2, 3, 3)]
    assert by_policy("agent", 3, 2, trained=(2, 3)) == [["agent-1", "agent-2", "agent-1"]] * 2
    frozen = by_policy("agent-turn", 3, 3, frozen=True, trained=(2, 2))
    assert frozen[0] == [OPENER] * 3 and frozen[2] == ["agent-1-turn-2", "agent-2-turn-2", "agent-1-turn-2"]


@pytest.mark.parametrize("driver", [waves, rolling])
@pytest.mark.parametrize("scored", [True, False])
@pytest.mark.parametrize("agents", [1, 2, 3])
def test_everybody_keeps_a_conversation_and_roles_alternate(agents: int, scored: bool, driver: Any) -> None:
    live = played(by_policy("agent", agents, 3), driver, scored=scored)
    answers = [turn for turn in live.turns if turn.ask.agent != SCORER]
    assert len(answers) == 3 * agents and len(live.turns) == (2 if scored else 1) * 3 * agents
    for turn in answers:
        number = int(turn.ask.tag.removeprefix("turn-")) - 1
        messages = turn.ask.messages[1:]  # the seat's own system message stands first
        # 2t + 1, where one message holds the score and what the others said.
        assert [m.role for m in messages] == (["user", "assistant"] * (number + 1))[:-1]
        own = [m.content for m in messages if m.role == "assistant"]
        assert own == [t.text for t in answers if t.ask.agent == turn.ask.agent and t.index < turn.index]
    assert live.answer == answers[-agents].index


def test_peers_are_shown_from_the_turn_before_alone_and_nobody_reads_itself() -> None:
    live = played(by_policy("agent-turn", 3, 3))
    last = next(turn for turn in live.turns if turn.ask.agent == "agent-2-turn-3")
    newest = last.ask.messages[-1].content
    assert "agent-1-turn-2 at" in newest and "agent-3-turn-2 at" in newest
    assert "agent-2" not in newest and "turn-1 at" not in newest
    assert newest.index("agent-1-turn-2") < newest.index("agent-3-turn-2")
    # What they said before stays where it was said.
    assert "agent-1-turn-1 at" in last.ask.messages[3].content
    by_index = {turn.index: turn for turn in live.turns}
    assert [by_index[i].ask.agent for i in last.ask.parents] == ["agent-2-turn-2", "agent-1-turn-2", "agent-3-turn-2"]


def test_scores_are_turns_and_are_shown_or_not() -> None:
    live = played(by_policy("turn", 2, 2), scored=True)
    judged = [turn for turn in live.turns if turn.ask.agent == SCORER]
    assert [turn.ask.tag for turn in judged] == ["score-1", "score-1", "score-2", "score-2"]
    first = live.turns[0]
    assert judged[0].ask.parents == (0,)
    assert [m.role for m in judged[0].ask.messages] == ["system", "user", "assistant"]
    assert judged[0].ask.messages[0] == first.ask.messages[0], "asked as those who answer are"
    assert judged[0].ask.messages[-1].content == first.text
    score = float(judged[0].text)
    assert score == pytest.approx(scorer([judged[0].ask])[0], abs=1e-8)
    shown = next(turn for turn in live.turns if turn.ask.tag == "turn-2").ask.messages[-1].content
    assert f"score {score:.3f}, {in_words(score)}" in shown and "imperfect scorer" in shown
    hidden = played(by_policy("turn", 2, 2), scored=True, feedback=False)
    told = next(turn for turn in hidden.turns if turn.ask.tag == "turn-2").ask.messages[-1].content
    assert "score" not in told and "What is 2 + 3?" in told


def test_the_verbal_grades() -> None:
    said = [in_words(score) for score in (0.0, 0.299, 0.3, 0.599, 0.6, 0.799, 0.8, 1.0)]
    assert said[0] == said[1] != said[2] == said[3] != said[4] == said[5] != said[6] == said[7]
    assert "The other agents" not in discuss(PROBLEM, 0.5, []).content
    assert unscored(PROBLEM, []).content.startswith("Correct yours")


@pytest.mark.parametrize("scored", [True, False])
def test_an_early_end_in_agreement(scored: bool) -> None:
    speakers = by_policy("turn", 2, 3)
    live = played(speakers, scored=scored, early=Early(share=1.0, score=0.5))
    assert {turn.ask.tag for turn in live.turns} == ({"turn-1", "score-1"} if scored else {"turn-1"})
    apart = lambda ask, seed: f"Answer: {seed % 1000}"  # noqa: E731
    assert len(played(speakers, script=apart, early=Early(share=1.0)).turns) == 6
    unread = lambda ask, seed: "I do not know"  # noqa: E731
    assert len(played(speakers, script=unread, early=Early(share=1.0)).turns) == 6
    if scored:
        assert len(played(speakers, scored=True, early=Early(share=1.0, score=0.99)).turns) == 12


@pytest.mark.parametrize(
    ("answer", "texts", "ends"),
    [
        ("0.5", ("Answer: 1/2", "so it is 0.50\nAnswer: 0.5"), True),
        ("0.5", ("Answer: 1/2", "Answer: 1/3"), False),
        ("7", ("Answer: 1,000", "It makes \\boxed{1000}."), True),
        ("yes", ("Answer: Yes.", "The answer is yes"), True),
        ("7", ("Answer: 7", "I do not know"), False),
    ],
)
def test_answers_agree_that_a_grader_takes_for_equal(answer: str, texts: tuple[str, str], ends: bool) -> None:
    speakers = by_policy("agent", 2, 3)
    team = Team("none", seats(speakers, Sampling()))
    live = Live(Problem("p", "What?", answer), 0, partial(discussion, speakers=speakers, early=Early(share=1.0)), team)
    said = Scripted(lambda ask, seed: texts[ask.agent == "agent-2"])
    for _ in waves([live], said, 0):
        pass
    assert (len(live.turns) == 2) == ends


def test_nobody_s_answer_ends_a_discussion_by_what_is_right() -> None:
    """Who agrees ends it, on whatever: the gold answer is not looked at."""
    speakers = by_policy("agent", 2, 3)
    for gold in ("5", "6"):
        team = Team("none", seats(speakers, Sampling()))
        live = Live(replace(PROBLEM, answer=gold), 0, partial(discussion, speakers=speakers, early=Early(1.0)), team)
        for _ in waves([live], Scripted(say), 0):
            pass
        assert len(live.turns) == 2, gold


@pytest.mark.parametrize(
    ("said", "share", "ends"),
    [
        (("5", "6"), 0.5, False),  # nobody agrees with anybody
        (("5", "5"), 0.5, True),
        (("5", "?"), 0.5, False),
        (("5", "5", "6"), 0.6, True),
        (("5", "5", "6", "6"), 0.5, False),  # as many for one as for the other, in whatever order
        (("6", "5", "5", "6"), 0.5, False),
        (("5", "5", "6", "7"), 0.5, True),
        (("5", "5", "6", "7"), 0.6, False),
    ],
)
def test_agreement_takes_two_and_more_than_any_other_has(said: tuple[str, ...], share: float, ends: bool) -> None:
    texts = ["no idea" if one == "?" else f"Answer: {one}" for one in said]
    turns = [Turn(number, Ask("agent", (), "turn-1"), Completion(text)) for number, text in enumerate(texts)]
    assert Early(share).reached(PROBLEM, turns, []) == ends


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"share": 0.0}, "early.share is 0.0"),
        ({"share": -1.0}, "early.share is -1.0"),
        ({"share": 0.5, "score": 5.0}, "early.score is 5.0"),
        ({"score": 0.5}, "early.score has no use with early.share 1.1"),
    ],
)
def test_ends_that_cannot_be(how: dict[str, float], told: str) -> None:
    with pytest.raises(TeamtuneError, match=told):
        Early(**how)


@pytest.mark.parametrize("scored", [True, False])
@pytest.mark.parametrize("finish", ["overflow", "withheld"])
def test_what_was_not_said_is_not_shown(scored: bool, finish: Any) -> None:
    """Of the agent whose prompt did not fit, the others are told nothing; it is asked again itself."""

    class Broken(Scripted):
        def generate(self, asks: Sequence[Ask], seeds: Sequence[int]) -> list[Completion]:
            lost = [(ask.agent, ask.tag) == ("agent-2", "turn-1") for ask in asks]
            said = super().generate(asks, seeds)
            return [Completion("", finish) if gone else one for gone, one in zip(lost, said, strict=True)]

    speakers = by_policy("agent", 3, 2)
    team = Team("none", seats(speakers, Sampling(), "a-folder" if scored else None))
    script = lambda ask, seed: "0.5" if ask.agent == SCORER else say(ask, seed)  # noqa: E731
    live = Live(PROBLEM, 0, partial(discussion, speakers=speakers, scored=scored), team)
    for _ in waves([live], Broken(script), 0):
        pass
    later = {turn.ask.agent: turn.ask.messages[-1].content for turn in live.turns if turn.ask.tag == "turn-2"}
    assert later["agent-1"].count("Agent ") == 1 and "agent-3 at turn-1" in later["agent-1"]
    assert later["agent-3"].count("Agent ") == 1 and "agent-1 at turn-1" in later["agent-3"]
    assert later["agent-2"].count("Agent ") == 2


def test_a_broken_off_discussion_goes_on_from_its_turns() -> None:
    speakers = by_policy("turn", 2, 2)
    whole = played(speakers, scored=True)
    protocol = partial(discussion, speakers=speakers, scored=True)
    again = Live(PROBLEM, 0, protocol, whole.team, whole.turns[:5])
    engine = routed(whole.team, say)
    engine.adopt(whole.team)
    for _ in waves([again], engine, 0):
        pass
    assert [turn_row("p", 0, t) for t in again.turns] == [turn_row("p", 0, t) for t in whole.turns]


@pytest.mark.parametrize("told", ["well", "1.5", "nan", "-0.1"])
def test_a_scorer_that_gives_no_score_is_named(told: str) -> None:
    speakers = by_policy("turn", 1, 1)
    team = Team("none", seats(speakers, Sampling(), "a-folder"))
    live = Live(PROBLEM, 0, partial(discussion, speakers=speakers, scored=True), team)
    engine = Scripted(lambda ask, seed: told if ask.agent == SCORER else "Answer: 5")
    engine.adopt(team)
    with pytest.raises(TeamtuneError, match="a score is a number from 0 to 1"):
        list(waves([live], engine, 0))


def test_turns_of_different_sizes_are_refused() -> None:
    with pytest.raises(TeamtuneError, match=r"turns have \[2, 1\] speakers"):
        played([["a", "b"], ["a"]])
