"""Which engine to open, and how: plain options, without any engine."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Literal
from urllib.parse import urlsplit

from teamtune.given import given, refuse_unread
from teamtune.types import BESIDE, TeamtuneError

NAME = re.compile("[A-Z]+|[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
"""of an environment variable that holds a key; a key itself has small letters, or digits in one long word"""


@dataclass(frozen=True, slots=True)
class Vllm:
    """How vLLM runs. Only the context decides what is found, by where answers are cut off."""

    tensor_parallel: int = field(default=1, metadata=BESIDE)
    """GPUs that share the model"""
    memory: float = field(default=0.9, metadata=BESIDE)
    """share of a GPU's memory that weights and cache may take"""
    cache_gb: float = field(default=0.0, metadata=BESIDE)
    """of keys and values; 0 takes what the share of memory leaves, and 1 on a CPU"""
    context: int = 0
    """longest prompt and answer together; 0 is the model's own, which may ask for more memory than there is"""
    block: int = field(default=0, metadata=BESIDE)
    """ids in a block of the cache, which is what prompts share; 0 is vLLM's choice"""
    step_tokens: int = field(default=0, metadata=BESIDE)
    """most ids that a step takes, of prompts and answers together; 0 is vLLM's choice"""
    prefix_caching: bool = field(default=True, metadata=BESIDE)
    """read what prompts begin with alike once"""
    eager: bool = field(default=False, metadata=BESIDE)
    """compile nothing and capture no graphs: quicker to open, slower to run"""
    adapters: int = field(default=0, metadata=BESIDE)
    """most adapters in one batch; 0 is all of the team"""

    def __post_init__(self) -> None:
        if self.tensor_parallel < 1:
            raise TeamtuneError(f"engine.vllm.tensor_parallel is {self.tensor_parallel}; it must be 1 or above")
        if not 0 < self.memory <= 1:
            raise TeamtuneError(f"engine.vllm.memory is {self.memory}; it is a share and must lie in (0, 1]")
        if self.cache_gb and "memory" in given(self):
            raise TeamtuneError("engine.vllm.memory has no use beside engine.vllm.cache_gb; leave one of them out")
        for name in ("cache_gb", "context", "block", "step_tokens", "adapters"):
            if not 0 <= getattr(self, name) < math.inf:
                raise TeamtuneError(
                    f"engine.vllm.{name} is {getattr(self, name)}; it must be above 0, or 0 for its own"
                )


@dataclass(frozen=True, slots=True)
class Openai:
    """A server that speaks OpenAI's protocol. Where it is and how it is asked may change on the way; what may be told
    apart in its answers may not."""

    base_url: str = field(default="", metadata=BESIDE)
    """for example http://127.0.0.1:8000/v1; empty is the client's own (OPENAI_BASE_URL, or the company's)"""
    key_from: str = field(default="OPENAI_API_KEY", metadata=BESIDE)
    """the environment variable that holds the key, in capitals"""
    model: str = ""
    """the server's name for the base; empty is --model as it was given"""
    names: tuple[str, ...] = ()
    """SEAT=NAME: the server's names for seats of their own models"""
    load_adapters: bool = field(default=False, metadata=BESIDE)
    """have a vLLM server load the adapters that are trained; it must see their folders"""
    ids: bool = False
    """ask for the sampled ids (vLLM's return_token_ids); without them training renders texts anew"""
    logprobs: bool = False
    """ask for log-probabilities"""
    seeds: bool = True
    """send seeds; some servers refuse them"""
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """the server's word for the longest answer"""
    at_once: int = field(default=32, metadata=BESIDE)
    """asks that are on their way at a time"""
    retries: int = field(default=12, metadata=BESIDE)
    """of an ask that is refused for now (429, 5xx), lost, or answered brokenly; each waits longer, up to 8 seconds, so
    that they outlast a minute"""
    timeout: float = field(default=120.0, metadata=BESIDE)
    """seconds of silence after which an ask is lost"""
    deadline: float = field(default=900.0, metadata=BESIDE)
    """seconds for one answer, retries included"""
    most_tokens: int = field(default=0, metadata=BESIDE)
    """stop once the run has spent so many, prompts and answers; what is on its way still comes; 0 is no cap"""
    most_money: float = field(default=0.0, metadata=BESIDE)
    """stop once the run has spent so much, at the prices below; 0 is no cap"""
    price_prompt: float = field(default=0.0, metadata=BESIDE)
    """of a million tokens of prompts"""
    price_answer: float = field(default=0.0, metadata=BESIDE)
    """of a million tokens of answers"""

    def __post_init__(self) -> None:
        for name in ("at_once", "timeout", "deadline"):
            if not 0 < getattr(self, name) < math.inf:
                raise TeamtuneError(f"engine.openai.{name} is {getattr(self, name)}; it must be above 0, and finite")
        for name in ("retries", "most_tokens", "most_money", "price_prompt", "price_answer"):
            if not 0 <= getattr(self, name) < math.inf:
                raise TeamtuneError(f"engine.openai.{name} is {getattr(self, name)}; it must be 0 or above, and finite")
        for told in self.names:
            if not all(told.partition("=")):
                raise TeamtuneError(f"engine.openai.names has {told!r}; give SEAT=NAME")
        if bool(self.most_money) != bool(self.price_prompt or self.price_answer):
            raise TeamtuneError(
                "engine.openai.most_money and the prices of a million tokens, price_prompt and price_answer, have use "
                "together alone"
            )
        if not NAME.fullmatch(self.key_from):
            # Not told again: whoever puts a key here should not find it in a log.
            raise TeamtuneError(
                "engine.openai.key_from is no name of an environment variable (words of capital letters, joined by _, "
                "such as GROQ_API_KEY); give the name, not the key"
            )
        url = urlsplit(self.base_url)
        if "@" in url.netloc or url.query:
            raise TeamtuneError(
                f"engine.openai.base_url holds a key, or a query; put the key into the environment, as {self.key_from}"
            )


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Which engine to open, and how. An option that the chosen kind does not read is an error."""

    kind: Literal["transformers", "vllm", "openai", "scripted"] = "transformers"
    rows: int = field(default=256, metadata=BESIDE)
    """most answers that are generated at once"""
    tokens: int = field(default=131_072, metadata=BESIDE)
    """transformers: most ids in a batch, prompts and answers at their longest together"""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: float32 on a CPU, bfloat16 on a GPU"""
    script: str = ""
    """scripted: "module:function", called with (ask, seed)"""
    vllm: Vllm = Vllm()
    openai: Openai = Openai()

    def __post_init__(self) -> None:
        for name in ("rows", "tokens"):
            if getattr(self, name) < 1:
                raise TeamtuneError(f"engine.{name} is {getattr(self, name)}; it must be 1 or above")
        unread = {one.name for one in fields(self)} - {*READ[self.kind]}
        refuse_unread(self, dict.fromkeys(unread, f"engine.kind {self.kind}"), "engine.{}")

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """The seats whose weights are a server's own."""
        return tuple(told.partition("=")[0] for told in self.openai.names)


