"""One frozen base with an adapter per agent, all in memory at once.

model = TeamModel.open(team, ["generator", "verifier"], Lora(rank=16), seed=0)
logits = model(ids, ["generator", "verifier", "generator"])      # rows of different agents in one forward
model.save("verifier", folder)                                   # a LoRA folder in PEFT's layout

An agent may have a head, a number a token instead of a distribution: a scorer, or the values that PPO learns. It lies
beside the adapter, in head.safetensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from teamtune.adapters import attach, mixes
from teamtune.models import beside_text, load_model
from teamtune.train.heads import HEAD, HEAD_FILE, Head
from teamtune.train.sharding import shard
from teamtune.train.siblings import added, takes_siblings
from teamtune.types import BESIDE, Team, TeamtuneError


@dataclass(frozen=True, slots=True)
class Lora:
    """Shape of the adapters. MALT does not publish its own; these are ordinary values."""

    rank: int = 16
    alpha: int = 32
    targets: str = "all-linear"
    """all-linear, or names of modules with commas between: q_proj,v_proj"""
    rslora: bool = False
    """scale by alpha / sqrt(rank), so that a high rank learns no slower (Kalajdzievski 2023)"""
    bits: Literal[16, 4] = 16
    """of the frozen base's weights while adapters train; 4 is QLoRA (NF4, Dettmers et al. 2023)"""
    shard: bool = field(default=False, metadata=BESIDE)
    """spread the frozen base's weights over the processes that train, for one that no device holds (FSDP2); the first
    process still holds it whole where the engine is transformers, and in MAFT for the measure of likelihoods"""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise TeamtuneError(f"LoRA rank is {self.rank}; it must be 1 or above")
        if self.alpha < 1:
            raise TeamtuneError(f"LoRA alpha is {self.alpha}; it must be 1 or above, or nothing is learned")
        if not all(name.strip() for name in self.targets.split(",")):
            raise TeamtuneError(f"LoRA targets are {self.targets!r}; give all-linear, or names of modules with commas")
        if self.shard and self.bits == 4:
            raise TeamtuneError("lora.shard and lora.bits 4 do not go together; take one of them")

    def config(self, model: Any) -> LoraConfig:
        """PEFT's configuration, for a base without adapters."""
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=0.0,
            target_modules=self.targets if self.targets == "all-linear" else self.targets.split(","),
            exclude_modules=beside_text(model),
            use_rslora=self.rslora,
            task_type="CAUSAL_LM",
        )


MOST_LOGITS = 2**27
"""logits that are in memory at a time: half a gigabyte in float32"""


