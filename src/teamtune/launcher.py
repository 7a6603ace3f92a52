"""Whether a launcher (`accelerate launch`, `torchrun`) started this process as one of several, and what it asks for."""

from __future__ import annotations

import os

from teamtune.types import TeamtuneError

SHARDS = "one frozen base is spread over processes by --lora.shard"
IGNORED = {
    "ACCELERATE_USE_FSDP": ("true", "FSDP", SHARDS),
    "ACCELERATE_USE_DEEPSPEED": ("true", "DeepSpeed", SHARDS),
    "ACCELERATE_USE_MEGATRON_LM": ("true", "Megatron-LM", SHARDS),
    "ACCELERATE_MIXED_PRECISION": ("fp16", "float16", "a fit has --sft.precision and the like"),
}
"""What a launcher leaves in the environment: the value that asks for something, what it is, what there is instead."""


def several() -> bool:
    """Whether this is one of several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def follows() -> bool:
    """Whether this is one of several processes and not the first, which alone writes: the others wait for its stages,
    and take part where all train."""
    return several() and int(os.environ.get("RANK", "0")) > 0


def check_launcher() -> None:
    """Raises TeamtuneError where a launcher's configuration asks for what no fit here would do."""
    for name, (value, what, instead) in IGNORED.items():
        if os.environ.get(name, "").lower() == value:
            raise TeamtuneError(f"the launcher asks for {what}, which Teamtune does not use; leave it out: {instead}")
    steps = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if steps not in ("1", "auto"):
        raise TeamtuneError(
            f"the launcher asks for {steps} gradient accumulation steps, which Teamtune does not use; leave it out: "
            "--sft.batch is the rows of a step, and --sft.micro-tokens what is computed at once"
        )
