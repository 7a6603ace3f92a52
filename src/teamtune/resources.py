"""How much memory and time a team's work takes, from its model's shape (`teamtune.shapes`) alone.

shape = shape_of("meta-llama/Llama-3.1-8B-Instruct", Lora())
training_memory(shape, agents=3, fit=Fit(checkpoint=True), lora=Lora())     # {"weights": 16.06, "adapters": ...} GB

Memory and time are estimates; what they rest on stands beside each, and `teamtune plan DIR` holds them against a run
that is finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from teamtune.engines.spec import EngineSpec
from teamtune.shapes import Shape
from teamtune.train.fit import Fit
from teamtune.train.packing import micro_tokens
from teamtune.train.team import MOST_LOGITS, Lora

GB = 1e9
ACTIVATION = 14
"""bytes a token, a layer, and a unit of its width and inner width that training in bfloat16 keeps for the way back,
with adapters on all linear layers (bench/fit.py --memory: 0.9 GB at width 512, inner 1,536, 8 layers, 4,096 ids); twice
as many in float32"""
CPU_CACHE = 1.0
"""GiB of keys and values that vLLM keeps on a CPU unless it is told (engines/vllm.py)"""
OVERHEAD = 1.5
"""GB of a GPU for its context, the allocator's waste, and what the libraries keep"""
PROCESS = 0.6
"""GB of a process on a CPU without its model: what stages take that load none (docs/log.md, "A plan beside its run")"""


class Device(NamedTuple):
    """What a part of the work runs on."""

    name: str
    gb: float
    low: float
    """operations a second in matrix products of bfloat16"""
    wide: float
    """the same in float32"""
    moved: float
    """bytes a second of its memory"""
    on_cpu: bool = False
    """where a base is in float32, and memory the process's"""

    def operations(self, size: int) -> float:
        """A second, in numbers of so many bytes."""
        return self.wide if size == 4 else self.low

    def holds(self, gb: float, share: float = 1.0) -> bool:
        """Whether so much has room, in a share of the memory. What a process on a CPU takes besides is in its needs."""
        return gb + (0.0 if self.on_cpu else OVERHEAD) <= self.gb * share


DEVICES = (
    Device("24 GB (RTX 4090)", 24, 165e12, 83e12, 1.0e12),
    Device("48 GB (L40S)", 48, 362e12, 92e12, 0.86e12),
    Device("80 GB (H100)", 80, 989e12, 67e12, 3.35e12),
    Device("141 GB (H200)", 141, 989e12, 67e12, 4.8e12),
)
"""as their makers give them; `machine.here` measures the one that is here"""
TRAINS, READS, WRITES = 0.3, 0.4, 0.5
"""shares of a device's peak that we reckon with: of its operations in training and in reading prompts, and of its
memory's speed in writing answers"""
SPREAD = 8
"""processes that a plan spreads a base over"""


def numbers(dtype: str, on_cpu: bool) -> int:
    """Bytes of a number of the base: by itself float32 on a CPU and bfloat16 on a GPU."""
    return 4 if dtype == "float32" or (dtype == "auto" and on_cpu) else 2


def computed(fit: Fit, on_cpu: bool) -> int:
    """Bytes of a number that a fit computes in: bfloat16 where a device has it."""
    from teamtune.models import device, native_bfloat16

    wide = fit.precision == "auto" and on_cpu and not native_bfloat16(device())
    return 4 if fit.precision == "float32" or wide else 2


def weights(shape: Shape, bits: int = 16, size: int = 2, processes: int = 1) -> float:
    """GB of a base, of so many bytes a number. In 4 bits embeddings stay whole, and scales take a sixteenth of the
    rest. Spread over several processes each has its part of the layers, and two of them whole: one is computed with
    while the next one comes."""
    if processes > 1:
        layers = (shape.parameters - shape.embedding) * (1 / processes + 2 / shape.layers)
        return (shape.embedding + layers) * size / GB
    if bits == 16:
        return shape.parameters * size / GB
    return (shape.embedding * 2 + (shape.parameters - shape.embedding) * (0.5 + 1 / 32)) / GB


def training_memory(
    shape: Shape,
    agents: int,
    fit: Fit,
    lora: Lora,
    on_cpu: bool = False,
    spread: int = SPREAD,
    dtype: str = "auto",
) -> dict[str, float]:
    """GB of a joint fit: the base once, for each agent its adapter, gradients and AdamW's two moments in float32, what
    one micro-batch keeps for the way back, and some tokens' logits with their gradients.

    spread: processes that a sharded base is spread over. dtype: of the base, as engine.dtype has it.
    """
    tokens, size = fit.micro_tokens or micro_tokens(on_cpu, fit.checkpoint), numbers(dtype, on_cpu)
    layer = tokens * ACTIVATION * (shape.width + shape.inner) * computed(fit, on_cpu) // 2
    kept = tokens * shape.layers * shape.width * size + layer if fit.checkpoint else shape.layers * layer
    logits = 3 * 4 * min(tokens * shape.vocabulary, MOST_LOGITS)
    return {
        "weights": shape.bases * weights(shape, lora.bits, size, spread if lora.shard else 1),
        "adapters": agents * shape.adapter * 16 / GB,
        "activations": kept / GB,
        "logits": logits / GB,
        **({"process": PROCESS} if on_cpu else {}),
    }


