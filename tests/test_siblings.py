"""Answers to one prompt read as one row: the same numbers and gradients, and only where it saves and is right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from teamtune.train.examples import Example
from teamtune.train.fit import Fit, fit_model
from teamtune.train.forward import batch_of, forward
from teamtune.train.objective import Preference
from teamtune.train.siblings import joined, takes_siblings
from teamtune.train.team import Lora, TeamModel
from teamtune.types import Agent, Row, Team

AGENTS = ["one", "two"]
PROMPT = [5, 9, 8, 7, 11, 12, 13]
ROWS = [
    ("one", Example(PROMPT, [20, 21, 1])),
    ("two", Example(PROMPT, [20, 21, 1])),
    ("one", Example(PROMPT, [22, 1])),
    ("one", Example([6, 6], [23, 24])),
    ("two", Example(PROMPT, [25, 26, 27, 28, 1])),
    ("one", Example(PROMPT, [20, 21, 1])),
]


def opened(path: str) -> TeamModel:
    model = TeamModel.open(Team(path, tuple(map(Agent, AGENTS))), AGENTS, Lora(rank=4, alpha=8), dtype="float32")
    with torch.no_grad():
        for agent in AGENTS:
            for n, parameter in enumerate(model.parameters(agent)):
                parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(n))
    return model


def test_the_layout_of_one_row() -> None:
    ids = torch.tensor([[3, 4, 5, 6, 0], [3, 4, 7, 8, 9]])
    mask = torch.tensor([[False, False, True, True, False], [False, False, True, True, True]])
    one = joined(ids, ["a", "a"], mask)
    assert one is not None
    assert one.ids.tolist() == [[3, 4, 5, 6, 7, 8, 9]] and one.places.tolist() == [[0, 1, 2, 3, 2, 3, 4]]
    assert one.first == [0] and one.at[1, 2:].tolist() == [[0, 4], [0, 5], [0, 6]]
    seen = [[n for n, sees in enumerate(row) if sees] for row in one.sees[0, 0].tolist()]
    assert seen == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4], [0, 1, 4, 5], [0, 1, 4, 5, 6]]


def test_rows_are_joined_by_agent_and_prompt_and_only_where_that_saves() -> None:
    ids = torch.tensor([[3, 4, 5, 5, 6], [3, 4, 5, 5, 7], [3, 4, 5, 4, 8]])
    mask = (torch.arange(5) >= 4).expand(3, -1)
    one = joined(ids, None, mask)
    assert one is not None and one.first == [0, 2]
    assert joined(ids, ["a", "b", "a"], mask) is None, "nobody has a sibling"
    late = (torch.arange(5) >= 1).expand(3, -1)
    assert joined(ids, None, late) is None, "a prompt of one token is not worth a mask"


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([(3,) * 9, (4, 3, 5)]), st.integers(1, 5)), min_size=1)
)
def test_every_token_keeps_its_place_and_what_it_sees(told: Sequence[tuple[str, tuple[int, ...], int]]) -> None:
    """Whatever the rows: following `at` and `sees` from each token gives back the row up to it."""
    rows = [
        (agent, [*prompt, *range(10 + n, 10 + n + count)], len(prompt)) for n, (agent, prompt, count) in enumerate(told)
    ]
    width = max(len(ids) for _, ids, _ in rows)
    ids = torch.tensor([[*own, *[0] * (width - len(own))] for _, own, _ in rows])
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    for row, (_, own, start) in enumerate(rows):
        mask[row, start : len(own)] = True
    agents = [agent for agent, _, _ in rows]
    one = joined(ids, agents, mask)
    if one is None:
        return
    for row, (agent, own, _) in enumerate(rows):
        for place in range(len(own)):
            group, column = one.at[row, place].tolist()
            assert agents[one.first[group]] == agent
            seen = one.sees[group, 0, column].nonzero().flatten()
            assert one.ids[group, seen].tolist() == own[: place + 1]
            assert one.places[group, seen].tolist() == list(range(place + 1))


def test_the_same_log_probabilities_and_gradients(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six rows of two agents, in four groups."""
    model = opened(tiny)
    assert model.takes_siblings
    ids, mask = batch_of(model, [one for _, one in ROWS])
    assert joined(ids, [agent for agent, _ in ROWS], mask) is not None
    found: list[Any] = []
    calls: list[int] = []
    states = TeamModel.states
    monkeypatch.setattr(
        TeamModel, "states", lambda self, ids, *more: calls.append(len(ids)) or states(self, ids, *more)
    )
    for model.takes_siblings in (True, False):
        logprobs, mask = forward(model, ROWS, [1.0, 0.7, 1.0, 1.0, 0.7, 1.0])
        weights = torch.linspace(-1, 1, int(mask.sum()))
        (logprobs[mask] * weights).sum().backward()
        grads = [p.grad.clone() for agent in AGENTS for p in model.parameters(agent) if p.grad is not None]
        for agent in AGENTS:
            for parameter in model.parameters(agent):
                parameter.grad = None
        found.append((logprobs, *grads))
    assert calls == [3, 5], "the row that stands there twice is read once"
    assert len(found[0]) > 20
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_fit_on_pairs_gives_the_same_adapters(tiny: str, tmp_path: Path) -> None:
    def row(agent: str, n: int) -> Row:
        sides = {"prompt_ids": [*PROMPT, 30 + n], "chosen_ids": [40 + n, 41, 1], "rejected_ids": [50 + n, 1]}
        return {"agent": agent, "messages": [], "chosen": "", "rejected": "", **sides}

    rows = [row(agent, n) for agent in AGENTS for n in range(6)]
    for siblings in (True, False):
        model = opened(tiny)
        model.takes_siblings = siblings
        options = Fit(rate=1e-3, batch=3, precision="float32", warmup=0.0)
        lines = list(fit_model(tmp_path / str(siblings), model, rows, Preference(), options))
        assert lines[0]["one/loss"] == pytest.approx(0.693147, abs=1e-6), "the first step is at the reference"
    for agent in AGENTS:
        one, other = (load_file(tmp_path / w / agent / "adapter_model.safetensors") for w in ("True", "False"))
        for name, tensor in one.items():
            torch.testing.assert_close(tensor, other[name], atol=1e-4, rtol=1e-3)