READ = {
    "transformers": ("kind", "rows", "tokens", "dtype"),
    "vllm": ("kind", "rows", "dtype", "vllm"),
    "openai": ("kind", "openai"),
    "scripted": ("kind", "script"),
}
"""The options that each kind of engine reads."""


def check_seats(spec: EngineSpec, seats: Sequence[str]) -> None:
    """Raises TeamtuneError where the server's names are for a seat that is not there, or the variable of its key is not
    set: before a run folder is made, in which options and command are kept."""
    for seat in spec.elsewhere:
        if seat not in seats:
            raise TeamtuneError(f"engine.openai.names has a name for {seat!r}, and seats are {', '.join(seats)}")
    check_key(spec.openai)


def check_key(options: Openai) -> None:
    """Raises TeamtuneError where the variable that a key is to come from is not set."""
    named = options.key_from
    if "key_from" in given(options) and not os.environ.get(named):
        raise TeamtuneError(f"{named} is not set in the environment; export it, or leave engine.openai.key_from out")


def check_trained(spec: EngineSpec, seats: Sequence[str]) -> None:
    """Raises TeamtuneError where seats are to be trained and their server could not answer with what they learned."""
    nameless = [seat for seat in seats if seat not in spec.elsewhere]
    if spec.kind == "openai" and nameless and not spec.openai.load_adapters:
        raise TeamtuneError(
            f"the server has no adapters of {', '.join(nameless)}, which are to be trained; give "
            "--engine.openai.load-adapters for a vLLM server, or --rows-only, and train on them by --turns-from"
        )


def check_ppo(spec: EngineSpec, policies: Sequence[str] = ()) -> None:
    """Raises TeamtuneError where policies cannot be sampled as PPO needs it: by ids, with log-probabilities, and from
    adapters that change with every update."""
    server = spec.openai
    if spec.kind == "scripted":
        raise TeamtuneError("engine.kind scripted samples from no model; PPO needs transformers, vllm or openai")
    if spec.kind == "openai" and not (server.load_adapters and server.ids and server.logprobs):
        raise TeamtuneError(
            "PPO learns from the very ids that were sampled, and the server must load every update's adapters; give "
            "--engine.openai.load-adapters --engine.openai.ids --engine.openai.logprobs and a vLLM server"
        )
    fixed = {*spec.elsewhere} & {*policies}
    if fixed:
        raise TeamtuneError(
            f"engine.openai.names gives {', '.join(sorted(fixed))} weights at the server, and they are to be trained; "
            "leave the names out"
        )