def generation_memory(
    shape: Shape, adapters: int, spec: EngineSpec, longest: int, on_cpu: bool = False, bits: int = 16
) -> dict[str, float]:
    """GB of an engine on each of its devices: the base, its adapters, and keys and values: of a full batch of the
    embedded engine; of the one longest text that vLLM must have room for, more of which it fills with others, or what
    it is told to keep.

    longest: ids of a prompt and its answer. bits: of the base where it is trained, and in the embedded engine.
    """
    size, cached = numbers(spec.dtype, on_cpu), min(spec.rows * min(longest, shape.context), spec.tokens)
    if spec.kind == "vllm":
        cached = spec.vllm.context or shape.context
    cache = cached * shape.cache * size / GB / side_by_side(spec)
    return {
        "weights": shape.bases * weights(shape, held_bits(spec, bits), size) / side_by_side(spec),
        "adapters": adapters * shape.adapter * (2 if spec.kind == "vllm" else 4) / GB,
        "cache": shape.bases * max(cache, kept_cache(spec, on_cpu)),
        **({"process": PROCESS} if on_cpu else {}),
    }


def kept_cache(spec: EngineSpec, on_cpu: bool) -> float:
    """GB of keys and values that vLLM keeps by a number of its own; 0 where it fills its share of the memory."""
    if spec.kind != "vllm":
        return 0.0
    return (spec.vllm.cache_gb or (CPU_CACHE if on_cpu else 0.0)) * 2**30 / GB


def share_of(spec: EngineSpec, on_cpu: bool) -> float:
    """The share of a device's memory that an engine is held to."""
    return spec.vllm.memory if spec.kind == "vllm" and not kept_cache(spec, on_cpu) else 1.0


def side_by_side(spec: EngineSpec) -> int:
    """Devices that an engine spreads weights and cache over."""
    return spec.vllm.tensor_parallel if spec.kind == "vllm" else 1


def held_bits(spec: EngineSpec, bits: int) -> int:
    """Of the base's weights in an engine; `bits` where it is trained, and in the embedded engine."""
    return bits if spec.kind == "transformers" else 16


def at_once(shape: Shape, adapters: int, spec: EngineSpec, longest: int, device: Device, bits: int = 16) -> int:
    """Answers that are written at once on a device, by the engine's bounds and what has room; 0 where
    there is none."""
    size, devices = numbers(spec.dtype, device.on_cpu), side_by_side(spec)
    room = device.gb * share_of(spec, device.on_cpu) - (PROCESS if device.on_cpu else OVERHEAD)
    room -= shape.bases * weights(shape, held_bits(spec, bits), size) / devices + adapters * shape.adapter * 4 / GB
    kept = kept_cache(spec, device.on_cpu)
    if kept and kept * devices < (spec.vllm.context or shape.context) * shape.cache * size / GB:
        return 0  # vLLM does not open where one longest text has no room
    room = min(room / shape.bases, kept or room)
    most = int(room * GB / (min(longest, shape.context) * shape.cache * size / devices))
    return max(
        0, min(spec.rows, most, *([spec.tokens // min(longest, shape.context)] if spec.kind == "transformers" else []))
    )


@dataclass(frozen=True, slots=True)
class Work:
    """What a recipe does, in tokens."""

    answers: int
    """generations"""
    read: int
    """ids of prompts, each as often as it is read"""
    written: int
    """ids of answers"""
    forward: int = 0
    """ids that pass a model once, without a way back: references, values, scores"""


def seconds(
    shape: Shape,
    work: Work,
    device: Device,
    fits: Sequence[tuple[Fit, int]],
    rows: int,
    spec: EngineSpec = EngineSpec(),
    bits: int = 16,
) -> dict[str, float]:
    """Estimated seconds on a device: operations over what it does of its peak, and for writing the bytes of the weights
    and of a batch's keys and values, read once for every token of a batch of `rows`. Where `rows` is 0 nothing is
    generated there.

    fits: each with the ids that it trains on: forward, back to the activations, and forward again with checkpoint.
    spec: what generates; what its devices tell each other is not reckoned. bits: of the base where it is trained.
    """
    once, on_cpu = 2 * shape.parameters, device.on_cpu
    speed = lambda fit: device.operations(computed(fit, on_cpu)) * TRAINS  # noqa: E731
    found = {"training": sum(ids * (3 if fit.checkpoint else 2) * once / speed(fit) for fit, ids in fits)}
    if fits:
        found["training"] += work.forward * once / speed(fits[0][0])
    if rows:
        size = numbers(spec.dtype, on_cpu)
        reads = device.operations(size) * READS
        seen = (work.read + work.written / 2) / max(1, work.answers)
        moved = weights(shape, held_bits(spec, bits), size) * GB + rows * seen * shape.cache * size
        step = max(moved / (device.moved * WRITES), once * rows / reads)
        parts = {"reading": work.read * once / reads, "writing": work.written / rows * step}
        found |= {part: spent / side_by_side(spec) for part, spent in parts.items()}
    return found
