"""What vLLM is opened with; no vLLM is needed to see that every option arrives."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoConfig

from teamtune.engines.spec import EngineSpec, Vllm
from teamtune.engines.vllm import VllmEngine, arguments, context_within, lora_arguments
from teamtune.given import given
from teamtune.identity import canonical
from teamtune.models import context_of
from teamtune.types import Agent, Team, TeamtuneError


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        (Vllm(tensor_parallel=4), "tensor_parallel_size", 4),
        (Vllm(memory=0.4), "gpu_memory_utilization", 0.4),
        (Vllm(cache_gb=2), "kv_cache_memory_bytes", 2 * 2**30),
        (Vllm(context=4096), "max_model_len", 4096),
        (Vllm(block=32), "block_size", 32),
        (Vllm(step_tokens=4096), "max_num_batched_tokens", 4096),
        (Vllm(prefix_caching=False), "enable_prefix_caching", False),
        (Vllm(eager=True), "enforce_eager", True),
    ],
)
def test_every_option_arrives_under_vllms_name(options: Vllm, name: str, value: Any) -> None:
    plain = arguments("model", Vllm(), 256, "auto", on_cpu=False)
    given = arguments("model", options, 256, "auto", on_cpu=False)
    assert given[name] == value != plain.get(name)
    assert {**given, name: None} == {**plain, name: None}, "and nothing else changes"


def test_rows_precision_and_adapters_arrive() -> None:
    given = arguments("model", Vllm(), 17, "float32", on_cpu=False)
    assert (given["model"], given["max_num_seqs"], given["dtype"]) == ("model", 17, "float32")
    assert arguments("model", Vllm(), 17, "auto", on_cpu=False)["dtype"] == "bfloat16"
    assert lora_arguments(0, 4) == {}
    assert lora_arguments(24, 4) == {"enable_lora": True, "max_lora_rank": 32, "max_loras": 4, "max_cpu_loras": 8}
    with pytest.raises(TeamtuneError, match="rank 600 and vLLM takes 512 at most"):
        lora_arguments(600, 1)


def longrope(first: int = 64, longest: int = 1024) -> Any:
    factors = {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [8.0] * 4}
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 4}
    lengths = {"original_max_position_embeddings": first, "max_position_embeddings": longest}
    return AutoConfig.for_model("phi3", **sizes, **lengths, rope_scaling=factors)


def test_a_longrope_model_is_opened_for_its_first_length_alone() -> None:
    """Opened for more, vLLM turns short texts by the factors of long ones, which training does not."""
    assert context_within(longrope(), 0) == context_within(longrope(), 64) == context_of(longrope()) == 64
    assert context_within(longrope(), 32) == 32
    with pytest.raises(TeamtuneError, match=r"vllm\.context is 128 and the model's first length 64"):
        context_within(longrope(), 128)


def test_other_models_keep_the_context_that_is_asked_for() -> None:
    llama = AutoConfig.for_model("llama", max_position_embeddings=512)
    assert context_of(llama) == 512
    assert [context_within(llama, asked) for asked in (0, 100, 4096)] == [0, 100, 4096], "vLLM itself refuses the last"


def test_a_share_of_memory_beside_a_cache_of_a_size_is_an_error() -> None:
    with pytest.raises(TeamtuneError, match=r"vllm\.memory has no use beside engine\.vllm\.cache_gb"):
        Vllm(memory=0.5, cache_gb=1)


@pytest.mark.parametrize("options", [Vllm(memory=0.5), Vllm(eager=True)])
def test_options_that_a_cpu_has_no_use_for_are_errors(
    monkeypatch: pytest.MonkeyPatch, tiny: str, options: Vllm
) -> None:
    platform = SimpleNamespace(current_platform=SimpleNamespace(is_cpu=lambda: True))
    monkeypatch.setattr("teamtune.engines.vllm.library", lambda name: platform)
    [name] = given(options)
    with pytest.raises(TeamtuneError, match=f"engine.vllm.{name} has no use with vLLM on a CPU"):
        VllmEngine(tiny, options).adopt(Team(tiny, (Agent("seat"),)))


def test_the_context_makes_a_run_another_one_and_the_rest_does_not() -> None:
    """A shorter context cuts answers off."""
    told = partial(canonical, base=Path())
    plain = EngineSpec("vllm")
    assert told(EngineSpec("vllm", vllm=Vllm(context=64))) != told(plain)
    assert told(EngineSpec("vllm", vllm=Vllm(memory=0.5, block=32, adapters=2))) == told(plain)


@pytest.mark.parametrize(("on_cpu", "use"), [(False, "LLM_CLASS"), (True, "ENGINE_CONTEXT")])
def test_on_a_gpu_steps_are_as_large_as_those_of_vllms_own_class(
    monkeypatch: pytest.MonkeyPatch, tiny: str, on_cpu: bool, use: str
) -> None:
    opened: list[Any] = []

    class LLMEngine:
        @staticmethod
        def from_engine_args(args: Any, usage_context: Any) -> Any:
            opened.append(usage_context)
            return SimpleNamespace(model_config=SimpleNamespace(max_model_len=64))

    modules = {
        "vllm": SimpleNamespace(LLMEngine=LLMEngine, EngineArgs=dict),
        "vllm.platforms": SimpleNamespace(current_platform=SimpleNamespace(is_cpu=lambda: on_cpu)),
        "vllm.usage.usage_lib": SimpleNamespace(
            UsageContext=SimpleNamespace(LLM_CLASS="LLM_CLASS", ENGINE_CONTEXT="ENGINE_CONTEXT")
        ),
    }
    monkeypatch.setattr("teamtune.engines.vllm.library", modules.__getitem__)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "")
    VllmEngine(tiny).adopt(Team(tiny, (Agent("seat"),)))
    assert opened == [use]
