"""Open a base model: the house model, a folder or a hub name, all through the same path."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import torch

from teamtune.types import TeamtuneError

HOUSE = Path(__file__).parent / "house" / "model"


def device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    from accelerate import PartialState

    found = PartialState().device
    return found if found is not None else torch.device("cpu")


def hub_answers() -> bool:
    """Whether the model hub is there. Asking once is quicker than the client's retries for each of a model's files."""
    from huggingface_hub import constants

    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=10).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def native_bfloat16(where: torch.device) -> bool:
    """Whether the device has bfloat16 arithmetic of its own; a CPU without it is slower in it than in float32."""
    if where.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return where.type == "cpu" and bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def model_path(name: str) -> str:
    """Where the model is: "house" is the one that ships with the package."""
    if name == "house":
        if not HOUSE.exists():
            raise TeamtuneError("the house model is not in this installation; python -m teamtune.house build makes it")
        return str(HOUSE)
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") != 1
    path = Path(name).expanduser()
    if path.exists() or not looks_like_path:
        return str(path) if path.exists() else name
    raise TeamtuneError(f"no model at {name!r}; give a folder that exists, a hub name such as org/model, or house")


def load_model(name: str, dtype: str = "auto") -> tuple[Any, Any]:
    """The model, in evaluation mode on this machine's device, and its tokenizer.

    `dtype` "auto" is float32 on a CPU and bfloat16 on a GPU. Raises TeamtuneError where the model cannot be had.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    path = model_path(name)
    where = device()
    if dtype == "auto":
        dtype = "float32" if where.type == "cpu" else "bfloat16"
    try:
        # Without a hub there may still be a copy in its cache.
        cached = not Path(path).exists() and not hub_answers()
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=cached)
        model: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=getattr(torch, dtype), use_safetensors=True, local_files_only=cached
        )
        return model.to(where).eval(), tokenizer
    except (OSError, ValueError, SafetensorError) as error:
        raise _explained(name, path, error) from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise TeamtuneError(
            f"not enough memory for model {name!r} on {where}; take a smaller one or bfloat16"
        ) from error
    except RuntimeError as error:
        if "allocate memory" in str(error):
            raise TeamtuneError(f"not enough memory for model {name!r} on {where}; take a smaller one") from error
        raise


def _explained(name: str, path: str, error: Exception) -> TeamtuneError:
    reason = " ".join(str(error).split())[:300]
    if Path(path).exists():
        return TeamtuneError(f"{name!r} is no transformers model folder with safetensors weights: {reason}")
    if "not a valid model identifier" in reason or "404" in reason:
        return TeamtuneError(f"no model {name!r} on the hub; check the name, or log in for a gated model: {reason}")
    return TeamtuneError(
        f"model {name!r} cannot be fetched: the hub is unreachable and no copy is cached; give a local folder: {reason}"
    )
