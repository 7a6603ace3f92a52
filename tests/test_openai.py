"""The OpenAI-compatible engine, against a real server on loopback that refuses, hangs, breaks off and mixes up."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import random_adapter
from odd_server import OddServer, running
from teamtune import doctor
from teamtune.cli import main as command
from teamtune.engines import EngineSpec
from teamtune.engines.openai import OpenaiEngine
from teamtune.engines.spec import Openai
from teamtune.store import read_table
from teamtune.types import Agent, Ask, Completion, Message, Sampling, Team, TeamtuneError

KEY = "sk-secret-of-the-test"
KEYS = ("sk-secret", "gsk_SECRET123", "hf_secret", "AKIA0SECRET1", "secret", "")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OddServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with running() as odd:
        yield odd


@pytest.fixture
def opened(server: OddServer) -> Iterator[Any]:
    """A function that opens an engine for a team of two seats on the server."""
    engines: list[OpenaiEngine] = []

    def opens(run: Path | None = None, **options: Any) -> OpenaiEngine:
        engine = OpenaiEngine("basic", Openai(server.url, **{"retries": 2, **options}), run)
        engines.append(engine)
        engine.adopt(Team("basic", (Agent("one", sampling=Sampling(0.7, 0.9, 40, 33)), Agent("two"))))
        return engine

    yield opens
    for engine in engines:
        engine.close()


def asks_of(count: int, seat: str = "one") -> list[Ask]:
    return [Ask(seat, (Message("system", "Add."), Message("user", f"{n} + {n}?")), "test") for n in range(count)]


def texts(done: list[Completion]) -> list[str]:
    return [one.text for one in done]


def test_answers_come_in_the_order_of_the_asks_however_the_server_mixes_them(server: OddServer, opened: Any) -> None:
    server.slow = 0.02
    done = opened(at_once=5).generate(asks_of(20), list(range(20)))
    assert texts(done) == [f"basic: {n} + {n}? -> {n}" for n in range(20)]
    assert {one.usage for one in done} == {(10, 5)} and {one.token_ids for one in done} == {None}
    assert 2 <= server.most_at_once <= 5


def test_later_turns_go_before_those_that_begin_episodes(server: OddServer, opened: Any) -> None:
    """A verifier does not wait until every generator has answered."""
    server.slow = 1.0
    engine = opened(at_once=1)
    later = Ask("one", (Message("user", "later"),), "test", parents=(0,))
    for ticket, ask in enumerate([*asks_of(5), later]):
        engine.submit(ticket, ask, 0)
        while not server.bodies:
            time.sleep(0.01)
    found = [ticket for _ in range(6) for ticket, _ in engine.poll()]
    assert found == [0, 5, 1, 2, 3, 4]


def test_few_asks_are_at_work_and_many_wait(server: OddServer, opened: Any) -> None:
    """Those that wait are no tasks of the loop yet, and a batch leaves what is on its way beside it alone."""
    server.slow = 0.01
    engine = opened(at_once=3)
    for ticket, ask in enumerate(asks_of(60)):
        engine.submit(ticket, ask, 0)
    assert len(asyncio.all_tasks(engine._loop)) < 20
    assert texts(engine.generate(asks_of(2), [1, 1])) == [f"basic: {n} + {n}? -> 1" for n in range(2)]
    found: dict[int, Completion] = {}
    while len(found) < 60:
        new = engine.poll()
        assert new and not {ticket for ticket, _ in new} & {*found}
        found |= dict(new)
    assert [found[n].text for n in range(60)] == [f"basic: {n} + {n}? -> 0" for n in range(60)]
    assert engine.poll() == [] and server.most_at_once <= 3


def test_a_request_says_what_the_seat_samples_by(server: OddServer, opened: Any) -> None:
    opened(names=("two=critic",)).generate([*asks_of(1), *asks_of(1, "two")], [7, 8])
    first, second = sorted(server.bodies, key=lambda body: body["seed"])
    assert first == {
        "model": "basic",
        "messages": [{"role": "system", "content": "Add."}, {"role": "user", "content": "0 + 0?"}],
        **{"temperature": 0.7, "top_p": 0.9, "top_k": 40, "max_tokens": 33, "seed": 7},
    }
    assert second["model"] == "critic" and second["max_tokens"] == 256 and "top_k" not in second
    server.bodies.clear()
    opened(seeds=False, limit="max_completion_tokens", logprobs=False).generate(asks_of(1), [7])
    assert "seed" not in server.bodies[0] and server.bodies[0]["max_completion_tokens"] == 33


@pytest.mark.parametrize(
    "faults", [["429", "429"], ["500", "503"], ["cut", "empty"], ["broken off"], ["hang"], ["429", "cut", "500"]]
)
def test_what_passes_is_asked_again(server: OddServer, opened: Any, faults: list[str]) -> None:
    server.faults = faults
    done = opened(timeout=0.5).generate(asks_of(4), [0] * 4)
    assert texts(done) == [f"basic: {n} + {n}? -> 0" for n in range(4)]
    assert set(server.tries.values()) == {len(faults) + 1}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("429", r"refuses an ask: .*fault 429.*the same command goes on from here"),
        ("500", r"refuses an ask: .*fault 500"),
        ("cut", r"answers with no chat completion"),
        ("empty", r"answers with no chat completion \(no choices"),
        ("broken off", r"answers with no chat completion \(an answer that was broken off"),
        ("hang", r"was silent for 0\.2 s, 3 times"),
        ("401", r"refuses the key in OPENAI_API_KEY"),
        ("404", r"has no such model or path"),
        ("odd", r"refuses an ask: .*temperature must be 1"),
        ("echo", r"refuses an ask: .*cannot take .*Bearer \*\*\*"),
    ],
)
def test_what_does_not_pass_is_told_in_a_sentence(server: OddServer, opened: Any, fault: str, said: str) -> None:
    server.faults = [fault] * 20
    with pytest.raises(TeamtuneError, match=said) as error:
        opened(timeout=0.2).generate(asks_of(1), [0])
    assert KEY not in str(error.value)


def test_an_answer_has_a_deadline(server: OddServer, opened: Any) -> None:
    server.faults = ["hang"] * 20
    with pytest.raises(TeamtuneError, match=r"did not answer within 0\.3 s, retries included"):
        opened(deadline=0.3).generate(asks_of(1), [0])


def test_a_prompt_that_is_too_long_overflows(server: OddServer, opened: Any) -> None:
    server.faults = ["long"]
    assert opened().generate(asks_of(2), [0, 0]) == [Completion("", "overflow", usage=(0, 0))] * 2


def test_a_prompt_that_fits_has_the_answer_that_fits(server: OddServer, opened: Any) -> None:
    """Some servers refuse a prompt and the longest answer that do not fit together, where others cut the answer."""
    server.faults = ["no room"] * 3
    [found] = opened().generate(asks_of(1), [0])
    assert found.text and [body["max_tokens"] for body in server.bodies] == [33, 14]
    assert opened(retries=0).generate(asks_of(1), [2])[0].finish == "stop", "that is no repetition"
    server.faults = ["not counted"] * 9
    assert opened().generate(asks_of(1), [3])[0].finish == "stop"
    assert [body["max_tokens"] for body in server.bodies[-3:]] == [33, 16, 8]
    server.faults = ["none left"] * 9
    assert opened().generate(asks_of(1), [1]) == [Completion("", "overflow", usage=(0, 0))]


@pytest.mark.parametrize(
    ("told", "finish"), [("stop", "stop"), ("length", "length"), ("content_filter", "withheld"), ("eos", "stop")]
)
def test_how_an_answer_ended(server: OddServer, opened: Any, told: str, finish: str) -> None:
    server.finish = told
    assert opened().generate(asks_of(1), [0])[0].finish == finish


def test_half_a_character_is_no_text(server: OddServer, opened: Any) -> None:
    """It could be neither stored nor sent to the next agent."""
    server.more = " \ud83d and \U0001f600"
    [found] = opened().generate(asks_of(1), [0])
    assert found.text.encode() and found.text.endswith(" \ufffd and \U0001f600")


def test_an_adapter_is_read_once_for_its_name(server: OddServer, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, named = opened(), []
    monkeypatch.setattr(engine, "_name", lambda agent: named.append(agent.name) or "basic")
    engine.generate(asks_of(5), [0] * 5)
    engine.adopt(engine.team)
    engine.generate(asks_of(5), [0] * 5)
    assert len(named) == 2


def test_what_was_answered_is_given_out_before_an_error(server: OddServer, opened: Any) -> None:
    """So that a driver can log it: it was paid for."""
    engine = opened(most_tokens=15 * 6, at_once=1)
    for ticket, ask in enumerate(asks_of(10)):
        engine.submit(ticket, ask, 0)
    found: dict[int, Completion] = {}
    with pytest.raises(TeamtuneError, match=r"90 tokens are spent of engine\.openai\.most_tokens 90"):
        while True:
            found |= dict(engine.poll())
    assert len(found) == 6 == sum(server.tries.values())


def test_a_cap_holds_over_restarts(server: OddServer, opened: Any, tmp_path: Path) -> None:
    opened(tmp_path).generate(asks_of(4), [0] * 4)
    lines = (tmp_path / "spent.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"model": "basic", "prompt": 10, "answer": 5}] * 4
    with pytest.raises(TeamtuneError, match=r"60 tokens are spent of engine\.openai\.most_tokens 50"):
        opened(tmp_path, most_tokens=50).generate(asks_of(1), [1])
    price = {"price_prompt": 2e5, "price_answer": 1e6}  # 7 an answer
    with pytest.raises(TeamtuneError, match=r"28\.00 are spent of engine\.openai\.most_money 28\.00"):
        opened(tmp_path, most_money=28.0, **price).generate(asks_of(1), [1])
    assert sum(server.tries.values()) == 4
    opened(tmp_path, most_money=28.1, **price).generate(asks_of(1), [1])
    assert sum(server.tries.values()) == 5


def test_answers_that_come_back_broken_are_paid_for_too(server: OddServer, opened: Any) -> None:
    server.faults = ["empty"]
    engine = opened()
    engine.generate(asks_of(2), [0] * 2)
    assert (engine.ledger.prompt, engine.ledger.answer) == (40, 20)


def test_a_cap_holds_between_tries_and_for_answers_that_lack_what_was_asked_for(
    server: OddServer, opened: Any, tmp_path: Path
) -> None:
    server.faults = ["empty"] * 3
    engine = opened(most_tokens=15)
    with pytest.raises(TeamtuneError, match="15 tokens are spent of"):
        engine.generate(asks_of(1), [0])
    assert sum(server.tries.values()) == 1
    server.faults = ["empty"] * 2
    hiding = opened(ids=True)
    with pytest.raises(TeamtuneError, match="gives no token ids"):
        hiding.generate(asks_of(4)[3:], [0])
    assert hiding.ledger.prompt == 30, "two broken tries, and one without ids"


def test_a_server_is_not_asked_in_batches_that_a_cap_could_lose(
    server: OddServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--task", "tests.easy_task", "--train", "3", "--test", "3", "--model", "house", "--rows-only"]
    engine = ["--engine.kind", "openai", "--engine.openai.base-url", server.url]
    with pytest.raises(SystemExit):
        command(["malt", *small, *engine, "--driver", "waves", "--out", str(tmp_path / "run")])
    told = " ".join(capsys.readouterr().err.split())
    assert "driver waves keeps nothing of a batch until all of it is answered" in told and not server.tries


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 3}, {"prompt_tokens": 3, "completion_tokens": None}])
def test_a_cap_needs_a_server_that_counts(server: OddServer, opened: Any, usage: dict[str, Any] | None) -> None:
    server.usage = usage
    assert opened().generate(asks_of(1), [0])[0].usage is None
    engine = opened(most_tokens=100, at_once=1)
    for ticket, ask in enumerate(asks_of(3)):
        engine.submit(ticket, ask, 0)
    assert len(engine.poll()) == 1, "what was paid for is given out"
    with pytest.raises(TeamtuneError, match="does not tell what answers cost"):
        engine.poll()
    assert sum(server.tries.values()) == 2


def test_ids_and_logprobs_that_a_server_hides_are_an_error(opened: Any) -> None:
    with pytest.raises(TeamtuneError, match="gives no token ids"):
        opened(ids=True).generate(asks_of(1), [0])
    with pytest.raises(TeamtuneError, match="gives no log-probability a token"):
        opened(logprobs=True).generate(asks_of(1), [0])


def test_an_adapter_needs_a_name_at_the_server(opened: Any) -> None:
    seat = Agent("one", adapter="some/folder")
    with pytest.raises(TeamtuneError, match=r"seat 'one' has adapter 'some/folder' and the server has no name for it"):
        opened().adopt(Team("basic", (seat,)))
    named = opened(names=("one=tuned",))
    named.adopt(Team("basic", (seat,)))
    assert named.generate(asks_of(1), [0])[0].text.startswith("tuned: ")


def test_a_vllm_server_is_told_all_that_decides_what_is_sampled(server: OddServer, opened: Any) -> None:
    """It takes from the model's generation config what a request leaves open."""
    with pytest.raises(TeamtuneError, match="gives no token ids"):
        opened(ids=True).generate(asks_of(1, "two"), [7])
    opened(load_adapters=True).generate(asks_of(1, "two"), [7])
    neutral = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    for body, ids in zip(server.bodies, (True, None), strict=True):
        assert {name: body[name] for name in neutral} == neutral
        assert body.get("return_token_ids") is ids