def projected(model: Any, states: Float[Tensor, "*tokens width"]) -> Float[Tensor, "*tokens vocabulary"]:
    """Logits of states, as the model's family makes them (Gemma 2 caps them, Cohere and Granite scale them)."""
    logits, config = model.get_output_embeddings()(states), model.config.get_text_config()
    logits = logits * (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if not cap else cap * torch.tanh(logits / cap)


@torch.no_grad()
def projects(model: Any) -> bool:
    """Whether `projected` gives the model's own logits, tried on four tokens."""
    ids = torch.arange(4, device=model.device)[None]
    out = model(input_ids=ids, use_cache=False, output_hidden_states=True)
    found = projected(model, out.hidden_states[-1])
    return found.shape == out.logits.shape and torch.allclose(found, out.logits, rtol=1e-2, atol=1e-2)


class TeamModel:
    """A PEFT model whose adapters are named after the agents. The base never trains."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        agents: Sequence[str],
        heads: Mapping[str, Head] | None = None,
        sharded: bool = False,
    ):
        self.sharded = sharded
        """the base is spread over all processes, which must run it together"""
        # PEFT mixes adapters in one batch in evaluation mode only; there is no dropout to miss.
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.agents = list(agents)
        self.heads = dict(heads or {})
        if isinstance(model.get_output_embeddings(), BaseTunerLayer):
            # Logits are made in pieces, apart from the rows whose agents' adapters they would go through.
            raise TeamtuneError("an adapter has the output layer among its targets, which agents share; leave it out")
        self.mixes = mixes(model, self.agents[0])
        self.projects = projects(model)
        self.takes_siblings = takes_siblings(model)
        self.chunk = max(1, MOST_LOGITS // model.config.get_text_config().vocab_size)
        """tokens whose logits are in memory at a time"""
        self._own: dict[str, list[torch.nn.Parameter]] = {agent: [] for agent in self.agents}
        for name, parameter in model.named_parameters():
            mine = [agent for agent in self.agents if f".{agent}." in name and "lora_" in name]
            parameter.requires_grad_(bool(mine))
            for agent in mine:
                self._own[agent].append(parameter)
        for agent, head in self.heads.items():
            self._own[agent] += head.parameters()

    @staticmethod
    def open(
        team: Team,
        agents: Sequence[str],
        lora: Lora,
        seed: int = 0,
        dtype: str = "auto",
        heads: Sequence[str] = (),
        hints: int = 0,
    ) -> TeamModel:
        """The team's base with one adapter an agent: the agent's own if it has one, else a new one.

        A new adapter's start depends on (seed, agent) alone, so it is the same whoever else is trained. Agents named
        in `heads` have a head, which starts at 0 and takes `hints`, where their adapter brings none along.
        """
        base, tokenizer = load_model(team.model, dtype, lora.bits, moved=not lora.shard)
        return TeamModel.around(base, tokenizer, team, agents, lora, seed, heads, hints)

    @staticmethod
    def around(
        base: Any,
        tokenizer: Any,
        team: Team,
        agents: Sequence[str],
        lora: Lora,
        seed: int = 0,
        heads: Sequence[str] = (),
        hints: int = 0,
    ) -> TeamModel:
        """`open` with a base that is in memory."""
        parts = {part for name, _ in base.named_parameters() for part in name.split(".")}
        if taken := sorted(parts.intersection(agents)):
            # PEFT finds an adapter's tensors by its name between dots.
            raise TeamtuneError(f"agent name {taken[0]!r} is that of a part of the model; take another")
        model: Any = None
        config = lora.config(base)
        for agent in agents:
            adapter = team[agent].adapter
            if adapter is not None:
                model = attach(base if model is None else model, adapter, agent, trainable=True)
                continue
            with torch.random.fork_rng():
                torch.manual_seed(int.from_bytes(hashlib.sha256(f"{seed}/{agent}".encode()).digest()[:6], "big"))
                if model is None:
                    model = get_peft_model(base, config, adapter_name=agent)
                else:
                    model.add_adapter(agent, config)
        if lora.shard:
            shard(model)
        width = model.config.get_text_config().hidden_size
        found = {agent: Head.open(team[agent].adapter, width, model.device, hints) for agent in heads}
        return TeamModel(model, tokenizer, agents, found, lora.shard)

    @property
    def device(self) -> torch.device:
        return self.model.device

    def __call__(
        self, ids: Int[Tensor, "rows length"], agents: Sequence[str]
    ) -> Float[Tensor, "rows length vocabulary"]:
        """Logits of right-padded rows, each through its own agent's adapter."""
        return self._run(ids, agents).logits

    def values(
        self,
        ids: Int[Tensor, "rows length"],
        agents: Sequence[str],
        hints: Float[Tensor, "rows length hints"] | None = None,
    ) -> Float[Tensor, "rows length"]:
        """The number that each row's agent gives every token, through its own adapter and head, all of one kind."""
        # The states that the logits are made of are what is asked for; one logit is the least that a model makes.
        states = self._run(ids, agents, output_hidden_states=True, logits_to_keep=1).hidden_states[-1]
        states = states if hints is None else torch.cat([states.float(), hints], dim=-1)
        weights = torch.stack([self.heads[agent].weight for agent in agents])
        biases = torch.stack([self.heads[agent].bias for agent in agents])
        with torch.autocast(self.device.type, enabled=False):
            return torch.einsum("rld,rd->rl", states.float(), weights) + biases[:, None]

    @torch.no_grad()
    def base(self, ids: Int[Tensor, "rows length"]) -> Float[Tensor, "rows length vocabulary"]:
        """Logits of the frozen base."""
        return self._run(ids, None).logits

    def states(
        self,
        ids: Int[Tensor, "rows length"],
        agents: Sequence[str] | None,
        sees: Bool[Tensor, "rows 1 length length"] | None = None,
        places: Int[Tensor, "rows length"] | None = None,
    ) -> Float[Tensor, "rows length width"]:
        """What `logits` makes the logits of every token from; agents None: of the frozen base.

        sees: which tokens (last axis) each token sees, with `places` for positions; None: all that are before it.
        """
        shown: dict[str, Any] = {}
        if sees is not None:
            where = self.device.type
            low = torch.get_autocast_dtype(where) if torch.is_autocast_enabled(where) else self.model.dtype
            shown = {"attention_mask": added(sees, low), "position_ids": places}
        if not self.projects:
            return self._run(ids, agents, **shown).logits
        return self._run(ids, agents, output_hidden_states=True, logits_to_keep=1, **shown).hidden_states[-1]

    def logits(self, states: Float[Tensor, "tokens width"]) -> Float[Tensor, "tokens vocabulary"]:
        """The logits of some tokens, so that those of all need never be in memory at once."""
        return projected(self.model, states) if self.projects else states

    def _run(self, ids: Tensor, agents: Sequence[str] | None, **asked: Any) -> Any:
        if agents is None:
            with self.model.disable_adapter():
                return self.model(input_ids=ids, use_cache=False, **asked)
        # Padding on the right needs no mask under causal attention: no real token sees it.
        alone = len(set(agents)) == 1
        if alone:
            self.model.set_adapter(agents[0])
        self.thaw()
        return self.model(input_ids=ids, use_cache=False, **({} if alone else {"adapter_names": list(agents)}), **asked)

    @contextmanager
    def computing_again(self, on: bool) -> Iterator[None]:
        """Inside, the activations of every layer are computed again on the way back (gradient checkpointing)."""
        layers = [one for one in self.model.modules() if isinstance(one, GradientCheckpointingLayer)] if on else []
        if on and not layers:
            raise TeamtuneError("this model's layers cannot be computed again; leave the fit's checkpoint out")
        if on:
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        for layer in layers:  # the layers alone: what is in them stays in evaluation mode
            layer.training = True
        try:
            yield
        finally:
            for layer in layers:
                layer.training = False
            if on:
                self.model.gradient_checkpointing_disable()

    def thaw(self) -> None:
        """Choosing an active adapter makes PEFT freeze the others; they only wait for their rows."""
        for agent in self.agents:
            for parameter in self.parameters(agent):
                parameter.requires_grad_(True)

    def parameters(self, agent: str) -> list[torch.nn.Parameter]:
        return self._own[agent]

    def weights(self, agent: str) -> dict[str, Tensor]:
        """The adapter's tensors by PEFT's names, and its head's."""
        head = self.heads[agent].state_dict(prefix=HEAD) if agent in self.heads else {}
        return get_peft_model_state_dict(self.model, adapter_name=agent) | head

    def save(self, agent: str, folder: Path) -> None:
        """Write the adapter as a folder that PEFT, vLLM and this library load."""
        folder.mkdir(parents=True, exist_ok=True)
        config = self.model.peft_config[agent]
        was, config.inference_mode = config.inference_mode, True
        config.save_pretrained(str(folder))
        config.inference_mode = was
        tensors = {k: v.detach().contiguous().cpu() for k, v in self.weights(agent).items()}
        head = {k: v for k, v in tensors.items() if k.startswith(HEAD)}
        save_file({k: v for k, v in tensors.items() if k not in head}, folder / "adapter_model.safetensors")
        if head:
            save_file({k.removeprefix(HEAD): v for k, v in head.items()}, folder / HEAD_FILE)

    def restore(self, agent: str, file: Path) -> None:
        """Load the agent's tensors from a file that `weights` was saved to."""
        tensors = load_file(file)
        head = {k.removeprefix(HEAD): tensors.pop(k) for k in [*tensors] if k.startswith(HEAD)}
        set_peft_model_state_dict(self.model, tensors, adapter_name=agent)
        if agent in self.heads:
            self.heads[agent].load_state_dict(head)
