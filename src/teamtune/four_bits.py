"""A frozen base in 4 bits (NF4, Dettmers et al. 2023), by bitsandbytes."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch

from teamtune.types import TeamtuneError

LOST = 0.03
"""share of random weights' variance that may be lost on the way to 4 bits and back; it is 0.0085 where all is well"""


def four_bits(dtype: torch.dtype) -> Any:
    """NF4 with double quantisation, as QLoRA has it; computed with in `dtype`."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def check_four_bits(model: torch.nn.Module, where: torch.device) -> None:
    """Raises TeamtuneError where bitsandbytes is missing, or loses the model's weights on this device.

    On a CPU bitsandbytes 0.50.2 mixes up the scales of layers whose width is no multiple of 64.
    """
    if find_spec("bitsandbytes") is None:
        raise TeamtuneError("a base in 4 bits needs bitsandbytes; pip install 'teamtune[qlora]', or take lora.bits 16")
    for width in sorted(widths(model.modules())):
        if (share := lost(width, where)) > LOST:
            raise TeamtuneError(
                f"bitsandbytes {version('bitsandbytes')} loses {share:.0%} of weights of width {width} in 4 bits on "
                f"{where.type}, where 1 % is usual; take lora.bits 16, another version, or another device"
            )


def keep_layout(model: torch.nn.Module) -> None:
    """Hold bitsandbytes to the one layout of weights that it can go back through.

    On a CPU with AVX512-BF16 its layers change theirs at the first pass that needs no gradients (a reference, a proof,
    an answer), and from then on gradients stop at them.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def widths(modules: Iterable[torch.nn.Module]) -> set[int]:
    """The widths of linear layers' inputs."""
    return {one.in_features for one in modules if isinstance(one, torch.nn.Linear)}


def lost(width: int, where: torch.device) -> float:
    """The share of its variance that a random weight of this width loses in 4 bits."""
    from bitsandbytes import functional

    weight = torch.randn(64, width, generator=torch.Generator().manual_seed(0)).to(where)
    packed, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    return float((weight - functional.dequantize_4bit(packed, state)).square().mean() / weight.square().mean())
