"""Whether a launcher (`accelerate launch`, `torchrun`) started this process as one of several, and what it asks for."""

from __future__ import annotations

import os

from teamtune.types import TeamtuneError

SHARDS = "one frozen base is spread over processes by --lora.shard"
OFF = ("", "false", "0", "no")
ALLOWED = {
    "ACCELERATE_USE_FSDP": (OFF, "FSDP", SHARDS),
    "ACCELERATE_USE_DEEPSPEED": (OFF, "DeepSpeed", SHARDS),
    "ACCELERATE_USE_MEGATRON_LM": (OFF, "Megatron-LM", SHARDS),
    "ACCELERATE_USE_PARALLELISM_CONFIG": (OFF, "parallelism of its own", SHARDS),
    "ACCELERATE_MIXED_PRECISION": (("", "no", "bf16"), "mixed precision {}", "a fit has --sft.precision and the like"),
    "ACCELERATE_DYNAMO_BACKEND": (("", "no"), "compiling by {}", "no fit compiles its model"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": (
        ("", "1", "auto"),
        "{} gradient accumulation steps",
        "--sft.batch is the rows of a step, and --sft.micro-tokens what is computed at once",
    ),
}
"""What a launcher leaves in the environment: values that ask for nothing, or for what is done anyhow (bfloat16, where a
device has it); what any other one asks for; and what there is instead."""


def several() -> bool:
    """Whether this is one of several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def follows() -> bool:
    """Whether this is one of several processes and not the first, which alone writes: the others wait for its stages,
    and take part where all train."""
    return several() and int(os.environ.get("RANK", "0")) > 0


def check_launcher() -> None:
    """Raises TeamtuneError where a launcher's configuration asks for what no fit here would do."""
    for name, (allowed, what, instead) in ALLOWED.items():
        value = os.environ.get(name, "")
        if value.lower() not in allowed:
            asked = what.format(value)
            raise TeamtuneError(f"the launcher asks for {asked}, which Teamtune does not use; leave it out: {instead}")
