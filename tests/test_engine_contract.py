"""What every engine owes: order, seeds, independence of the batch; and what the embedded one owes besides."""

from __future__ import annotations

import math
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from helpers import base_of, plain_logprobs, plain_model, random_adapter, tokenizer_of
from odd_server import OddServer, running
from teamtune.engines.decode import Decoder
from teamtune.engines.openai import OpenaiEngine
from teamtune.engines.render import Request
from teamtune.engines.sampling import RowSampling, choose, filtered, uniforms
from teamtune.engines.scripted import Scripted
from teamtune.engines.spec import Openai, Vllm
from teamtune.engines.transformers import TransformersEngine, batched
from teamtune.types import Agent, Ask, Completion, Message, Sampling, Team, TeamtuneError

SAMPLED = Sampling(max_tokens=24)
GREEDY = Sampling(temperature=0.0, max_tokens=24)
Make = Callable[[Sampling], Any]
Open = Callable[..., Any]


def ask(text: str, agent: str = "base", system: str = "") -> Ask:
    front = (Message("system", system),) if system else ()
    return Ask(agent, (*front, Message("user", text)), "test")


def asks_of(count: int, agents: Sequence[str] = ("base",)) -> list[Ask]:
    """Asks of many lengths, so that a batch has to pad."""
    return [ask(f"{i} + {i * i}?" * (1 + i % 5), agents[i % len(agents)]) for i in range(count)]


def embedded(path: str, team: Team | None = None, rows: int = 256) -> TransformersEngine:
    engine = TransformersEngine(base_of(path), tokenizer_of(path), path, rows)
    if team is not None:
        engine.adopt(team)
    return engine


def opened_vllm(path: str, team: Team | None, rows: int = 256) -> Any:
    pytest.importorskip("vllm", reason="vLLM is not installed here; make test-vllm runs these in its own environment")
    from teamtune.engines.vllm import VllmEngine

    engine = VllmEngine(path, Vllm(cache_gb=0.1), rows)
    if team is not None:
        engine.adopt(team)
    return engine


@pytest.fixture(params=["transformers", "vllm"])
def opened(request: pytest.FixtureRequest) -> Iterator[Open]:
    """A function that opens a real engine for a team, or for none yet; all are closed after the test."""
    engines: list[Any] = []

    def opens(path: str, team: Team | None = None, rows: int = 256) -> Any:
        engines.append((opened_vllm if request.param == "vllm" else embedded)(path, team, rows))
        return engines[-1]

    yield opens
    for engine in engines:
        engine.close()


@pytest.fixture(params=["scripted", "transformers", "vllm", "openai"])
def make(request: pytest.FixtureRequest, brief: str) -> Iterator[Make]:
    """A function that opens the engine for a team of one untrained seat with these sampling options."""
    with ExitStack() as stack:
        odd = stack.enter_context(running()) if request.param == "openai" else OddServer()
        odd.slow = 0.003
        opens: dict[str, Callable[[], Any]] = {
            "scripted": lambda: Scripted(lambda asked, seed: f"{asked.messages[-1].content} -> {seed}"),
            "transformers": lambda: embedded(brief),
            "vllm": lambda: opened_vllm(brief, None),
            "openai": lambda: OpenaiEngine(brief, Openai(odd.url)),
        }

        def made(sampling: Sampling) -> Any:
            team = Team(brief, (Agent("base", sampling=sampling),))
            engine = stack.enter_context(closing(opens[request.param]()))
            engine.adopt(team)
            return engine

        yield made


