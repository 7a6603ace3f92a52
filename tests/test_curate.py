"""SFT rows and sibling pairs: who pairs with whom, what is dropped, and that the counts add up."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teamtune.credit.tree import backup
from teamtune.curate.pairs import sibling_pairs
from teamtune.curate.sft import sft_rows
from teamtune.types import UNFIT, Row, TeamtuneError

AGENTS = ("generator", "verifier", "refiner")
Tables = tuple[list[Row], list[Row]]


def turn_row(turn: int, parents: list[int], text: str, shown: str, **other: Any) -> Row:
    agent = AGENTS[len(parents)]
    row = {"problem": "p", "take": 0, "turn": turn, "agent": agent, "tag": agent, "parents": parents}
    messages = [{"role": "user", "content": shown}]
    ids = {"prompt_ids": [len(shown)], "token_ids": [turn], "logprobs": None}
    return {**row, "messages": messages, "text": text, "finish": "stop", **ids, **other}


def value_row(turn: Row, value: float) -> Row:
    place = {name: turn[name] for name in ("problem", "take", "turn", "agent", "tag", "parents")}
    return {**place, "value": value, "positive": value > 0.5}


def malt(rng: random.Random, width: int, problems: int, takes: int = 1, vocabulary: int = 1000) -> Tables:
    """Full MALT trees with random texts, finishes and outcomes; a small vocabulary makes duplicates."""
    turns: list[Row] = []
    grades: list[Row] = []
    for problem, take in [(f"p{i}", take) for i in range(problems) for take in range(takes)]:
        paths: list[list[int]] = [[]]
        texts: list[str] = []
        for _ in AGENTS:
            grown: list[list[int]] = []
            for path in [path for path in paths for _ in range(width)]:
                text = f"text {rng.randrange(vocabulary)}"
                shown = "|".join([problem, *(texts[one] for one in path)])
                finish = rng.choice(["stop", "stop", "stop", "length"])
                place = {"problem": problem, "take": take, "finish": finish}
                grown.append([*path, len(texts)])
                turns.append(turn_row(len(texts), path, text, shown, **place))
                grades.append({**place, "turn": len(texts), "score": float(rng.random() < 0.5)})
                texts.append(text)
            paths = grown
    return turns, backup(turns, grades)


@st.composite
def tables(draw: st.DrawFn) -> Tables:
    rng = random.Random(draw(st.integers(0, 10_000)))
    width, problems, takes = (draw(st.integers(1, most)) for most in (3, 2, 2))
    return malt(rng, width, problems, takes, vocabulary=draw(st.integers(2, 9)))


def shuffled(rows: list[Row]) -> list[Row]:
    return random.Random(1).sample(rows, len(rows))


def counted(counts: Any, agent: str) -> dict[str, int]:
    return {name.split(": ")[1]: count for name, count in counts.items() if name.startswith(f"{agent}: ")}


# SFT


def test_an_sft_row() -> None:
    turn = turn_row(0, [], "7 + 1 = 8", "What is 7 + 1?")
    got = sft_rows([turn], [value_row(turn, 0.75)], ["generator"])
    want = {"agent": "generator", "problem": "p", "take": 0, "turn": 0, "messages": turn["messages"]}
    want |= {"completion": "7 + 1 = 8", "prompt_ids": [14], "token_ids": [0], "value": 0.75}
    assert list(got.rows) == [want]
    assert got.counts == {"generator: kept": 1}


def test_every_reason_to_drop_an_sft_turn() -> None:
    turns = [turn_row(i, [], text, "q") for i, text in enumerate(["a", "a", "b", "c", "d", "e"])]
    turns[3]["finish"] = "length"
    values = [value_row(turn, 0.5 if turn["text"] == "b" else 1.0) for turn in turns]
    got = sft_rows(turns, values, ["generator"], cap=2)
    assert got.counts == {
        "generator: kept": 2,
        "generator: duplicate": 1,
        "generator: value not above threshold": 1,
        "generator: cut off at the token limit": 1,
        "generator: over the cap of 2 per problem": 1,
    }
    assert sft_rows(turns, values, ["generator"], dedup=False).counts["generator: kept"] == 4


def test_the_same_text_in_another_context_is_no_duplicate() -> None:
    turns = [turn_row(0, [], "a", "q"), turn_row(1, [], "a", "another q")]
    assert len(list(sft_rows(turns, [value_row(turn, 1.0) for turn in turns], ["generator"]).rows)) == 2


@given(data=tables(), dedup=st.booleans(), cap=st.integers(0, 3), seed=st.integers(0, 3))
def test_sft_counts_add_up_and_the_order_of_rows_does_not_matter(
    data: Tables, dedup: bool, cap: int, seed: int
) -> None:
    turns, values = data
    got = sft_rows(turns, values, AGENTS, dedup, cap, seed)
    for agent in AGENTS:
        counts = counted(got.counts, agent)
        assert sum(counts.values()) == sum(turn["agent"] == agent for turn in turns)
        assert counts["kept"] == sum(row["agent"] == agent for row in got.rows)
    positive = {(row["problem"], row["take"], row["turn"]) for row in values if row["positive"]}
    assert all((row["problem"], row["take"], row["turn"]) in positive for row in got.rows)
    if cap:
        assert all(n <= cap for n in Counter((row["agent"], row["problem"]) for row in got.rows).values())
    assert sft_rows(shuffled(turns), shuffled(values), AGENTS, dedup, cap, seed) == got


def test_a_lower_cap_keeps_a_part_and_the_seed_decides_which() -> None:
    turns = [turn_row(i, [], f"text {i}", "q") for i in range(30)]
    values = [value_row(turn, 1.0) for turn in turns]

    def kept(cap: int, seed: int) -> set[int]:
        return {row["turn"] for row in sft_rows(turns, values, ["generator"], cap=cap, seed=seed).rows}

    assert kept(4, 0) < kept(8, 0)
    assert kept(8, 0) != kept(8, 1)


# Pairs


def test_a_pair_row() -> None:
    good = turn_row(0, [], "8", "What is 7 + 1?")
    bad = turn_row(1, [], "9", "What is 7 + 1?", finish="length")
    got = sibling_pairs([good, bad], [value_row(good, 1.0), value_row(bad, 0.25)], ["generator"])
    want = {"agent": "generator", "problem": "p", "take": 0, "messages": good["messages"], "chosen": "8"}
    want |= {"rejected": "9", "chosen_turn": 0, "rejected_turn": 1, "rejected_take": 0, "prompt_ids": [14]}
    want |= {"chosen_ids": [0], "rejected_ids": [1], "rejected_ended": False}
    want |= {"chosen_value": 1.0, "rejected_value": 0.25}
    assert list(got.rows) == [want]
    counts = {"generator: pairs kept": 1, "generator: groups": 1, "generator: unanimous groups": 0}
    assert got.counts == counts


def test_every_reason_to_drop_a_pair() -> None:
    texts = {"a": 1.0, "b": 1.0, "cut": 1.0, "c": 0.0, "d": 0.0}
    turns = [turn_row(i, [], text, "q") for i, text in enumerate([*texts, "c", "a"])]
    turns[2]["finish"] = "length"
    values = [value_row(turn, texts[turn["text"]]) for turn in turns[:-1]] + [value_row(turns[-1], 0.0)]
    got = sibling_pairs(turns, values, ["generator"], cap=3)  # a b cut x c d c a
    assert got.counts == {
        "generator: pairs kept": 3,
        "generator: groups": 1,
        "generator: unanimous groups": 0,
        "generator: same text on both sides": 1,
        "generator: duplicate": 2,
        "generator: chosen cut off at the token limit": 4,
        "generator: over the cap of 3 per problem": 2,
    }


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("finish", ["overflow", "withheld"])
def test_what_no_agent_said_is_on_no_side_of_a_pair(side: int, finish: str) -> None:
    turns = [turn_row(i, [], text, "q") for i, text in enumerate(["8", "9"])]
    turns[side]["finish"] = finish
    got = sibling_pairs(turns, [value_row(turns[0], 1.0), value_row(turns[1], 0.0)], ["generator"])
    assert not list(got.rows) and got.counts[f"generator: {UNFIT[finish]}"] == 1  # type: ignore[index]


def groups_of(turns: list[Row], values: list[Row], agent: str) -> dict[Any, list[bool]]:
    """Labels of sibling groups, straight from the definition."""
    groups: dict[Any, list[bool]] = {}
    for turn, value in zip(turns, values, strict=True):
        if turn["agent"] == agent:
            above = (turn["take"], turn["parents"][-1]) if turn["parents"] else None
            groups.setdefault((turn["problem"], above), []).append(value["positive"])
    return groups


@given(data=tables(), dedup=st.booleans(), cap=st.integers(0, 3))
def test_pair_counts_are_products_and_add_up(data: Tables, dedup: bool, cap: int) -> None:
    turns, values = data
    got = sibling_pairs(turns, values, AGENTS, dedup, cap)
    for agent in AGENTS:
        groups = groups_of(turns, values, agent)
        counts = counted(got.counts, agent)
        assert counts.pop("groups") == len(groups)
        assert counts.pop("unanimous groups") == sum(len(set(group)) == 1 for group in groups.values())
        assert counts["pairs kept"] == sum(row["agent"] == agent for row in got.rows)
        assert sum(counts.values()) == sum(sum(group) * group.count(False) for group in groups.values())
    assert sibling_pairs(shuffled(turns), shuffled(values), AGENTS, dedup, cap) == got


@given(data=tables())
def test_pairs_share_their_context_and_never_cross_siblings(data: Tables) -> None:
    turns, values = data
    turn_of = {(turn["problem"], turn["take"], turn["turn"]): turn for turn in turns}
    positive = {(row["problem"], row["take"], row["turn"]): row["positive"] for row in values}
    for row in sibling_pairs(turns, values, AGENTS, dedup=False).rows:
        left = row["problem"], row["take"], row["chosen_turn"]
        right = row["problem"], row["rejected_take"], row["rejected_turn"]
        chosen, rejected = turn_of[left], turn_of[right]
        assert (positive[left], positive[right]) == (True, False)
        assert chosen["messages"] == rejected["messages"] == row["messages"]
        assert chosen["prompt_ids"] == rejected["prompt_ids"] == row["prompt_ids"]
        assert chosen["agent"] == rejected["agent"] == row["agent"]
        assert chosen["parents"] == rejected["parents"]
        assert row["take"] == row["rejected_take"] or not chosen["parents"]
        assert chosen["finish"] == "stop" and row["chosen"] != row["rejected"]


def test_unanimous_groups_yield_no_pair() -> None:
    turns = [turn_row(i, [], f"text {i}", "q") for i in range(3)]
    got = sibling_pairs(turns, [value_row(turn, 1.0) for turn in turns], ["generator"])
    assert not list(got.rows)
    assert got.counts["generator: unanimous groups"] == 1


def test_equal_texts_under_two_parents_are_not_siblings() -> None:
    roots = [turn_row(i, [], "same draft", "q") for i in range(2)]
    turns = [*roots, turn_row(2, [0], "yes", "same draft"), turn_row(3, [1], "no", "same draft")]
    values = [value_row(turn, float(turn["text"] == "yes")) for turn in turns]
    got = sibling_pairs(turns, values, ["verifier"])
    assert not list(got.rows)
    assert got.counts["verifier: groups"] == 2


def test_roots_of_two_takes_are_siblings() -> None:
    turns = [turn_row(0, [], "8", "q"), turn_row(0, [], "9", "q", take=1)]
    (row,) = sibling_pairs(turns, [value_row(turns[0], 0.0), value_row(turns[1], 1.0)], ["generator"]).rows
    assert (row["take"], row["chosen"], row["rejected_take"], row["rejected"]) == (1, "9", 0, "8")


def test_roots_that_were_shown_different_prompts_are_not_siblings() -> None:
    turns = [turn_row(0, [], "8", "q"), turn_row(1, [], "9", "q, in French")]
    values = [value_row(turns[0], 0.0), value_row(turns[1], 1.0)]
    assert not list(sibling_pairs(turns, values, ["generator"]).rows)


def test_a_lower_cap_keeps_a_part_of_the_pairs() -> None:
    turns, values = malt(random.Random(0), width=5, problems=3)

    def kept(cap: int, seed: int = 0) -> set[tuple[Any, ...]]:
        rows = sibling_pairs(turns, values, ["refiner"], cap=cap, seed=seed).rows
        return {(row["problem"], row["chosen_turn"], row["rejected_turn"]) for row in rows}

    assert len(kept(4)) == 12 and kept(4) < kept(9)
    assert kept(4, seed=1) != kept(4)


@pytest.mark.parametrize("curate", [sft_rows, sibling_pairs])
def test_errors_name_the_thing_and_the_fix(curate: Any) -> None:
    turn = turn_row(0, [], "8", "q")
    with pytest.raises(TeamtuneError, match="'critic' has no turns to train on; name agents of these: generator"):
        curate([turn], [value_row(turn, 1.0)], ["critic"])
    with pytest.raises(TeamtuneError, match="problem 'p' take 0 turn 0 has no value"):
        curate([turn], [], ["generator"])
    with pytest.raises(TeamtuneError, match="cap is -1"):
        curate([turn], [value_row(turn, 1.0)], ["generator"], cap=-1)


@given(data=tables(), seed=st.integers(0, 10_000))
def test_relabelling_siblings_changes_nothing_but_the_labels(data: Tables, seed: int) -> None:
    """Turns that are numbered otherwise give the same rows and pairs, as far as texts go."""
    turns, values = data
    rng, numbers = random.Random(seed), {}
    for place in {(turn["problem"], turn["take"]) for turn in turns}:
        of_episode = [turn["turn"] for turn in turns if (turn["problem"], turn["take"]) == place]
        for agent in AGENTS:  # a child is never numbered before its parent
            level = [t["turn"] for t in turns if (t["problem"], t["take"]) == place and t["agent"] == agent]
            numbers |= {(*place, old): new for old, new in zip(level, rng.sample(level, len(level)), strict=True)}
        assert sorted(numbers[(*place, turn)] for turn in of_episode) == of_episode

    def relabelled(row: Row) -> Row:
        new = lambda turn: numbers[row["problem"], row["take"], turn]  # noqa: E731
        return {**row, "turn": new(row["turn"]), "parents": [new(parent) for parent in row["parents"]]}

    again = [relabelled(row) for row in turns], [relabelled(row) for row in values]
    texts = lambda rows, *names: Counter((row["agent"], *(row[name] for name in names)) for row in rows)  # noqa: E731
    for dedup in (False, True):
        rows, rows_again = sft_rows(turns, values, AGENTS, dedup), sft_rows(*again, AGENTS, dedup)
        assert rows.counts == rows_again.counts
        # Of duplicates the first one stays, whose value is its own.
        kept = ("completion",) if dedup else ("completion", "value")
        assert texts(rows.rows, *kept) == texts(rows_again.rows, *kept)
        pairs, pairs_again = sibling_pairs(turns, values, AGENTS, dedup), sibling_pairs(*again, AGENTS, dedup)
        assert pairs.counts == pairs_again.counts
        assert texts(pairs.rows, "chosen", "rejected") == texts(pairs_again.rows, "chosen", "rejected")
