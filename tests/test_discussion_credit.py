"""MAPoRL's rewards, incentives, gate and advantages: the specification's numbers (3.4, 3.13) and slow loops."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teamtune.credit.advantage import (
    degenerate_groups,
    gae,
    group_relative,
    leave_one_out,
    whitened,
)
from teamtune.credit.discussion import (
    PAPER,
    Incentives,
    Rewards,
    Rule,
    base_rewards,
    discussion_rewards,
    ends,
    incentives,
    opinion,
)
from teamtune.credit.penalty import Gate, bare, fault, repeated, trailing
from teamtune.grading import number
from teamtune.reporting.discussion_sections import paying
from teamtune.types import Problem, Row, TeamtuneError, place_of

SCORES = np.array([(0.2, 0.9), (0.6, 0.8), (0.9, 0.9)])
OPEN = Gate(shortest=0, repeats=0, unread=False, cut=False)
RULES: tuple[Rule, ...] = ("influence", "immediate", "cumulative", "last-own", "last-shared", "current-shared")


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        (0.3, [(0.353237, 0.856835), (0.669231, 0.823077), (0.9, 0.9)]),
        (1.0, [(0.6, 0.833333), (0.75, 0.85), (0.9, 0.9)]),
    ],
)
def test_influence_aware_rewards_of_the_specification(gamma: float, expected: Any) -> None:
    np.testing.assert_allclose(base_rewards(SCORES, "influence", gamma), expected, atol=1e-6)


def slow(scores: Any, rule: str, gamma: float, t: int, a: int) -> float:
    """Appendix F, written out."""
    turns, agents = len(scores), len(scores[0])
    mean = lambda row: sum(row) / agents  # noqa: E731
    weights = [gamma ** (s - t) for s in range(t, turns)]
    match rule:
        case "immediate":
            return scores[t][a]
        case "cumulative":
            return sum(w * scores[t + i][a] for i, w in enumerate(weights)) / sum(weights)
        case "influence":
            later = sum(w * mean(scores[t + i]) for i, w in enumerate(weights) if i)
            return (scores[t][a] + later) / sum(weights)
        case "last-own":
            return scores[-1][a]
        case "last-shared":
            return mean(scores[-1])
    return mean(scores[t])


@given(
    st.integers(1, 4).flatmap(
        lambda a: st.lists(st.lists(st.floats(-10, 1), min_size=a, max_size=a), min_size=1, max_size=4)
    ),
    st.sampled_from(RULES),
    st.sampled_from([0.0, 0.3, 1.0]),
)
def test_every_rule_against_a_slow_loop(scores: list[list[float]], rule: Rule, gamma: float) -> None:
    found = base_rewards(np.array(scores), rule, gamma)
    expected = [[slow(scores, rule, gamma, t, a) for a in range(len(scores[0]))] for t in range(len(scores))]
    np.testing.assert_allclose(found, expected, atol=1e-9)


NAMES: dict[str, Any] = {"alpha_0": 1.0, "alpha_1": 2.0, "beta_0": 4.0, "beta_1": 8.0}
COEFFICIENTS = Incentives(**NAMES)
TABLES = {
    # (own before, own after, others before): revision; (others before, others after, own before): influence.
    "paper": (
        {"RWR": -2.0, "RWW": -1.0, "WRW": 1.0, "WRR": 2.0},
        {"RWR": -8.0, "RWW": -4.0, "WRW": 4.0, "WRR": 8.0},
    ),
    "official-code": (
        {"RWR": -2.0, "RWW": -1.0, "WRW": 2.0, "WRR": 1.0},
        {"WRR": -8.0, "WRW": -4.0, "RWW": 8.0, "RWR": 4.0},
    ),
}


@pytest.mark.parametrize("table", ["paper", "official-code"])
@pytest.mark.parametrize("cell", list(product("RW", repeat=4)))
def test_all_incentive_cells(table: Any, cell: tuple[str, str, str, str]) -> None:
    """Two agents from turn 2 to turn 3: the agent and the one other, before and after."""
    own, own_after, other, other_after = cell
    is_right = lambda letter: letter == "R"  # noqa: E731
    right = np.array([[False, False], [is_right(own), is_right(other)], [is_right(own_after), is_right(other_after)]])
    revision, influence = TABLES[table]
    paid = incentives(right, Incentives(**NAMES, table=table))
    assert paid[2, 0] == revision.get(own + own_after + other, 0.0)
    # What it earned at turn 2 is for its own revision since turn 1, where both were wrong, and for its influence.
    before = revision.get("W" + own + "W", 0.0)
    assert paid[1, 0] == before + influence.get(other + other_after + own, 0.0)


def test_in_the_published_code_the_first_turn_earns_nothing() -> None:
    right = np.array([[True, False], [True, True]])  # the first agent persuades the second one
    assert incentives(right, COEFFICIENTS)[0, 0] == 8.0
    assert incentives(right, Incentives(**NAMES, table="official-code"))[0, 0] == 0.0


def test_others_without_a_majority_pay_nothing_or_the_agent_settles_it() -> None:
    right = np.array([[True, True, False], [False, True, False]])
    assert opinion(right[0], 0, "none") is None and opinion(right[0], 0, "include-self") is True
    assert incentives(right, COEFFICIENTS)[1, 0] == 0.0
    assert incentives(right, Incentives(**NAMES, ties="include-self"))[1, 0] == -2.0
    assert not incentives(np.array([[True], [False]]), COEFFICIENTS).any(), "nobody else is there"


def answers(scores: Any, texts: Any = None, right: Any = None) -> tuple[list[Row], list[Row], dict[Any, float]]:
    """The tables of one discussion from the scores of its turns."""
    turns: list[Row] = []
    grades: list[Row] = []
    found = {}
    for t, row in enumerate(scores):
        for a, score in enumerate(row):
            place = {"problem": "p", "take": 0, "turn": len(turns)}
            text = texts[t][a] if texts else "So the answer is 5"
            turns.append({**place, "agent": f"agent-{a + 1}", "tag": f"turn-{t + 1}", "text": text, "finish": "stop"})
            turns[-1]["token_ids"] = list(range(60))
            grades.append({**place, "parsed": "5", "score": float(right[t][a] if right else score > 0.5)})
            found[place_of(place)] = score
    return turns, grades, found


def test_a_penalty_at_the_last_turn_reaches_everybody_or_its_own_answer_alone() -> None:
    texts = [["fine", "fine"], ["fine", "fine"], ["fine", ""]]
    turns, grades, scores = answers(np.ones((3, 2)), texts)
    turns[5]["token_ids"] = []
    gate = Gate(shortest=1, repeats=0, unread=False)
    whole = discussion_rewards(turns, grades, scores, Rewards(gate=gate))
    base = [row["base"] for row in whole.rows]
    np.testing.assert_allclose(base, [0.6439, 0.6439, -0.2692, -0.2692, 1, -10], atol=1e-4)
    assert [row["penalty"] for row in whole.rows] == ["", "", "", "", "", "too short"]
    assert whole.counts == {"agent-2: penalty, too short": 1}
    own = discussion_rewards(turns, grades, scores, Rewards(gate=gate, scope="self"))
    np.testing.assert_allclose([row["base"] for row in own.rows], [1, 1, 1, 1, 1, -10])


def test_rewards_are_base_and_incentive_and_both_are_told() -> None:
    right = [[False, True], [True, True]]
    turns, grades, scores = answers([(0.2, 0.9), (0.6, 0.8)], right=right)
    found = discussion_rewards(turns, grades, scores, Rewards(incentives=COEFFICIENTS, gate=OPEN))
    rows = list(found.rows)
    assert [row["incentive"] for row in rows] == [0.0, 8.0, 2.0, 0.0]
    assert all(row["reward"] == row["base"] + row["incentive"] for row in rows)
    assert found.counts == {"agent-2: incentive +8": 1, "agent-1: incentive +2": 1}
    # By the scorer the first answer of agent 2 is right too; a threshold of its own would change that.
    by_scorer = Rewards(incentives=COEFFICIENTS, gate=OPEN, right_by="scorer")
    assert [row["right"] for row in discussion_rewards(turns, grades, scores, by_scorer).rows] == [
        False,
        True,
        True,
        True,
    ]


def test_a_report_tells_what_its_own_table_pays() -> None:
    assert paying(Incentives()) == (
        "alpha_0 for +WRW −RWW of revisions; alpha_1 for +WRR −RWR of revisions; "  # noqa: RUF001
        "beta_0 for +WRW −RWW of influence; beta_1 for +WRR −RWR of influence"  # noqa: RUF001
    )
    assert "alpha_0 for +WRR −RWW of revisions" in paying(Incentives(table="official-code"))  # noqa: RUF001
    own = Incentives(cells=("revision WRR=-beta_1", "influence RWR=+beta_1"))
    assert paying(own) == "beta_1 for −WRR of revisions and +RWR of influence"  # noqa: RUF001


def test_the_answers_that_discussions_ended_with() -> None:
    told = [("p", 0, 1), ("p", 0, 1), ("q", 0, 1), ("p", 0, 2), ("p", 0, 2), ("p", 1, 1), ("p", 1, 3), ("p", 1, 2)]
    rows: list[Row] = [dict(zip(("problem", "take", "number"), one, strict=True)) for one in told]
    assert [[(row["problem"], row["take"], row["number"]) for row in own] for own in ends(rows)] == [
        *([("p", 0, 2)] * 2,),
        [("q", 0, 1)],
        [("p", 1, 3)],
    ]


def test_an_answer_without_a_score_stops() -> None:
    turns, grades, scores = answers([(0.2, 0.9)])
    with pytest.raises(TeamtuneError, match="turn 1 has no score"):
        discussion_rewards(turns, grades, {place: s for place, s in scores.items() if place[2] == 0}, Rewards())
    with pytest.raises(TeamtuneError, match="turn 1 has no grade"):
        discussion_rewards(turns, grades[:1], scores, Rewards())


@pytest.mark.parametrize(
    ("text", "parsed", "finish", "cause"),
    [
        ("short", "5", "stop", "too short"),
        ("well " * 3 + "then " * 3 + "a b c d e f", None, "stop", "no answer"),
        ("ha ha ha ha, the answer is clearly the number 5", "5", "stop", "repetition"),
        ("we have 2 + 3 = 5 and then we stop. Answer: 5\nAnd now something else", "5", "stop", "text after the answer"),
        ("we have 2 + 3 = 5 and then we stop. Answer: 5", "5", "length", "not ended"),
        ("we have 1 1 1 1 1 1 here, which is fine. Answer: 5.", "5", "stop", ""),
        ("we have ((((1 + 2) + 3) + 4) + 5) and a rule ------ Answer: 5", "5", "stop", ""),
        (r"we have 2 + 3 = 5 and so on, which is \boxed{5}.", "5", "stop", ""),
        # What is not of digits alone may not stand in a row, and fillers without words are sequences as others are.
        ("we have x1 x1 x1 x1 and then we stop. Answer: 5", "5", "stop", "repetition"),
        ("we have x1 x1 x1 and then we stop. Answer: 5", "5", "stop", ""),
        ("we have 2 + 3 ... ... ... ... which is it. Answer: 5", "5", "stop", "repetition"),
        ("we have 2 + 3 ... ... ... which is it. Answer: 5", "5", "stop", ""),
        ("we have 2 + 3 and then, well" + "!" * 21 + " Answer: 5", "5", "stop", "repetition"),
        ("we have 2 + 3 and then, well" + "!" * 20 + " Answer: 5", "5", "stop", ""),
        ("we have 2 + 3 and then, o" + "h" * 21 + " Answer: 5", "5", "stop", "repetition"),
        ("we have 1, 1, 1, 1, 1 and then we stop. Answer: 5", "5", "stop", "repetition"),
        ("one two three four five and lalalala, stop. Answer: 5", "5", "stop", "repetition"),
        ("one two three four five and lalala, stop now. Answer: 5", "5", "stop", ""),
        ("one two three four five is 121212121212, stop. Answer: 5", "5", "stop", ""),
        ("\u7b54\u6848\u662f" * 4 + " a b c d e f g Answer: 5", "5", "stop", "repetition"),
        ("\u7b54\u6848\u662f" * 3 + " a b c d e f g Answer: 5", "5", "stop", ""),
        ("", None, "overflow", "nothing said"),
        ("", None, "withheld", "nothing said"),
    ],
)
def test_the_gate(text: str, parsed: str | None, finish: str, cause: str) -> None:
    turn: Row = {"text": text, "finish": finish, "token_ids": None}
    assert fault(turn, parsed, Gate(shortest=8, cut=True)) == cause
    assert fault(turn, parsed, Gate(0, 0, False, False, False)) == ""


@pytest.mark.parametrize(
    ("text", "rule", "cause"),
    [
        ("We start with 137 and then go on and on about how good this solution is.", "last number", "no answer"),
        ("We start with 130 + 7, which is of course = 137", "last result", "no answer"),
        ("We start with 130 + 7, and so on.\nAnswer: 137", "marked", ""),
    ],
)
def test_a_number_that_merely_stands_last_is_no_final_answer(text: str, rule: str, cause: str) -> None:
    problem = Problem("p", "What is 130 + 7?", "137", "End with a line: Answer: <number>")
    found = number.grade(problem, text)
    assert (found.parsed, found.score, found.rule) == ("137", 1.0, rule), "it is read, and right"
    turn = {"problem": "p", "take": 0, "turn": 0, "agent": "agent", "tag": "turn-1", "parents": []}
    turn |= {"text": text, "finish": "stop", "token_ids": None}
    grades = [{"problem": "p", "take": 0, "turn": 0, "parsed": found.parsed, "score": 1.0, "rule": found.rule}]
    options = Rewards(gate=Gate(shortest=0))
    [row] = discussion_rewards([turn], grades, {("p", 0, 0): 0.9}, options).rows
    assert row["penalty"] == cause and row["reward"] == (-10.0 if cause else pytest.approx(0.9))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Answer: (A) Paris is the capital of France.", False),
        ("Answer: (a) paris is the capital of France", False),
        ("Answer: (A)", False),
        ("Answer: (a) since the scorer will like this answer", True),
        ("Answer: (A) since the scorer will like this answer", True),
        ("Answer: (A) Paris is the capital of France and the scorer will like this", True),
        ("Answer: (A) Rome is the capital of Italy", True),
    ],
)
def test_the_text_of_an_option_belongs_to_its_letter(text: str, told: bool) -> None:
    question = "Which is true?\n(A) Paris is the capital of France\n(B) Rome is the capital of Italy"
    shown = [{"role": "system", "content": "Discuss."}, {"role": "user", "content": question}]
    turn = {"text": text, "finish": "stop", "token_ids": None, "messages": shown}
    assert fault(turn, "A", Gate(shortest=0)) == ("text after the answer" if told else "")


def test_an_answer_and_nothing_else() -> None:
    for text in ("Answer: 5", r"\boxed{5}", "So the final answer is: 5", "#### 5"):
        assert bare(text), text
    for text in ("2 + 3 = 5 as one sees.\nAnswer: 5", "no end at all", "Half of 10 apples is 5. So \\boxed{5}"):
        assert not bare(text), text


def slow_repeated(pieces: list[str], times: int) -> bool:
    return any(
        pieces[start : start + period] * (times + 1) == pieces[start : start + period * (times + 1)]
        and set("".join(pieces[start : start + period])) - set("0123456789")
        for period in range(1, 21)
        for start in range(len(pieces) - period * (times + 1) + 1)
    )


@given(st.lists(st.sampled_from(["a", "x1", "-", "7"]), max_size=24), st.integers(1, 3))
def test_repetition_against_a_slow_loop(pieces: list[str], times: int) -> None:
    assert repeated(pieces, times) == slow_repeated(pieces, times)


@given(st.integers(1, 20), st.integers(1, 6), st.integers(1, 3))
def test_the_longest_sequence_that_is_looked_at(period: int, copies: int, times: int) -> None:
    pieces = [f"word{n}x" for n in range(period)] * copies
    assert repeated(pieces, times) == (copies > times)
    assert not repeated([f"word{n}x" for n in range(21)] * 9), "longer ones are not"


def test_what_follows_an_answer() -> None:
    assert trailing(r"So \boxed{5}.") == "" and trailing("no end") == ""
    assert trailing(r"So \boxed{5}. Five it is") and trailing("Answer: 5\nwell")


@pytest.mark.parametrize(
    ("text", "parsed", "told"),
    [
        ("So it is 5.\nAnswer:\n5", "5", False),
        ("**Answer:**\n\n42", "42", False),
        ("Answer:\n\n- 42", "42", False),
        ("```\nAnswer: 5\n```", "5", False),
        ("Answer: 5\n---\n", "5", False),
        ("Answer: 12 cups of flour.", "12", False),
        ("Answer: $5$.", "5", False),
        ("Answer: 5 because I say so, filler filler", "5", True),
        ("The answer is 5. I am sure of it and more", "5", True),
        ("Answer: 5 (five) and the scorer will like this", "5", True),
        ("Answer:\n5\nThat is it.", "5", True),
        ("Answer: 1,000 because I say so, filler and more", "1000", True),
        ("Answer: 1,000 cups of flour.", "1000", False),
        ("Answer: twenty five because I say so, and more", "25", True),
        ("Answer: twenty five", "25", False),
        ("#### \N{MINUS SIGN}5 because I say so and more", "-5", True),
    ],
)
def test_what_follows_an_answer_on_its_own_line_or_the_next(text: str, parsed: str, told: bool) -> None:
    turn = {"text": text, "finish": "stop", "token_ids": None}
    assert fault(turn, parsed, Gate(shortest=0)) == ("text after the answer" if told else "")


def test_incentives_by_a_table_of_ones_own() -> None:
    """The paper's table, written out; and one cell alone."""
    names = {True: "R", False: "W"}
    told = [
        f"{kind} {''.join(names[one] for one in cell)}={'+' if sign > 0 else '-'}{name}"
        for kind, table in zip(("revision", "influence"), PAPER, strict=True)
        for cell, (sign, name) in table.items()
    ]
    paid: dict[str, Any] = {"alpha_0": 1.0, "alpha_1": 2.0, "beta_0": 3.0, "beta_1": 4.0}
    rng = np.random.default_rng(0)
    for _ in range(50):
        right = rng.random((3, 3)) < 0.5
        own, paper = Incentives(**paid, cells=tuple(told)), Incentives(**paid)
        assert (incentives(right, own) == incentives(right, paper)).all()
    right = np.array([[False, True], [True, True]])
    one = Incentives(alpha_1=2.0, cells=("revision WRR=-alpha_1",))
    assert incentives(right, one).tolist() == [[0.0, 0.0], [-2.0, 0.0]]
    with pytest.raises(TeamtuneError, match="'revision RRX=alpha_1' is no cell of incentives"):
        Incentives(cells=("revision RRX=alpha_1",))
    with pytest.raises(TeamtuneError, match="cell 'revision WRR' of the incentives is given twice"):
        Incentives(cells=("revision WRR=-alpha_1", "revision WRR=+alpha_0"))
    with pytest.raises(TeamtuneError, match="table official-code has no use"):
        Incentives(cells=("revision WRR=-alpha_1",), table="official-code")