def test_an_answer_without_tokens_has_nothing_to_tell(tiny: str) -> None:
    model = opened(tiny)
    rows = [*ROWS, ("one", Example(PROMPT, []))]
    logprobs, mask = forward(model, rows)
    assert not mask[-1].any() and not logprobs[-1].any()
    torch.testing.assert_close(logprobs[:-1], forward(model, ROWS)[0], atol=1e-5, rtol=1e-4)


class Blind:
    """A model that minds only some of what it is shown."""

    def __init__(self, model: Any, *minds: str):
        self.model, self.minds = model, minds
        self.config, self.device, self.dtype = model.config, model.device, model.dtype

    def __call__(self, **shown: Any) -> Any:
        kept = {k: v for k, v in shown.items() if k in self.minds or k not in ("attention_mask", "position_ids")}
        return self.model(**kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_minds_no_mask_or_no_places_is_found_out(tiny: str, dtype: torch.dtype) -> None:
    model = opened(tiny).model.to(dtype)
    assert takes_siblings(Blind(model, "attention_mask", "position_ids"))
    assert not takes_siblings(Blind(model, "position_ids")) and not takes_siblings(Blind(model))
    if dtype == torch.float32:
        assert not takes_siblings(Blind(model, "attention_mask"))


def test_windows_and_attention_of_other_kinds_keep_their_rows(tiny: str) -> None:
    model = opened(tiny).model
    config = model.config
    assert takes_siblings(model)
    for name, value in {
        "sliding_window": 64,
        "layer_types": ["full_attention", "linear_attention"],
        "_attn_implementation": "eager",
    }.items():
        had = getattr(config, name, None)
        setattr(config, name, value)
        assert not takes_siblings(model), name
        setattr(config, name, had)
    config.sliding_window = config.max_position_embeddings
    assert takes_siblings(model), "a window as wide as the context hides nothing"