def test_adapters_that_are_gone_are_let_go_and_the_base_has_one_that_the_server_sees(
    server: OddServer, brief: str, opened: Any, tmp_path: Path
) -> None:
    paths = [Path(random_adapter(brief, tmp_path / f"step-{n}", n)) for n in range(2)]
    engine = opened(tmp_path / "run", load_adapters=True)
    for path in paths:
        engine.adopt(Team("basic", (Agent("one", adapter=str(path)), Agent("two"))))
        shutil.rmtree(path)
    (first, one), (_, zero), (gone, left), (last, two) = server.loads
    assert (first, gone, last) == ("load_lora_adapter", "unload_lora_adapter", "load_lora_adapter")
    assert left == {"lora_name": one["lora_name"]} and two["lora_name"] != one["lora_name"]
    assert Path(zero["lora_path"]).parent == tmp_path / "run"
    engine.adopt(Team("basic", (Agent("two"),)))
    assert len(server.loads) == 4, "what nothing newer is loaded for stays"
    server.faults = ["forgotten"]
    engine.adopt(Team("basic", (Agent("one", adapter=random_adapter(brief, tmp_path / "step-2", 2)),)))
    assert [what for what, _ in server.loads[4:]] == ["unload_lora_adapter", "load_lora_adapter"]
    engine.close()
    assert not list((tmp_path / "run").glob(".zero*"))


