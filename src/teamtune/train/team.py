"""One frozen base with an adapter per agent, all in memory at once.

model = TeamModel.open(team, ["generator", "verifier"], Lora(rank=16), seed=0)
logits = model(ids, ["generator", "verifier", "generator"])      # rows of different agents in one forward
model.save("verifier", folder)                                   # a LoRA folder in PEFT's layout
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from teamtune.adapters import attach, mixes
from teamtune.models import load_model
from teamtune.types import Team, TeamtuneError


@dataclass(frozen=True, slots=True)
class Lora:
    """Shape of the adapters. MALT does not publish its own; these are ordinary values."""

    rank: int = 16
    alpha: int = 32
    targets: str = "all-linear"
    """all-linear, or names of modules with commas between: q_proj,v_proj"""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise TeamtuneError(f"LoRA rank is {self.rank}; it must be 1 or above")
        if self.alpha < 1:
            raise TeamtuneError(f"LoRA alpha is {self.alpha}; it must be 1 or above, or nothing is learned")
        if not all(name.strip() for name in self.targets.split(",")):
            raise TeamtuneError(f"LoRA targets are {self.targets!r}; give all-linear, or names of modules with commas")

    def config(self) -> LoraConfig:
        targets = self.targets if self.targets == "all-linear" else self.targets.split(",")
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=0.0,
            target_modules=targets,
            task_type="CAUSAL_LM",
        )


class TeamModel:
    """A PEFT model whose adapters are named after the agents. The base never trains."""

    def __init__(self, model: Any, tokenizer: Any, agents: Sequence[str]):
        # PEFT mixes adapters in one batch in evaluation mode only; there is no dropout to miss.
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.agents = list(agents)
        self.mixes = mixes(model, self.agents[0])
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(f".{agent}." in name for agent in agents) and "lora_" in name)

    @staticmethod
    def open(team: Team, agents: Sequence[str], lora: Lora, seed: int = 0, dtype: str = "auto") -> TeamModel:
        """The team's base with one adapter an agent: the agent's own if it has one, else a new one.

        A new adapter's start depends on (seed, agent) alone, so it is the same whoever else is trained.
        """
        base, tokenizer = load_model(team.model, dtype)
        return TeamModel.around(base, tokenizer, team, agents, lora, seed)

    @staticmethod
    def around(base: Any, tokenizer: Any, team: Team, agents: Sequence[str], lora: Lora, seed: int = 0) -> TeamModel:
        """`open` with a base that is in memory."""
        model: Any = None
        for agent in agents:
            adapter = team[agent].adapter
            if adapter is not None:
                model = attach(base if model is None else model, adapter, agent, trainable=True)
                continue
            with torch.random.fork_rng():
                torch.manual_seed(int.from_bytes(hashlib.sha256(f"{seed}/{agent}".encode()).digest()[:6], "big"))
                if model is None:
                    model = get_peft_model(base, lora.config(), adapter_name=agent)
                else:
                    model.add_adapter(agent, lora.config())
        return TeamModel(model, tokenizer, agents)

    @property
    def device(self) -> torch.device:
        return self.model.device

    def __call__(
        self, ids: Int[Tensor, "rows length"], agents: Sequence[str]
    ) -> Float[Tensor, "rows length vocabulary"]:
        """Logits of right-padded rows, each through its own agent's adapter."""
        # Padding on the right needs no mask under causal attention: no real token sees it.
        if len(set(agents)) == 1:
            self.model.set_adapter(agents[0])
            self._all_trainable()
            return self.model(input_ids=ids, use_cache=False).logits
        return self.model(input_ids=ids, use_cache=False, adapter_names=list(agents)).logits

    def _all_trainable(self) -> None:
        """Choosing an active adapter makes PEFT freeze the others; they only wait for their rows."""
        for agent in self.agents:
            for parameter in self.parameters(agent):
                parameter.requires_grad_(True)

    def parameters(self, agent: str) -> list[torch.nn.Parameter]:
        return [p for name, p in self.model.named_parameters() if f".{agent}." in name and "lora_" in name]

    def weights(self, agent: str) -> dict[str, Tensor]:
        """The adapter's tensors by PEFT's names."""
        return get_peft_model_state_dict(self.model, adapter_name=agent)

    def save(self, agent: str, folder: Path) -> None:
        """Write the adapter as a folder that PEFT, vLLM and this library load."""
        folder.mkdir(parents=True, exist_ok=True)
        config = self.model.peft_config[agent]
        was, config.inference_mode = config.inference_mode, True
        config.save_pretrained(str(folder))
        config.inference_mode = was
        save_file(
            {k: v.detach().contiguous().cpu() for k, v in self.weights(agent).items()},
            folder / "adapter_model.safetensors",
        )

    def restore(self, agent: str, file: Path) -> None:
        """Load the adapter's tensors from a file that `weights` was saved to."""
        set_peft_model_state_dict(self.model, load_file(file), adapter_name=agent)
