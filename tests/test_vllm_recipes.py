"""A real `vllm serve` with adapters, and recipes through it and through vLLM itself."""

from __future__ import annotations

import json
import os
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

from helpers import long_ask, opened_vllm, plain_logprobs, plain_model, random_adapter
from teamtune.cli import main as command
from teamtune.engines import EngineSpec, open_engine
from teamtune.engines.openai import OpenaiEngine
from teamtune.engines.spec import Openai
from teamtune.models import model_path
from teamtune.play import by_hand
from teamtune.protocols.pipeline import pipeline, seats
from teamtune.recipes.evaluation import trained_team
from teamtune.store import read_table
from teamtune.types import Agent, Ask, Message, Problem, Sampling, Team, TeamtuneError

pytest.importorskip("vllm", reason="vLLM is not installed here; make test-vllm runs these in its own environment")

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


def alike_when_greedy(team: Team) -> None:
    """Both engines give the same answers, token by token, of all seats of a pipeline."""
    problems = [Problem(f"p{n}", f"What is {n} + {3 * n} * 2?", "") for n in range(12)]
    engines = [opened_vllm("house", team), open_engine(EngineSpec(dtype="float32"), team)]
    engines[1].adopt(team)
    played = [[by_hand(problem, pipeline, team, engine) for problem in problems] for engine in engines]
    same = [
        a.completion.token_ids == b.completion.token_ids
        for one, other in zip(*played, strict=True)
        for a, b in zip(one.turns, other.turns, strict=True)
    ]
    assert len(same) == 3 * len(problems)
    assert sum(same) >= len(same) - 1, "but for a tie that rounding decides"
    engines[0].close()


def test_greedy_pipelines_on_the_house_model_are_those_of_the_embedded_engine() -> None:
    alike_when_greedy(Team("house", seats(Sampling(temperature=0.0, max_tokens=200))))


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
        gaps = json.loads((tmp_path / name / "test/malt/turns/gaps.json").read_text())
        assert set(gaps) == {"generator", "verifier", "refiner"}
        assert max(gaps.values()) < 1e-3
        alike_when_greedy(trained_team(tmp_path / name, Sampling(temperature=0.0, max_tokens=200), EngineSpec()))


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


@pytest.mark.parametrize("kind", ["openai", "vllm"])
def test_policies_are_sampled_where_they_are(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    """The adapters of every update reach the engine: what it samples is as likely as training says."""
    if kind == "vllm":
        more = ["--engine.vllm.cache-gb", "0.3"]
    else:
        more = ["--engine.openai.base-url", request.getfixturevalue("server"), *SERVED]
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
