"""The options of multi-agent PPO, and what learns: the policies of one base, with their values and optimisers."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
import tyro

from teamtune.given import given, refuse_unread
from teamtune.train.fit import Fit, Metrics, adamw
from teamtune.train.objective import Policy, Values
from teamtune.train.samples import Estimate, Estimator, value_of
from teamtune.train.team import TeamModel
from teamtune.types import BESIDE, TeamtuneError

OF_VALUES = ("values", "value_rate", "value_input", "discount", "trace", "whiten", "whiten_rewards")
OF_GROUPS = ("group",)
"""options that only objectives with values, or with groups, read"""


@dataclass(frozen=True, slots=True)
class Ppo:
    """How policies are trained on the rewards of their answers."""

    objective: Annotated[Estimator, tyro.conf.arg(aliases=["--objective"])] = "ppo"
    """ppo: values of every policy, generalised advantages a token; group: rewards less their group's mean, over its
    spread; rloo: rewards less the mean of the others of the group"""
    updates: int = 50
    problems: int = 32
    """problems of an update"""
    takes: int = 1
    """discussions of a problem; groups are made of them"""
    group: Literal["turn", "agent", "update"] = "turn"
    """a group holds all answers to a problem at one turn, those of each agent by itself, or those of each agent at one
    turn to all problems of an update"""
    fit: Fit = Fit(rate=1e-5, epochs=4, batch=32, warmup=0.2, beta2=0.95)
    policy: Policy = Policy()
    values: Values = Values()
    value_rate: float = 0.0
    """peak learning rate of the values; 0 takes that of the policies"""
    value_input: Literal["answer", "full"] = "answer"
    """what values are judged on: the question and the answer alone (the published code), or all that was shown"""
    kl: float = 2e-4
    """weight of the KL to the frozen base; the published configurations have 0.002"""
    kl_in: Literal["reward", "loss"] = "reward"
    kl_target: float = 0.0
    """adapt the weight so that the KL, a token, comes to this; 0 keeps it"""
    target_kl: float = 0.0
    """end an update's steps for a policy once it has moved this far, a token; 0 never does"""
    discount: float = 1.0
    trace: float = 0.95
    whiten: bool = True
    """advantages of spread 1 and mean 0 over an update's tokens of a policy; those of groups are relative already"""
    whiten_rewards: bool = False
    gap: float = field(default=0.2, metadata=BESIDE)
    """stop where the engine's log-probabilities are, in the mean, this far from those of training"""
    save_every: int = field(default=5, metadata=BESIDE)
    """updates between two states to resume from"""

    def __post_init__(self) -> None:
        for name in ("updates", "problems", "takes", "save_every"):
            if getattr(self, name) < 1:
                raise TeamtuneError(f"{name} of ppo is {getattr(self, name)}; it must be 1 or above")
        if not self.gap > 0:
            raise TeamtuneError(f"gap of ppo is {self.gap}; it must be above 0, since engine and training round apart")
        for name in ("kl", "kl_target", "target_kl", "value_rate"):
            if getattr(self, name) < 0:
                raise TeamtuneError(f"{name} of ppo is {getattr(self, name)}; it must be 0 or above")
        if self.kl_target and not self.kl:
            raise TeamtuneError("kl_target of ppo has no use with kl 0, whose multiples are 0; give kl a start")
        if not self.kl:
            refuse_unread(self, {"kl_in": "kl 0"}, "{} of ppo")
        unread = OF_GROUPS if self.objective == "ppo" else OF_VALUES
        refuse_unread(self, dict.fromkeys(unread, f"objective {self.objective}"), "{} of ppo")
        if "save_every" in given(self.fit):
            raise TeamtuneError("save_every of ppo.fit has no use; ppo.save_every is the updates between two states")
        if self.policy.kl:
            raise TeamtuneError("kl of ppo.policy has no use; ppo.kl is its weight, in rewards or in the loss")
        for name in ("discount", "trace"):
            if not 0 <= getattr(self, name) <= 1:
                raise TeamtuneError(f"{name} of ppo is {getattr(self, name)}; it must lie in [0, 1]")

    def check_problems(self, count: int) -> None:
        """Raises TeamtuneError where there are fewer problems than an update takes."""
        if count < self.problems:
            raise TeamtuneError(
                f"{count} problems to train on, and {self.problems} asked for an update; raise train, or lower "
                "ppo.problems"
            )

    def check_groups(self, agents: int) -> None:
        """Raises TeamtuneError where answers are compared with others of their group and every group has a single
        one."""
        company = {"turn": self.takes * agents, "agent": self.takes, "update": self.takes * self.problems}[self.group]
        if not self.has_values and company < 2:
            more = {"turn": "ppo.takes 2, or several agents", "agent": "ppo.takes 2, or ppo.group turn"}
            raise TeamtuneError(
                f"objective {self.objective} compares answers, and every group of {self.group} has a single one; take "
                f"{more.get(self.group, 'ppo.problems 2')}"
            )

    @property
    def has_values(self) -> bool:
        return self.objective == "ppo"

    def estimate(self, kl: float) -> Estimate:
        """How advantages are made; kl: the weight of the KL in rewards."""
        return Estimate(self.objective, self.discount, self.trace, self.whiten_rewards, self.whiten, kl)


@dataclass(slots=True)
class Learner:
    """The policies of one base: its model, and the optimisers of policies and values."""

    model: TeamModel
    policies: list[str]
    optimizers: dict[str, torch.optim.Optimizer]

    @staticmethod
    def of(model: TeamModel, policies: Sequence[str], ppo: Ppo) -> Learner:
        values = [value_of(policy) for policy in policies] if ppo.has_values else []
        made: dict[str, torch.optim.Optimizer] = {
            name: adamw(model.parameters(name), ppo.fit) for name in (*policies, *values)
        }
        return Learner(model, list(policies), made)


class Clock:
    """Seconds of the parts of an update."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.spent: dict[str, float] = defaultdict(float)

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.spent[name] += now - self.last
        self.last = now

    def told(self) -> Metrics:
        return {f"seconds/{name}": round(spent, 3) for name, spent in self.spent.items()}