@pytest.fixture(scope="module")
def adapters(brief: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("adapters")
    return [random_adapter(brief, folder / str(seed), seed) for seed in range(3)]


def team_of(path: str, adapters: Sequence[str], sampling: Sampling) -> Team:
    """Seats "base" and "other", both untrained, and one seat an adapter: a0, a1, ..."""
    seats = [Agent("base", sampling=sampling), Agent("other", sampling=sampling)]
    return Team(path, (*seats, *(Agent(f"a{i}", "", sampling, where) for i, where in enumerate(adapters))))


def ids_of(done: Completion) -> tuple[int, ...]:
    assert done.token_ids is not None
    return done.token_ids


def texts(done: Sequence[Completion]) -> list[str]:
    return [one.text for one in done]


# Every engine


def test_answers_come_in_the_order_of_the_asks(make: Make) -> None:
    engine, asks = make(SAMPLED), asks_of(12)
    seeds = [1000 + i for i in range(12)]
    together = engine.generate(asks, seeds)
    assert len(together) == 12
    assert len(set(texts(together))) > 8, "answers that are all alike would show no order"
    for one, seed, want in zip(asks, seeds, together, strict=True):
        assert engine.generate([one], [seed])[0].text == want.text


def test_a_seed_names_its_answer(make: Make) -> None:
    engine, again = make(SAMPLED), make(SAMPLED)
    asks, seeds = [ask("What is 1 + 2?")] * 16, [7 * i for i in range(16)]
    first = engine.generate(asks, seeds)
    assert engine.generate(asks, seeds) == first, "the engine keeps no state between calls"
    assert again.generate(asks, seeds) == first, "another engine of the same kind answers the same"
    assert len(set(texts(first))) > 12, "other seeds give other answers; two that end at once may be alike"
    assert len(set(texts(engine.generate(asks, [5] * 16)))) == 1, "one seed gives one answer"


def test_seeds_of_63_bits_are_taken(make: Make) -> None:
    big = (1 << 63) - 1
    one, two = make(SAMPLED).generate([ask("1?")] * 2, [big, big - 1])
    assert one.text != two.text


def test_answers_depend_on_no_other_ask_of_the_batch(make: Make) -> None:
    engine, asks = make(SAMPLED), asks_of(14)
    seeds = [31 * i + 1 for i in range(14)]
    want = engine.generate(asks, seeds)
    order = list(range(14))
    random.Random(0).shuffle(order)
    shuffled = engine.generate([asks[i] for i in order], [seeds[i] for i in order])
    assert texts(shuffled) == [want[i].text for i in order]
    halves = engine.generate(asks[:5], seeds[:5]) + engine.generate(asks[5:], seeds[5:])
    assert texts(halves) == texts(want)


def test_no_asks_get_no_answers(make: Make) -> None:
    assert make(SAMPLED).generate([], []) == []


def test_polled_answers_are_those_of_generate(make: Make) -> None:
    engine, asks = make(SAMPLED), asks_of(9)
    for ticket, one in enumerate(asks):
        engine.submit(ticket, one, 50 + ticket)
    got: dict[int, Completion] = {}
    while len(got) < 9:
        found = engine.poll()
        assert found and not got.keys() & {ticket for ticket, _ in found}
        got |= dict(found)
    want = make(SAMPLED).generate(asks, [50 + i for i in range(9)])
    assert [got[i].text for i in range(9)] == texts(want)


# The embedded engine: batches


@pytest.mark.parametrize("sampling", [SAMPLED, GREEDY], ids=["sampled", "greedy"])
def test_the_size_of_a_batch_changes_nothing(opened: Open, brief: str, sampling: Sampling) -> None:
    team = Team(brief, (Agent("base", sampling=sampling),))
    asks, seeds = asks_of(11), list(range(11))
    alone = [opened(brief, team).generate([one], [seed])[0] for one, seed in zip(asks, seeds, strict=True)]
    for rows in (1, 3, 256):
        together = opened(brief, team, rows).generate(asks, seeds)
        assert [done.token_ids for done in together] == [done.token_ids for done in alone], rows
        for one, other in zip(together, alone, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4), rows


def request(place: int, length: int, adapter: str = "a") -> Request:
    return Request(place, adapter, tuple(range(length)), 10, SAMPLED, place)


@pytest.mark.parametrize("rows", [1, 4, 16, 1000])
@pytest.mark.parametrize("adapters", ["a", "abc"])
def test_short_asks_are_not_padded_to_a_long_ones_length(rows: int, adapters: str) -> None:
    rng = random.Random(rows)
    lengths = [rng.choice([8, 9, 20, 60, 90, 300, 310, 900]) for _ in range(120)]
    requests = [request(i, length, rng.choice(adapters)) for i, length in enumerate(lengths)]
    batches = list(batched(requests, rows))
    assert sorted(one.place for batch in batches for one in batch) == list(range(120)), "each ask in one batch"
    for batch in batches:
        sizes = [len(one.prompt) for one in batch]
        assert len(batch) <= rows
        assert max(sizes) <= 1.25 * min(sizes) + 16, f"lengths {sizes} in one batch"
    if rows == 1000:
        assert len(batches) <= 2 * len({*lengths}), "and asks of one length do share a batch"


def test_siblings_share_the_reading_of_their_prompt(brief: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = embedded(brief, Team(brief, (Agent("base", sampling=SAMPLED),)))
    shapes: list[tuple[int, ...]] = []
    forward = engine.model.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        shapes.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    monkeypatch.setattr(engine.model, "forward", watched)
    asks = [ask("What is 3 * 4?")] * 6 + [ask("What is 3 * 5?")] * 2
    done = engine.generate(asks, list(range(8)))
    assert shapes[0][0] == 2, "two different prompts are read, not eight"
    assert shapes[1] == (8, 1), "then every sibling goes its own way"
    assert len(set(texts(done[:6]))) == 6
    alone = [embedded(brief, engine.team).generate([one], [seed])[0] for seed, one in enumerate(asks)]
    assert [one.token_ids for one in done] == [one.token_ids for one in alone]


def test_padding_moves_no_position(brief: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row counts from 0 at its first token, which matters where positions are not relative."""
    engine = embedded(brief, Team(brief, (Agent("base", sampling=SAMPLED),)))
    seen: list[tuple[Tensor, Tensor | None]] = []
    forward = engine.model.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.append((kwargs["position_ids"], kwargs["attention_mask"]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(engine.model, "forward", watched)
    asks = [ask("1?"), ask("1 + 22 + 3?")]
    sizes = [len(done.prompt_ids or ()) for done in engine.generate(asks, [0, 1])]
    assert len(set(sizes)) == 2, "one of the two is padded"
    (read, mask), (stepped, longer) = seen[:2]
    assert mask is not None and longer is not None
    assert mask.sum(-1).tolist() == sizes and longer.sum(-1).tolist() == [size + 1 for size in sizes]
    for row, size in enumerate(sizes):
        assert read[row, -size:].tolist() == list(range(size))
    assert stepped.flatten().tolist() == sizes


def test_rows_that_have_ended_leave_the_batch(brief: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = embedded(brief, Team(brief, (Agent("base", sampling=replace(SAMPLED, max_tokens=60)),)))
    rows: list[int] = []
    forward = engine.model.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        rows.append(kwargs["input_ids"].shape[0])
        return forward(*args, **kwargs)

    monkeypatch.setattr(engine.model, "forward", watched)
    done = engine.generate(asks_of(40), list(range(40)))
    used, needed = sum(rows), sum(len(ids_of(one)) for one in done)
    assert used < 1.6 * needed, "about as many rows are computed as tokens are sampled"


# The embedded engine: what is asked and what comes back


def test_ids_and_text_are_those_of_the_tokenizer(opened: Open, brief: str) -> None:
    tokenizer = tokenizer_of(brief)
    engine = opened(brief, Team(brief, (Agent("base", sampling=SAMPLED),)))
    asks = [ask("1 + 1?", system="You add."), *asks_of(5)]
    for one, done in zip(asks, engine.generate(asks, list(range(6))), strict=True):
        chat = [{"role": m.role, "content": m.content} for m in one.messages]
        want = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=True)
        assert list(done.prompt_ids or ()) == list(want["input_ids"])
        ids = ids_of(done)
        shown = ids[:-1] if done.finish == "stop" else ids
        assert done.text == tokenizer.decode(shown, skip_special_tokens=True)


def test_stop_and_length_are_told_apart(opened: Open, brief: str) -> None:
    sampling = Sampling(max_tokens=8)
    engine = opened(brief, Team(brief, (Agent("base", sampling=sampling),)))
    stops = {1, *range(230, 260)}
    done = engine.generate([ask("7 * 8?")] * 80, list(range(80)))
    finishes = Counter(one.finish for one in done)
    assert finishes["stop"] > 10 and finishes["length"] > 10, "the case holds both"
    for one in done:
        ids = ids_of(one)
        assert len(one.logprobs or ()) == len(ids)
        assert not stops & set(ids[:-1]), "nothing comes after a stop"
        if one.finish == "stop":
            assert ids[-1] in stops and len(ids) <= 8
        else:
            assert ids[-1] not in stops and len(ids) == 8
    assert any(one.finish == "stop" and len(ids_of(one)) == 8 for one in done), "a stop at the limit is a stop"


def test_each_agent_has_its_own_limit_in_one_batch(opened: Open, brief: str) -> None:
    limits = {"short": 1, "middle": 6, "long": 40}
    seats = tuple(Agent(name, sampling=Sampling(max_tokens=limit)) for name, limit in limits.items())
    asks = [ask("7 * 8?", name) for name in limits for _ in range(20)]
    done = opened(brief, Team(brief, seats)).generate(asks, list(range(60)))
    longest: Counter[str] = Counter()
    for one, got in zip(asks, done, strict=True):
        size = len(ids_of(got))
        assert size == limits[one.agent] if got.finish == "length" else size <= limits[one.agent]
        longest[one.agent] = max(longest[one.agent], size)
    assert longest["short"] == 1 and longest["middle"] == 6 and longest["long"] > 6
    # the same seeds under a longer limit only go on where the shorter one cut off
    for seat in ("short", "middle"):
        long = opened(brief, Team(brief, seats)).generate(
            [replace(one, agent="long") for one in asks if one.agent == seat],
            [seed for seed, one in enumerate(asks) if one.agent == seat],
        )
        for got, whole in zip([d for a, d in zip(asks, done, strict=True) if a.agent == seat], long, strict=True):
            assert ids_of(whole)[: len(ids_of(got))] == ids_of(got)


def test_agents_of_one_batch_sample_by_their_own_options(opened: Open, brief: str) -> None:
    options = {
        "greedy": GREEDY,
        "hot": replace(SAMPLED, temperature=1.7),
        "one": replace(SAMPLED, top_k=1),
        "narrow": replace(SAMPLED, top_p=0.5, top_k=9, temperature=0.7),
    }
    team = Team(brief, tuple(Agent(name, sampling=sampling) for name, sampling in options.items()))
    asks = [ask("5 + 5?", name) for name in options for _ in range(4)]
    seeds = list(range(16))
    together = opened(brief, team).generate(asks, seeds)
    alone = [opened(brief, team).generate([one], [seed])[0] for one, seed in zip(asks, seeds, strict=True)]
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    kinds = [len(set(texts(together[at : at + 4]))) for at in (0, 4, 8, 12)]
    assert kinds[0] == kinds[2] == 1 and kinds[1] == 4 and kinds[3] > 1
    assert together[0].text == together[8].text, "top_k 1 takes the most likely token"


@pytest.mark.parametrize("adapter", [None, 0])
def test_greedy_is_the_greedy_of_transformers(
    opened: Open, brief: str, tiny: str, adapters: list[str], adapter: int | None
) -> None:
    """Batched with padding, over more positions than the cache begins with, against one sequence at a time."""
    where = None if adapter is None else adapters[adapter]
    for path, limit in ((brief, 40), (tiny, 150)):
        sampling = Sampling(temperature=0.0, max_tokens=limit)
        engine = opened(path, Team(path, (Agent("base", sampling=sampling, adapter=where),)))
        model = plain_model(path, where)
        lengths = []
        for done in engine.generate(asks_of(6), [0] * 6):
            assert done.prompt_ids is not None
            prompt = torch.tensor([done.prompt_ids])
            want = model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=limit,
            )[0, len(done.prompt_ids) :]
            assert list(ids_of(done)) == want.tolist()
            lengths.append(len(want))
        assert path == brief or max(lengths) > 64 + 2, "the cache had to grow"


def test_logprobs_are_those_of_a_plain_forward_pass(opened: Open, brief: str, adapters: list[str]) -> None:
    """At temperature 1 and unfiltered, whatever the sampling was, for every seat of a mixed batch."""
    for sampling in (SAMPLED, GREEDY, Sampling(temperature=1.6, top_p=0.7, top_k=20, max_tokens=30)):
        team = team_of(brief, adapters, sampling)
        asks = asks_of(15, team.names)
        done = opened(brief, team).generate(asks, list(range(15)))
        for seat in team.agents:
            model = plain_model(brief, seat.adapter)
            for one, got in zip(asks, done, strict=True):
                if one.agent == seat.name:
                    assert got.prompt_ids and got.token_ids and got.logprobs
                    want = plain_logprobs(model, got.prompt_ids, got.token_ids)
                    torch.testing.assert_close(torch.tensor(got.logprobs), want, atol=1e-4, rtol=0)


# The embedded engine: adapters


@pytest.mark.parametrize("sampling", [SAMPLED, GREEDY], ids=["sampled", "greedy"])
def test_every_adapter_is_live_and_none_answers_for_another(
    opened: Open, brief: str, adapters: list[str], sampling: Sampling
) -> None:
    """One mixed batch with untrained seats equals engines that hold one adapter, or none, asked one at a time."""
    team = team_of(brief, adapters, sampling)
    asks = [ask(f"{i} + 2 * {i}?", seat) for i in range(5) for seat in team.names]
    seeds = list(range(len(asks)))
    together = opened(brief, team).generate(asks, seeds)
    for seat in team.agents:
        engine = opened(brief, Team(brief, (seat,)))
        for one, seed, got in zip(asks, seeds, together, strict=True):
            if one.agent == seat.name:
                assert engine.generate([one], [seed])[0].token_ids == got.token_ids, seat.name
    same = [ask("4 + 4?", seat) for seat in team.names]
    answers = dict(zip(team.names, texts(opened(brief, team).generate(same, [3] * 5)), strict=True))
    assert answers["base"] == answers["other"]
    assert len({answers[name] for name in ("base", "a0", "a1", "a2")}) == 4, "every adapter differs from the base"


def test_batches_of_one_adapter_and_mixed_ones_may_alternate(opened: Open, brief: str, adapters: list[str]) -> None:
    """The plain path sets PEFT's active adapter; no later batch may be answered by what it left behind."""
    team = team_of(brief, adapters, GREEDY)
    alone = {
        seat.name: opened(brief, Team(brief, (seat,))).generate([ask("9 - 4?", seat.name)], [0])[0].token_ids
        for seat in team.agents
    }
    engine = opened(brief, team)
    for names in (
        ["a1"],
        ["base"],
        ["a0", "base"],
        ["a2"] * 3,
        ["other"],
        ["a1", "a2"],
        ["base"] * 2,
        ["a0"],
    ):
        got = engine.generate([ask("9 - 4?", name) for name in names], [0] * len(names))
        assert [one.token_ids for one in got] == [alone[name] for name in names], names


def test_a_full_batch_of_one_adapter_equals_a_mixed_one(opened: Open, brief: str, adapters: list[str]) -> None:
    team = team_of(brief, adapters, SAMPLED)
    asks = [ask(f"{i}?", "a0") for i in range(12)] + [ask(f"{i}?", "base") for i in range(2)]
    seeds = list(range(14))
    # rows=8: a0 fills batches of its own and the two base rows come alone; rows=256: all in one mixed batch
    small, large = (opened(brief, team, rows).generate(asks, seeds) for rows in (8, 256))
    assert [one.token_ids for one in small] == [one.token_ids for one in large]


def test_a_new_path_never_answers_with_old_weights(opened: Open, brief: str, adapters: list[str]) -> None:
    def answer(engine: Any, where: str | None) -> list[str]:
        engine.adopt(Team(brief, (Agent("seat", sampling=GREEDY, adapter=where),)))
        return texts(engine.generate([ask(f"{i} * 3?", "seat") for i in range(3)], [0] * 3))

    fresh = {where: answer(opened(brief), where) for where in (None, *adapters)}
    assert len({tuple(texts) for texts in fresh.values()}) == 4
    engine = opened(brief)
    for where in (adapters[0], adapters[1], None, adapters[1], adapters[2], adapters[0], None):
        assert answer(engine, where) == fresh[where], where


def test_an_adapter_is_read_once(opened: Open, brief: str, tmp_path: Path) -> None:
    """A path is immutable, so what was loaded from it stays; and a team without it does not lose it."""
    where = random_adapter(brief, tmp_path / "once", 5)
    team = Team(brief, (Agent("seat", sampling=GREEDY, adapter=where),))
    engine = opened(brief, team)
    first = engine.generate([ask("2 + 2?", "seat")], [0])
    shutil.rmtree(where)
    engine.adopt(Team(brief, (Agent("seat", sampling=GREEDY),)))
    assert engine.generate([ask("2 + 2?", "seat")], [0]) != first
    engine.adopt(team)
    assert engine.generate([ask("2 + 2?", "seat")], [0]) == first


def test_two_seats_may_share_one_adapter(opened: Open, brief: str, adapters: list[str]) -> None:
    seats = (
        Agent("one", sampling=GREEDY, adapter=adapters[0]),
        Agent("two", sampling=GREEDY, adapter=adapters[0]),
    )
    one, two = opened(brief, Team(brief, seats)).generate([ask("6?", "one"), ask("6?", "two")], [0, 0])
    assert one == two


# The embedded engine: errors


def test_a_missing_adapter_is_named(opened: Open, brief: str, tmp_path: Path) -> None:
    with pytest.raises(TeamtuneError, match=r"no adapter in .*gone.*adapter_config\.json is missing"):
        opened(brief, Team(brief, (Agent("seat", adapter=str(tmp_path / "gone")),)))
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "adapter_config.json").write_text("{}")
    with pytest.raises(TeamtuneError, match=r"half.*no adapter_model\.safetensors"):
        opened(brief, Team(brief, (Agent("seat", adapter=str(tmp_path / "half")),)))


def test_an_adapter_of_another_model_is_an_error_that_names_it(opened: Open, brief: str, tmp_path: Path) -> None:
    LlamaForCausalLM(LlamaConfig.from_pretrained(brief, hidden_size=64)).save_pretrained(tmp_path / "other")
    where = random_adapter(str(tmp_path / "other"), tmp_path / "misfit", 0)
    with pytest.raises(TeamtuneError, match="misfit"):
        opened(brief, Team(brief, (Agent("seat", adapter=where),)))


def test_a_prompt_longer_than_the_context_overflows_and_one_that_just_fits_does_not(opened: Open, brief: str) -> None:
    engine = opened(brief, Team(brief, (Agent("base", sampling=SAMPLED),)))
    overhead = len(engine.renderer.prompt([Message("user", "")]))
    assert len(engine.renderer.prompt([Message("user", "7" * 9)])) == overhead + 9, "a digit is one token"
    [last] = engine.generate([ask("7" * (1023 - overhead))], [0])
    assert len(ids_of(last)) == 1, "there was room for one token"
    long, short, longer = engine.generate([ask("7" * (size - overhead)) for size in (1024, 600, 1400)], [0, 1, 2])
    assert short == engine.generate([ask("7" * (600 - overhead))], [1])[0], "the others are answered all the same"
    for one, size in ((long, 1024), (longer, 1400)):
        assert (one.text, one.finish, one.token_ids, one.logprobs) == ("", "overflow", (), ())
        assert len(one.prompt_ids or ()) == size


SIZES = [(10, 50), (11, 50), (12, 400), (13, 50), (14, 50), (15, 50), (16, 10), (17, 700), (600, 300), (20, 50)]
"""(ids of the prompt, most ids of the answer)"""


def test_a_batch_holds_no_more_tokens_than_it_may() -> None:
    requests = [Request(i, "a", (1,) * size, limit, SAMPLED, i) for i, (size, limit) in enumerate(SIZES)]
    batches = list(batched(requests, rows=256, tokens=700))
    assert sorted(r.place for batch in batches for r in batch) == list(range(len(SIZES)))
    for batch in batches:
        full = len(batch) * (max(len(r.prompt) for r in batch) + max(r.limit for r in batch))
        assert full <= 700 or len(batch) == 1
    assert max(map(len, batches)) > 1


FULL = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
]


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_a_batch_that_does_not_fit_into_memory_says_what_to_lower(
    brief: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    engine = embedded(brief, Team(brief, (Agent("base", sampling=SAMPLED),)))

    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(Decoder, "__call__", full)
    with pytest.raises(TeamtuneError, match=r"a batch of 3 answers; lower --engine\.tokens or --engine\.rows"):
        engine.generate(asks_of(3), [0, 1, 2])


def test_an_error_that_is_not_of_memory_is_not_called_one(brief: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = embedded(brief, Team(brief, (Agent("base", sampling=SAMPLED),)))

    def broken(*_: object) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Decoder, "__call__", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        engine.generate(asks_of(3), [0, 1, 2])


def test_an_engine_without_a_team_and_an_ask_without_a_seat_are_errors(opened: Open, brief: str) -> None:
    with pytest.raises(TeamtuneError, match="no team"):
        opened(brief).generate([ask("1?")], [0])
    engine = opened(brief, Team(brief, (Agent("base"),)))
    with pytest.raises(TeamtuneError, match="no agent named 'nobody'"):
        engine.generate([ask("1?", "nobody")], [0])


def test_a_scripted_table_without_the_tag_is_an_error() -> None:
    with pytest.raises(TeamtuneError, match="no answers for tag 'test'; it has generate"):
        Scripted({"generate": ["1"]}).generate([ask("1?")], [0])


# Sampling


def slow_choice(logits: list[float], uniform: float, options: Sampling) -> int:
    """The same choice, spelled out for one row in plain Python."""
    ordered = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    if options.temperature == 0:
        return ordered[0]
    top = max(logits)
    weight = [math.exp((x - top) / options.temperature) for x in logits]
    if options.top_k:
        ordered = ordered[: options.top_k]
    total = sum(weight[i] for i in ordered)
    kept: list[int] = []
    for token in ordered:
        if kept and sum(weight[i] for i in kept) / total >= options.top_p:
            break
        kept.append(token)
    target = uniform * sum(weight[i] for i in kept)
    reached = 0.0
    for token in sorted(kept):
        reached += weight[token]
        if reached > target:
            return token
    return max(kept)


OPTIONS = [
    Sampling(temperature=t, top_p=p, top_k=k)
    for t in (0.0, 0.3, 1.0, 2.5)
    for p in (1.0, 0.9, 0.4, 0.05)
    for k in (0, 1, 3, 50)
]


def test_choose_equals_a_slow_loop() -> None:
    """All options mixed in one call, thirty rows of each."""
    options = OPTIONS * 30
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(len(options), 13, generator=generator, dtype=torch.float64) * 2
    uniform = torch.rand(len(options), generator=generator, dtype=torch.float64)
    got = choose(logits, uniform, RowSampling.of(options, torch.device("cpu")))
    want = [slow_choice(*row) for row in zip(logits.tolist(), uniform.tolist(), options, strict=True)]
    assert got.tolist() == want
    assert len(set(want)) == 13


def test_what_is_left_out_is_what_transformers_leaves_out() -> None:
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    generator = torch.Generator().manual_seed(1)
    for option in OPTIONS:
        if option.temperature == 0:
            continue
        logits = torch.randn(40, 17, generator=generator, dtype=torch.float64)
        warpers = LogitsProcessorList([TemperatureLogitsWarper(option.temperature)])
        if option.top_k:
            warpers.append(TopKLogitsWarper(option.top_k))
        if option.top_p < 1:
            warpers.append(TopPLogitsWarper(option.top_p))
        ids: Any = torch.zeros(40, 1, dtype=torch.long)
        want = warpers(ids, logits).softmax(-1)
        rows = RowSampling.of([option] * 40, torch.device("cpu"))
        got = filtered((logits / option.temperature).softmax(-1), rows)
        torch.testing.assert_close(got / got.sum(-1, keepdim=True), want, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize(
    "option",
    [
        Sampling(),
        Sampling(temperature=0.5),
        Sampling(top_p=0.8),
        Sampling(top_k=4, temperature=2.0, top_p=0.9),
    ],
    ids=["plain", "cool", "top-p", "all"],
)
def test_draws_follow_the_distribution(option: Sampling) -> None:
    """Pearson's chi-square of 20,000 draws, each from the stream of its own seed."""
    logits = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.5, -3.0, 1.0, 0.9], dtype=torch.float64)
    draws = 20_000
    rows = RowSampling.of([option] * draws, torch.device("cpu"))
    for position in (0, 3):
        uniform = uniforms(range(draws), 4)[:, position]
        counts = Counter(choose(logits.expand(draws, -1), uniform, rows).tolist())
        one = RowSampling.of([option], torch.device("cpu"))
        share = filtered((logits[None] / option.temperature).softmax(-1), one)[0]
        share = (share / share.sum()).tolist()
        kept = [token for token, p in enumerate(share) if p > 0]
        assert set(counts) <= set(kept), "what was left out is never drawn"
        chi = sum((counts[token] - draws * share[token]) ** 2 / (draws * share[token]) for token in kept)
        freedom = len(kept) - 1
        assert chi < freedom + 4.5 * math.sqrt(2 * freedom) + 10, f"chi-square {chi} at {freedom} degrees"


def test_uniforms_depend_on_the_rows_seed_alone() -> None:
    many = uniforms([5, 6, 7], 10)
    assert torch.equal(many[1], uniforms([6], 10)[0])
    assert torch.equal(many[:, :4], uniforms([5, 6, 7], 4)), "a longer stream begins like a shorter one"
    assert len(set(many.flatten().tolist())) == 30
    assert bool(((many >= 0) & (many < 1)).all())


def test_the_ends_of_the_interval_choose_no_token_that_was_left_out() -> None:
    option = Sampling(top_k=2)
    logits = torch.tensor([[-5.0, 3.0, -9.0, 2.0, -7.0]] * 2)
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert choose(logits, ends, RowSampling.of([option] * 2, torch.device("cpu"))).tolist() == [1, 3]


def test_a_token_of_no_probability_is_never_chosen() -> None:
    logits: Tensor = torch.tensor([[float("-inf"), 0.0, float("-inf"), 0.0, float("-inf")]] * 3)
    ends = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert choose(logits, ends, RowSampling.of([Sampling()] * 3, torch.device("cpu"))).tolist() == [1, 3, 3]
