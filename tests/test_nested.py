"""Rows that begin other rows are read within them: the same numbers and gradients, in fewer rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from teamtune.train.examples import Example, Judged, Pair, Sampled, Valued
from teamtune.train.fit import Fit, schedule
from teamtune.train.forward import batch_of, forward, logprobs, valued
from teamtune.train.nested import chains, outer
from teamtune.train.objective import Item
from teamtune.train.packing import packed, row_of
from teamtune.train.policies import Ppo
from teamtune.train.samples import value_of
from teamtune.train.team import Lora, TeamModel
from teamtune.train.update import planned
from teamtune.types import Agent, Team

AGENTS = ["one", "two"]
QUESTION, FIRST, MORE, LAST = [5, 9, 8, 7], [20, 21, 1], [11, 12, 6], [22, 23, 1]
TURNS = [
    ("one", Example(QUESTION, FIRST)),
    ("one", Example([*QUESTION, *FIRST, *MORE], LAST)),
    ("two", Example(QUESTION, FIRST)),
    ("one", Example([*QUESTION, 20, 22, 1, *MORE], [24, 1])),
    ("one", Example(QUESTION, [20, 22, 1])),
    ("one", Example([*QUESTION, *FIRST, *MORE, *LAST, *MORE], [25, 26, 1])),
]
"""a conversation of three answers of the first agent, one of two, and an answer that another agent gave as well"""


def opened(path: str) -> TeamModel:
    values = list(map(value_of, AGENTS))
    names = [*AGENTS, *values]
    team = Team(path, tuple(map(Agent, names)))
    model = TeamModel.open(team, names, Lora(rank=4, alpha=8), heads=values, dtype="float32")
    with torch.no_grad():
        for agent in names:
            for n, parameter in enumerate(model.parameters(agent)):
                parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(n))
    return model


@given(st.lists(st.lists(st.integers(0, 1), max_size=4).map(tuple), max_size=12))
def test_every_row_is_in_one_chain_and_goes_on_where_any_row_does(rows: list[tuple[int, ...]]) -> None:
    found = chains(rows)
    assert sorted(n for chain in found for n in chain) == list(range(len(rows)))
    for chain in found:
        for n, after in pairwise(chain):
            assert rows[after][: len(rows[n])] == rows[n]
    for last in (rows[chain[-1]] for chain in found):
        longer = [row for row in rows if len(row) > len(last) and row[: len(last)] == last]
        assert not longer, "what begins another row is read within one"


def test_only_the_longest_rows_are_read(brief: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened(brief)
    ids, mask = batch_of(model, [one for _, one in TURNS])
    kept, agents, at = outer(ids, [agent for agent, _ in TURNS], mask)
    assert agents is not None and sorted(agents) == ["one", "one", "two"]
    for place, (agent, one) in zip(at.tolist(), TURNS, strict=True):
        assert kept[place, : len(one)].tolist() == [*one.prompt, *one.answer] and agents[place] == agent
    seen: list[int] = []
    states = TeamModel.states
    monkeypatch.setattr(TeamModel, "states", lambda self, ids, *more: seen.append(len(ids)) or states(self, ids, *more))
    model.takes_siblings = False
    logprobs(model, ids, [agent for agent, _ in TURNS], mask)
    logprobs(model, ids, None, mask)
    assert seen == [3, 2], "under the base whoever spoke says the same"


def test_the_same_numbers_and_gradients_as_row_by_row(brief: str) -> None:
    model = opened(brief)
    found, mask = forward(model, TURNS)
    worth, _ = valued(model, [(value_of(agent), one) for agent, one in TURNS])
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(3)) * mask
    ((found + worth) * weights).sum().backward()
    own = {n: p.grad.clone() for n, p in model.model.named_parameters() if p.grad is not None}
    heads = {name: head.weight.grad.clone() for name, head in model.heads.items() if head.weight.grad is not None}
    assert own and heads
    for parameter in (*model.model.parameters(), *(head.weight for head in model.heads.values())):
        parameter.grad = None
    for row, (agent, one) in enumerate(TURNS):
        alone, at = forward(model, [(agent, one)])
        value, _ = valued(model, [(value_of(agent), one)])
        torch.testing.assert_close(found[row, mask[row]], alone[at], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(worth[row, mask[row]], value[at], rtol=1e-5, atol=1e-5)
        ((alone + value)[0] * weights[row, : len(one)]).sum().backward()
    for name, parameter in model.model.named_parameters():
        if name in own:
            torch.testing.assert_close(own[name], parameter.grad, rtol=1e-4, atol=1e-5)
    for name, head in model.heads.items():
        if name in heads:
            torch.testing.assert_close(heads[name], head.weight.grad, rtol=1e-4, atol=1e-5)


def sampled(one: Example) -> Sampled:
    return Sampled(one, [0.0] * len(one.answer), [0.0] * len(one.answer))


def test_a_conversation_is_one_row_of_a_micro_batch() -> None:
    items = [Item("one", n, sampled(one)) for n, (_, one) in enumerate(TURNS)]
    longest = max(map(len, items))
    micros = list(packed(items, 2 * longest))
    assert sorted(one.number for micro in micros for one in micro) == list(range(len(items)))
    assert [sorted(one.number for one in micro) for micro in micros] == [[0, 1, 2, 3, 4, 5]], (
        "six rows in the room of two"
    )
    valued_ = [Item("one", n, Valued(one, [], [])) for n, (_, one) in enumerate(TURNS)]
    assert len(list(packed(valued_, 2 * longest))) == 1
    judged = [Item("one", n, Judged(one, True)) for n, (_, one) in enumerate(TURNS)]
    assert len(list(packed(judged, 2 * longest))) > 1, "a scorer's rows are read by themselves"
    pairs = [Item("one", n, Pair(one, one)) for n, (_, one) in enumerate(TURNS)]
    assert len({row_of(one) for one in pairs}) == len(pairs)


def test_a_step_takes_conversations_whole_and_every_answer_once() -> None:
    conversations = 12
    items = []
    for n in range(conversations):
        first = Example([5, n], [20, 1])
        items += [Item("one", 2 * n, sampled(first)), Item("one", 2 * n + 1, sampled(Example([5, n, 20, 1, 6], [9])))]
    ppo = Ppo(problems=1, fit=Fit(batch=8, epochs=2))
    plan = planned({"one": items}, ppo, step=3, seed=1)["one"]
    assert len(plan) == 6 and plan != planned({"one": items}, ppo, step=4, seed=1)["one"]
    for epoch in (plan[:3], plan[3:]):
        assert sorted(n for step in epoch for n in step) == list(range(2 * conversations))
        for step in epoch:
            assert sorted(step) == sorted(n ^ 1 for n in step), "both answers of each conversation"


def test_rows_by_themselves_are_shuffled_as_ever() -> None:
    def plan(together: Sequence[Sequence[int]] | None) -> list[list[int]]:
        return schedule(7, Fit(batch=3, epochs=2), 5, "one", together)

    assert plan(None) == plan([[n] for n in range(7)])