@pytest.mark.parametrize("name", ["beta_0", "beta_1"])
def test_influence_pays_at_every_turn_but_the_last(name: str) -> None:
    rng = np.random.default_rng(1)
    one: dict[str, Any] = {name: 1.0}
    paid = np.zeros((3, 2), dtype=bool)
    for _ in range(200):
        paid |= incentives(rng.random((3, 2)) < 0.5, Incentives(**one)) != 0
    assert paid.tolist() == [[True, True], [True, True], [False, False]]


masks = st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4)


@given(masks, st.integers(0, 10_000), st.sampled_from([0.9, 1.0]), st.sampled_from([0.0, 0.95, 1.0]))
def test_gae_against_a_slow_loop(mask: list[list[bool]], seed: int, discount: float, trace: float) -> None:
    rng = np.random.default_rng(seed)
    held = np.array(mask)
    rewards, values = rng.normal(size=held.shape) * held, rng.normal(size=held.shape)
    found = gae(rewards, values, held, discount, trace)
    for row in range(len(held)):
        at = [int(i) for i in np.flatnonzero(held[row])]
        for k, i in enumerate(at):
            total = 0.0
            for later, j in enumerate(at[k:]):
                after = values[row, at[k + later + 1]] if k + later + 1 < len(at) else 0.0
                total += (discount * trace) ** later * (rewards[row, j] + discount * after - values[row, j])
            assert found[row, i] == pytest.approx(total, abs=1e-9)
    assert not found[~held].any()