def test_a_server_that_is_gone_when_adapters_change_is_told(brief: str, tmp_path: Path) -> None:
    path = random_adapter(brief, tmp_path / "step", 0)
    engine = OpenaiEngine("basic", Openai("http://127.0.0.1:9/v1", load_adapters=True, retries=0))
    with pytest.raises(TeamtuneError, match=r"cannot be reached .* the same command goes on from here"):
        engine.adopt(Team("basic", (Agent("one", adapter=path),)))
    engine.close()


def test_without_a_key_only_a_server_of_ones_own_is_asked(server: OddServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(TeamtuneError, match="OPENAI_API_KEY is not set"):
        OpenaiEngine("basic", Openai())
    with pytest.raises(
        TeamtuneError, match=r"MY_KEY is not set in the environment; export it, or leave engine\.openai"
    ):
        OpenaiEngine("basic", Openai(server.url, key_from="MY_KEY"))
    engine = OpenaiEngine("basic", Openai(server.url))
    engine.adopt(Team("basic", (Agent("one"),)))
    assert engine.generate(asks_of(1), [0])[0].text
    engine.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"base_url": "https://me:secret@host/v1"}, "base_url holds a key"),
        ({"base_url": "https://host/v1?api-key=secret"}, "base_url holds a key, or a query"),
        *(({"key_from": key}, "key_from is no name of an environment variable") for key in KEYS),
        ({"names": ("one",)}, "names has 'one'; give SEAT=NAME"),
        ({"most_money": 3.0}, "price_prompt and price_answer, have use together alone"),
        ({"price_answer": 3.0}, "most_money and the prices of a million tokens"),
        ({"at_once": 0}, "at_once is 0"),
        ({"retries": -1}, "retries is -1"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TeamtuneError, match=said):
        Openai(**options)


