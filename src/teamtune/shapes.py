"""What decides a model's needs, from its configuration alone: no weights are read.

shape = shape_of("meta-llama/Llama-3.1-8B-Instruct", Lora())
shape.parameters                      # 8_030_261_248, and shape.adapter: what one agent adds

Numbers of parameters are exact: the model is built without storage.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from teamtune.train.team import Lora
from teamtune.types import TeamtuneError

KNOWN = Path(__file__).parent / "recipes" / "shapes.json"
"""configurations of models, as far as memory and time go by them; of Phi-3 128k the context is its first length, which
is all that it reads in one way (models.context_of)"""


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides a model's needs."""

    name: str
    parameters: int
    """of a base; where there are several, their mean, as all that follows"""
    embedding: int
    """of them in embeddings and the output layer, which may be the same"""
    adapter: int
    """that an agent's adapter adds"""
    width: int
    inner: int
    layers: int
    cache: int
    """numbers a token leaves in the cache of keys and values, all layers together"""
    vocabulary: int
    context: int
    """ids that it reads in one way (models.context_of)"""
    bases: int = 1
    """that are held at once"""


def shape_of_all(names: Sequence[str], lora: Lora = Lora()) -> Shape:
    """The shape of a team's bases, all of which are in memory: means, but the smallest context."""
    shapes = [shape_of(name, lora) for name in dict.fromkeys(names)]
    if len(shapes) == 1:
        return shapes[0]
    counted = [one.name for one in fields(Shape) if one.name not in ("name", "context", "bases")]
    means = {name: round(sum(getattr(one, name) for one in shapes) / len(shapes)) for name in counted}
    told, context = " and ".join(one.name for one in shapes), min(one.context for one in shapes)
    return Shape(name=told, context=context, bases=len(shapes), **means)


def shape_of(name: str, lora: Lora = Lora()) -> Shape:
    """The shape of a model here, on the hub, or among those whose configurations are known without one.

    Raises TeamtuneError where there is none, or it has no such LoRA target.
    """
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from teamtune.models import check_targets, context_of

    config = config_of(name)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
        count, text = model.num_parameters(), config.get_text_config()
        ends = {
            id(w): w.numel()
            for part in (model.get_input_embeddings(), model.get_output_embeddings())
            if (w := part.weight) is not None
        }
        check_targets(name, model, lora.targets)
        peft = get_peft_model(model, lora.config(model))
    adapter = sum(p.numel() for n, p in peft.named_parameters() if "lora_" in n)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    layers, inner = text.num_hidden_layers, getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    sizes = (text.hidden_size, inner, layers, 2 * layers * heads * head, text.vocab_size)
    return Shape(name, count, sum(ends.values()), adapter, *sizes, context_of(config))


def config_of(name: str) -> Any:
    """A model's configuration: from its folder, the hub, or what is known of it."""
    from transformers import AutoConfig

    from teamtune.models import cached_only, model_path

    known = json.loads(KNOWN.read_text())
    if name in known and not Path(name).exists():
        return AutoConfig.for_model(**known[name])
    path = model_path(name)
    cached = cached_only(path)
    try:
        return AutoConfig.from_pretrained(path, local_files_only=cached)
    except (OSError, ValueError) as error:
        reason = "the hub does not answer and no copy is cached" if cached else " ".join(str(error).split())[:200]
        raise TeamtuneError(f"no shape of {name!r}: {reason}; give a folder, or one of {', '.join(known)}") from error