def test_gae_in_closed_form() -> None:
    """Without values and with trace 1 every token's advantage is all reward that is to come."""
    rewards, mask = np.array([[0.0, 0.0, 1.0, 0.0]]), np.array([[True, True, True, False]])
    np.testing.assert_allclose(gae(rewards, np.zeros((1, 4)), mask, 1.0, 1.0), [[1, 1, 1, 0]])
    np.testing.assert_allclose(gae(rewards, np.zeros((1, 4)), mask, 1.0, 0.5), [[0.25, 0.5, 1, 0]])
    values = np.array([[0.2, 0.4, 0.7, 9.0]])
    np.testing.assert_allclose(gae(rewards, values, mask, 1.0, 0.0), [[0.2, 0.3, 0.3, 0]])


def test_whitening_is_over_what_the_mask_holds() -> None:
    values, mask = np.array([[1.0, 2.0, 99.0], [3.0, 4.0, 99.0]]), np.array([[True, True, False]] * 2)
    found = whitened(values, mask)
    assert found[mask].mean() == pytest.approx(0) and found[mask].std(ddof=1) == pytest.approx(1)
    assert not found[~mask].any()
    assert whitened(values, mask, centred=False)[mask].mean() == pytest.approx(2.5)
    one = np.array([[True, False, False], [False] * 3])
    assert whitened(values, one)[0, 0] == 1.0


