"""Open a base model: the house model, a folder or a hub name, all through the same path."""

from __future__ import annotations

import atexit
import hashlib
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from teamtune.four_bits import check_four_bits, four_bits, keep_layout
from teamtune.launcher import several
from teamtune.types import TeamtuneError

PIECE = 65_536  # bytes
HOUSE = Path(__file__).parent / "house" / "model"


def state() -> Any:
    """What accelerate knows of this process: its device, and its place among those that a launcher started.

    The first call meets the other processes, so that all must make it.
    """
    from accelerate import PartialState

    found = PartialState(cpu=several() and not torch.cuda.is_available())
    if several():
        _leave_at_exit()
    return found


@cache
def _leave_at_exit() -> None:
    """Leave the other processes before the interpreter ends: threads that still wait for them then may abort it, with
    all its work done."""
    from accelerate import PartialState

    atexit.register(PartialState().destroy_process_group)


def device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    found = state().device
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


def cached_only(path: str) -> bool:
    """Whether a model can come from the hub's cache alone: it is no folder here, and the hub does not answer."""
    return not Path(path).exists() and not hub_answers()


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


def at_hand(name: str) -> bool:
    """Whether a name is a model here or on the hub, as far as its form tells."""
    return name == "house" or Path(name).expanduser().exists() or name.count("/") == 1


def identity(name: str) -> str:
    """Tells the base's weights apart from others at the same place: a hub's commit, or a folder's fingerprint.

    Raises TeamtuneError where the base cannot be had or has no chat template, before anything is done with it.
    """
    from transformers import AutoConfig, AutoTokenizer

    from teamtune.engines.render import Renderer

    path = model_path(name)
    try:
        cached = cached_only(path)
        Renderer(AutoTokenizer.from_pretrained(path, local_files_only=cached), name)
        config = AutoConfig.from_pretrained(path, local_files_only=cached)
    except TeamtuneError:
        raise
    except (OSError, ValueError) as error:
        raise _explained(name, path, error) from error
    return fingerprint(Path(path)) if Path(path).exists() else str(config._commit_hash)


def fingerprint(folder: Path) -> str:
    """A hash of the folder's model files: names, sizes, and 64 pieces of each, so that large ones take no time.

    Raises TeamtuneError where there are no safetensors.
    """
    files = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".json", ".jinja"))
    if not any(file.suffix == ".safetensors" for file in files):
        raise TeamtuneError(f"{str(folder)!r} holds no safetensors weights, and nothing else is read")
    found = hashlib.sha256()
    for file in files:
        if file.suffix == ".safetensors":
            check_weights(file)
        size = file.stat().st_size
        found.update(f"{file.name} {size} ".encode())
        with file.open("rb") as opened:
            for piece in range(64 if size > 64 * PIECE else 1):
                opened.seek(piece * (size - PIECE) // 63 if piece else 0)
                found.update(opened.read(PIECE if size > 64 * PIECE else -1))
    return found.hexdigest()[:16]


def check_weights(file: Path) -> None:
    """Raises TeamtuneError where a safetensors file is cut short or none at all; reads its head alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise TeamtuneError(f"{str(file)!r} holds no weights ({' '.join(str(error).split())}); get it again") from error


def check_shard() -> None:
    """Raises TeamtuneError where a base is to be spread over a single process."""
    if not several():
        raise TeamtuneError("lora.shard has no use in one process; begin with `accelerate launch`, or leave it out")


def check_lora(name: str, targets: str, shard: bool, bits: int) -> None:
    """Raises TeamtuneError where the model has no module of one of the LoRA targets, which it is built for without
    weights, or only its output layer, cannot be had in so many bits, and where its weights are to be spread over a
    single process."""
    from transformers import AutoModelForCausalLM

    if shard:
        check_shard()
    if targets == "all-linear" and bits == 16:
        return
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(open_config(name))
    if bits == 4:
        check_four_bits(model, device())
    check_targets(name, model, targets)


def beside_text(model: Any) -> str | None:
    """A pattern of the modules beside a model's text decoder; None where there are none but the output layer.
    Adapters of what sees or hears would learn nothing from texts."""
    text, output = model.get_decoder(), model.get_output_embeddings()
    inside = {id(part) for part in (*text.modules(), output)}
    if all(id(part) in inside for part in model.modules() if isinstance(part, torch.nn.Linear)):
        return None
    name = next(name for name, part in model.named_modules() if part is text)
    return rf"(?!{re.escape(name)}\.).*"


def check_targets(name: str, model: Any, targets: str) -> None:
    """Raises TeamtuneError where a model has no module of one of the LoRA targets, or only its output layer."""
    if targets == "all-linear":
        return
    linear = {
        path.rpartition(".")[2]: part for path, part in model.named_modules() if isinstance(part, torch.nn.Linear)
    }
    output = next((last for last, part in linear.items() if part is model.get_output_embeddings()), "")
    there = ", ".join(sorted(linear.keys() - {output}))
    lasts = {target: target.rpartition(".")[2] for target in targets.split(",")}
    if unknown := [target for target, last in lasts.items() if last not in linear]:
        raise TeamtuneError(f"model {name!r} has no LoRA target {unknown[0]!r}; it has {there}")
    if output in lasts.values():
        told = f"LoRA target {output!r} of model {name!r} is the output layer, whose logits all agents share"
        raise TeamtuneError(f"{told}; it has {there}")


def context_of(config: Any) -> int:
    """Ids that a model reads in one way.

    A longrope model (Phi-3 128k) turns the positions of a text by other factors once one lies beyond its first length:
    in transformers those of the whole batch then, in a vLLM that is opened for more those of all texts, short ones too.
    """
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    kinds = [rope, *(one for one in rope.values() if isinstance(one, dict))]
    first = [one["original_max_position_embeddings"] for one in kinds if one.get("rope_type") == "longrope"]
    return min([getattr(text, "max_position_embeddings", None) or 1 << 30, *first])


def open_config(name: str) -> Any:
    """The model's configuration."""
    from transformers import AutoConfig

    path = model_path(name)
    try:
        return AutoConfig.from_pretrained(path, local_files_only=cached_only(path))
    except (OSError, ValueError) as error:
        raise _explained(name, path, error) from error


def open_tokenizer(name: str) -> Any:
    """The model's tokenizer. Without a hub there may still be a copy in its cache."""
    from transformers import AutoTokenizer

    path = model_path(name)
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=cached_only(path))
    except (OSError, ValueError) as error:
        raise _explained(name, path, error) from error


