"""A frozen base that no device holds by itself: every process keeps a part of each layer, and all of them fetch a layer
when they come to it (PyTorch's FSDP2). Adapters, embeddings and the output layer stay whole with every process.
"""

from __future__ import annotations

from typing import Any

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers.modeling_layers import GradientCheckpointingLayer

from teamtune.models import check_shard, device
from teamtune.train import processes
from teamtune.types import TeamtuneError


def shard(model: Any) -> None:
    """Spread the layers of a PEFT model over all processes, in place. From then on all of them must run it together.

    Raises TeamtuneError where there is a single process, or a model without layers to tell apart.
    """
    check_shard()
    layers = [one for one in model.modules() if isinstance(one, GradientCheckpointingLayer)]
    if not layers:
        raise TeamtuneError("this model has no layers that can be spread over processes; leave lora.shard out")
    where = device()
    spread = {id(p) for layer in layers for name, p in layer.named_parameters() if "lora_" not in name}
    whole = {parameter for parameter in model.parameters() if id(parameter) not in spread}
    for parameter in whole:
        parameter.data = parameter.data.to(where)
    mesh = init_device_mesh(where.type, (processes.count(),))
    for module in (*layers, model):
        fully_shard(module, mesh=mesh, ignored_params=whole, reshard_after_forward=True)