def test_advantages_of_groups() -> None:
    rewards, groups = [1.0, 0.0, 0.0, 1.0, 5.0, 2.0, 2.0], ["p"] * 4 + ["q"] + ["r"] * 2
    assert leave_one_out(rewards, groups)[:4] == pytest.approx([2 / 3, -2 / 3, -2 / 3, 2 / 3])
    relative = group_relative(rewards, groups, spread=False)
    assert relative == pytest.approx([0.5, -0.5, -0.5, 0.5, 0, 0, 0])
    scaled = group_relative(rewards, groups)
    assert np.std(scaled[:4], ddof=1) == pytest.approx(1, rel=1e-3) and scaled[4:] == [0, 0, 0]
    assert max(group_relative([0.50001, 0.5], ["p", "p"])) < 0.1, "nearly equal rewards hardly tell answers apart"
    assert degenerate_groups(rewards, groups) == (2, 3)
    with pytest.raises(TeamtuneError, match="7 rewards and 1 groups"):
        leave_one_out(rewards, ["p"])


@given(st.lists(st.tuples(st.floats(-5, 5), st.sampled_from("pqr")), min_size=1, max_size=20))
def test_group_advantages_add_up_to_nothing(found: list[tuple[float, str]]) -> None:
    rewards, groups = [r for r, _ in found], [g for _, g in found]
    for advantages in (group_relative(rewards, groups), leave_one_out(rewards, groups)):
        for group in "pqr":
            assert sum(a for a, g in zip(advantages, groups, strict=True) if g == group) == pytest.approx(0, abs=1e-6)