def test_options_of_another_engine_are_errors() -> None:
    with pytest.raises(TeamtuneError, match=r"engine\.openai has no use with engine\.kind transformers"):
        EngineSpec(openai=Openai("http://127.0.0.1/v1"))


# In a recipe


def baselines(server: OddServer, out: Path, *more: str) -> None:
    small = ["--task", "tests.easy_task", "--test", "3", "--votes", "1", "--debaters", "2", "--model", "gpt-x"]
    engine = ["--engine.kind", "openai", "--engine.openai.base-url", server.url]
    command(["baselines", *small, *engine, "--out", str(out), *more])


def test_a_recipe_stops_at_a_cap_and_goes_on(
    server: OddServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is asked twice, the key is nowhere on the disk, and the table counts the tokens that the server told."""
    with pytest.raises(SystemExit) as stop:
        baselines(server, tmp_path / "run", "--engine.openai.most-tokens", "200", "--engine.openai.at-once", "2")
    assert stop.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "tokens are spent of engine.openai.most_tokens 200; raise it" in said
    asked = sum(server.tries.values())
    assert 13 <= asked <= 15
    baselines(server, tmp_path / "run")
    assert sum(server.tries.values()) == 3 * (3 + 3 + 4), "as often as without a stop"
    lines = (tmp_path / "run/spent.jsonl").read_text().splitlines()
    assert len(lines) == 30
    table = {row["system"]: row for row in read_table(tmp_path / "run/comparison").rows()}
    assert table["SA"]["prompt_tokens"] == 10 and table["MA"]["completion_tokens"] == 15
    for file in (tmp_path / "run").rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file
    assert server.keys == {f"Bearer {KEY}"}


@pytest.mark.parametrize("recipe", ["malt", "maft"])
def test_a_team_that_the_server_could_not_answer_with_is_not_begun(
    server: OddServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    """Before anything is paid for. Rows alone may be had from any server."""
    with pytest.raises(SystemExit):
        small = ["--task", "tests.easy_task", "--train", "3", "--test", "3", "--model", "house"]
        engine = ["--engine.kind", "openai", "--engine.openai.base-url", server.url]
        command([recipe, *small, *engine, "--out", str(tmp_path / "run")])
    told = " ".join(capsys.readouterr().err.split())
    assert "which are to be trained; give --engine.openai.load-adapters for a vLLM server, or --rows-only" in told
    assert not (tmp_path / "run").exists() and not server.tries


def test_a_server_that_nobody_trains_with_is_examined(
    server: OddServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers; what it does with adapters is not seen, which breaks nothing. Its model need not be here."""
    line = ["doctor", "--model", "gpt-x", "--engine.kind", "openai", "--engine.openai.base-url", server.url]
    monkeypatch.setattr(doctor, "packages", lambda: iter(()))
    command(line)
    told = " ".join(capsys.readouterr().out.split())
    assert "ok generation: gpt-x: 6 of 6 answers ended by themselves; one seed, one answer" in told
    assert "missing adapters: whether the server answers with adapters" in told
    assert "--engine.openai.load-adapters --engine.openai.ids --engine.openai.logprobs for a vLLM server" in told
    server.faults = ["404"]
    server.tries.clear()
    with pytest.raises(SystemExit) as stop:
        command(line)
    assert stop.value.code == 1 and "broken server: " in " ".join(capsys.readouterr().out.split())


def test_adapters_have_no_use_for_untrained_baselines(
    server: OddServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        baselines(server, tmp_path / "run", "--engine.openai.load-adapters")
    assert "engine.openai.load_adapters has no use for untrained baselines" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("key", ["gsk_SECRET123", "AKIA0SECRET1"])
def test_a_key_in_place_of_its_variables_name_is_told_and_kept_nowhere(
    server: OddServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    for more in ((), ("--dry-run",)):
        with pytest.raises(SystemExit):
            baselines(server, tmp_path / "run", "--engine.openai.key-from", key, *more)
        told = "".join(capsys.readouterr())
        assert "give the name, not the key" in " ".join(told.split()) and key not in told
    assert not (tmp_path / "run").exists()


def test_a_key_that_is_not_there_stops_before_the_run_folder(
    server: OddServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a dry run needs no key for."""
    other = ("--engine.openai.key-from", "MY_KEY")
    with pytest.raises(SystemExit):
        baselines(server, tmp_path / "run", *other)
    assert "MY_KEY is not set in the environment; export it, or leave" in " ".join(capsys.readouterr().err.split())
    baselines(server, tmp_path / "run", *other, "--dry-run")
    assert not (tmp_path / "run").exists() and not server.tries
    monkeypatch.setenv("MY_KEY", "sk-of-another")
    baselines(server, tmp_path / "run", *other)
    assert server.keys == {"Bearer sk-of-another"}


def test_a_name_for_a_seat_that_is_not_there_is_an_error(
    server: OddServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        baselines(server, tmp_path / "run", "--engine.openai.names", "verifer=x")
    assert "has a name for 'verifer', and seats are generator, verifier, refiner" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not (tmp_path / "run").exists()