def listed_stops(path: str) -> int | list[int] | None:
    """The ids that end a text, as the generation config lists them, or else the model's."""
    from transformers import AutoConfig, GenerationConfig

    cached = cached_only(path)
    try:
        return GenerationConfig.from_pretrained(path, local_files_only=cached).eos_token_id  # type: ignore[return-value]
    except OSError:
        return AutoConfig.from_pretrained(path, local_files_only=cached).eos_token_id


def load_model(name: str, dtype: str = "auto", bits: int = 16, moved: bool = True) -> tuple[Any, Any]:
    """The model, in evaluation mode on this machine's device, and its tokenizer. moved False: it waits beside it.

    `dtype` "auto" is float32 on a CPU and bfloat16 on a GPU; `bits` 4 keeps the linear layers' weights in NF4. Raises
    TeamtuneError where the model cannot be had.
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
        cached = cached_only(path)
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=cached)
        with told_when_full(f"model {name!r} on {where}", "take a smaller one or --engine.dtype bfloat16"):
            given: dict[str, Any] = {"dtype": getattr(torch, dtype), "local_files_only": cached}
            given |= {"quantization_config": four_bits(given["dtype"]), "device_map": {"": where}} if bits == 4 else {}
            model: Any = AutoModelForCausalLM.from_pretrained(path, use_safetensors=True, **given)
            if bits == 4:
                check_four_bits(model, where)
                keep_layout(model)
            return (model.to(where) if moved and bits != 4 else model).eval(), tokenizer
    except TeamtuneError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        raise _explained(name, path, error) from error


@contextmanager
def told_when_full(what: str, mend: str) -> Iterator[None]:
    """Running out of memory inside becomes a sentence that says what was too large and how to mend it."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        full = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
        if not full:
            raise
        raise TeamtuneError(f"not enough memory for {what}; {mend}") from error


def _explained(name: str, path: str, error: Exception) -> TeamtuneError:
    reason = " ".join(str(error).split())[:300]
    if Path(path).exists():
        return TeamtuneError(f"{name!r} is no transformers model folder with safetensors weights: {reason}")
    if "not a valid model identifier" in reason or "404" in reason:
        return TeamtuneError(f"no model {name!r} on the hub; check the name, or log in for a gated model: {reason}")
    return TeamtuneError(
        f"model {name!r} cannot be fetched: the hub is unreachable and no copy is cached; give a local folder: {reason}"
    )
