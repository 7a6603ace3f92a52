"""How MAPoRL trains a team: its options, its scorer, and the training of all policies on discussions.

a scorer from the base's own answers (recipes/scorer.py) -> discussions on other problems by the team that is trained ->
scores, incentives, penalties (credit/discussion.py) -> multi-agent PPO (train/ppo.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow.parquet as pq
import tyro

from teamtune.credit.discussion import Incentives, Rewards
from teamtune.engines import EngineSpec
from teamtune.given import refuse_unread
from teamtune.play import ProtocolFn
from teamtune.protocols.discussion import Early, Share, by_policy, discussion, seats
from teamtune.recipes.maporl_learn import learn
from teamtune.recipes.maporl_options import check_rewards, check_rivals, unread
from teamtune.recipes.scorer import Scorer, with_scorer
from teamtune.reporting import read
from teamtune.rollout import Driver, Rollout
from teamtune.store import Run, Table
from teamtune.tasks import Split, TaskSpec
from teamtune.track import Track
from teamtune.train.fit import Fit
from teamtune.train.policies import Ppo
from teamtune.train.team import Lora
from teamtune.types import BESIDE, SCORER, Row, Sampling, Team, TeamtuneError

Rival = Literal[
    "off-the-shelf",
    "votes",
    "no-feedback",
    "hidden-scores",
    "single-agent",
    "frozen-partners",
    "no-scorer",
    "sft",
    "no-collaboration",
    "incentives",
]
Source = Literal["learned", "grader", "none"]


@dataclass(frozen=True)
class Maporl:
    """Train the agents of a discussion by MAPoRL and compare them with its baselines."""

    out: Path
    """run folder; the same command goes on where a killed run was"""
    task: Annotated[TaskSpec, tyro.conf.arg(name="")] = TaskSpec(train=1600)
    model: str = "house"
    """house, a folder, or a hub name"""
    partners: tuple[str, ...] = ()
    """base models of the agents after the first, where they differ; each agent then has policies of its own"""
    engine: EngineSpec = EngineSpec()
    sampling: Sampling = Sampling(temperature=0.7, max_tokens=300)
    agents: int = 2
    """A: of the discussions that are trained on"""
    turns: int = 3
    """T"""
    sizes: tuple[str, ...] = ("3x3",)
    """agents x turns of the discussions that are compared, the first one with all baselines"""
    share: Share = "shared"
    """who has an adapter of its own: every turn, every agent, both, or nobody"""
    first_turn: Literal["frozen", "trained"] = "frozen"
    """frozen: the base answers first, so that what is learned is to discuss"""
    feedback: bool = True
    """agents are shown scores, where there is a learned scorer"""
    early: Early = Early()
    scorer: Source = "learned"
    """what answers earn: a learned scorer's score, the grader's 0 or 1, or (none) for all answers of an agent that of
    its last one; incentives and penalties come on top"""
    scorer_from: str = ""
    """a scorer that is there already: a run of scorer train or maporl that made one, or the scorer's own folder in it
    (RUN/scorer/fit/scorer); empty makes one in this run"""
    scorer_questions: int = 500
    """problems to make the scorer on; the team is trained on others"""
    making: Scorer = Scorer()
    rewards: Rewards = Rewards()
    lora: Lora = Lora(rank=8, alpha=16)
    ppo: Ppo = Ppo()
    sft: Fit = Fit(rate=1e-4)
    """of the baseline sft"""
    incentive: float = 2.0
    """of each incentive in the baseline incentives"""
    baselines: tuple[Rival, ...] = ("off-the-shelf", "votes", "single-agent")
    """what to compare with, all on the same problems; nothing after it compares with nothing"""
    eval_tasks: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--eval-task"])] = ()
    """further tasks to evaluate on, in discussions of the first size, NAME or NAME:LEVEL, a data set's with =PATH where
    its data lie elsewhere"""
    driver: Driver = field(default="auto", metadata=BESIDE)
    track: Track = "none"
    """where metrics go besides metrics.jsonl"""
    seed: int = 0

    def __post_init__(self) -> None:
        self.task.check_answers("maporl")
        for name, least in (("agents", 1), ("turns", 1), ("scorer_questions", 1)):
            if getattr(self, name) < least:
                raise TeamtuneError(f"{name} is {getattr(self, name)}; it must be {least} or above")
        if self.first_turn == "frozen" and self.turns == 1:
            raise TeamtuneError("turns is 1 and the first one is frozen, so nothing learns; take --first-turn trained")
        for told in self.sizes or ("",):
            size(told)
        if self.partners and (len(self.partners) != self.agents - 1 or self.share in ("turn", "shared")):
            raise TeamtuneError(
                f"{len(self.partners)} partners and {self.agents} agents that share {self.share}; give a base for each "
                "agent after the first, and --share agent or agent-turn, for an adapter fits one base"
            )
        if self.partners and any(size(told)[0] != self.agents for told in self.sizes):
            raise TeamtuneError(f"sizes {list(self.sizes)} have other agents than {self.agents}, whose bases differ")
        if self.scorer != "learned" and self.scorer_from:
            raise TeamtuneError(f"scorer is {self.scorer}, so --scorer-from has no use; leave it out")
        self.ppo.check_groups(self.agents)
        option = partial(getattr, self)
        refuse_unread(self, unread(option))
        check_rivals(option)
        check_rewards(option)

    @property
    def frozen(self) -> bool:
        return self.first_turn == "frozen"

    @property
    def speakers(self) -> list[list[str]]:
        """The seats of the discussions that are trained on."""
        return by_policy(self.share, self.agents, self.turns, self.frozen, apart=bool(self.partners))

    def speakers_of(self, told: str) -> list[list[str]]:
        """The seats of discussions of another size."""
        return by_policy(self.share, *size(told), self.frozen, (self.agents, self.turns), bool(self.partners))

    def talk(self, speakers: Sequence[Sequence[str]]) -> ProtocolFn:
        """The discussion between anybody."""
        scored = self.scorer == "learned"
        seats_ = [list(one) for one in speakers]
        return partial(discussion, speakers=seats_, scored=scored, feedback=self.feedback, early=self.early)


DEFAULTS = Maporl.__dataclass_fields__
"""of the options"""


def size(told: str) -> tuple[int, int]:
    """(agents, turns) of "3x3". Raises TeamtuneError for anything else."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", told)
    if found is None:
        raise TeamtuneError(f"size {told!r} is no AGENTSxTURNS; give for example 3x3")
    return int(found[1]), int(found[2])


def untrained_team(cfg: Maporl, scorer: str | None) -> Team:
    """The team before training: the base in every seat, agents on bases of their own, and the scorer."""
    agents = seats(cfg.speakers, cfg.sampling)
    if cfg.partners:
        model = lambda seat: next((cfg.partners[n - 1] for n in range(1, cfg.agents) if f"agent-{n + 1}" in seat), "")  # noqa: E731
        agents = tuple(replace(agent, model=model(agent.name)) for agent in agents)
    team = Team(cfg.model, agents, bits=cfg.lora.bits)
    return with_scorer(team, scorer) if scorer else team


@dataclass(frozen=True, slots=True)
class Lab:
    """What all parts of the recipe work with; `prefix` is where the stages of a variant lie."""

    run: Run
    cfg: Maporl
    train: Split
    team: Team
    """untrained, with the scorer's seat where there is a learned one"""
    prefix: str = ""

    @property
    def problems(self) -> Table:
        return self.train.sealed(self.run)

    def variant(self, name: str, **options: Any) -> Lab:
        """The same with some options changed, its stages in a folder of its own."""
        cfg = replace(alone(self.cfg), **options)
        scorer = next((agent.adapter for agent in self.team.agents if agent.name == SCORER), None)
        team = replace(untrained_team(cfg, scorer if cfg.scorer == "learned" else None), weights=self.team.weights)
        return replace(self, cfg=cfg, team=team, prefix=f"{name}/")


def alone(cfg: Maporl) -> Maporl:
    """The options without baselines, and without what those alone read: how incentives are paid, where the team itself
    is paid none."""
    rewards = cfg.rewards
    if not rewards.incentives.paid:
        rewards = replace(rewards, incentives=Incentives(), right_by=Rewards().right_by)
    return replace(
        cfg, baselines=(), rewards=rewards, **{name: DEFAULTS[name].default for name in ("sft", "incentive")}
    )


@dataclass(frozen=True, slots=True)
class Trained:
    """A team after its training, the target tokens of each policy, and what the training left behind."""

    team: Team
    tokens: Counter[str]
    folder: Path


def trained(lab: Lab, only: Sequence[str] = ()) -> Trained:
    """The team after training all its policies, or `only` some of them."""
    cfg, run = lab.cfg, lab.run
    policies = [name for name in lab.team.trainable if not only or name in only]
    protocol, rewards = cfg.talk(cfg.speakers), rewards_of(cfg)
    args = (lab.problems, lab.train.task, lab.team, policies, protocol, cfg.engine, cfg.lora, rewards, cfg.ppo)
    done = run.train(f"{lab.prefix}ppo", learn, *args, Rollout(cfg.ppo.takes, cfg.seed, cfg.driver))
    tokens = trained_tokens_of(run.path, f"{lab.prefix}ppo", policies, cfg.ppo)
    if idle := [name for name in policies if not tokens[name]]:
        ends = f"let fewer end early (early.share is {cfg.early.share:g}) or " if cfg.early.share <= 1 else ""
        raise TeamtuneError(
            f"{idle[0]} learned from no answer in {done.path}: no discussion came to it with one to learn from; {ends}"
            "let prompts be shorter (fewer agents, turns or sampling.max_tokens), with another --out"
        )
    return Trained(lab.team.adopt({name: str(done.path / name) for name in policies}), tokens, done.path)


def rewards_of(cfg: Maporl) -> Rewards:
    """The reward rule; without a scorer an answer earns what the agent's last one is graded."""
    return replace(cfg.rewards, rule="last-own") if cfg.scorer == "none" else cfg.rewards


def trained_tokens_of(run: Path, stage: str, policies: Sequence[str], ppo: Ppo) -> Counter[str]:
    """Target tokens that each policy was trained on: its answers of all updates, as often as they were met. Where an
    update may end early (target_kl) its line in metrics.jsonl tells; of one that was made twice the last does."""
    found: Counter[str] = Counter()
    if ppo.target_kl:
        lines = {line["step"]: line for line in read.metrics(run) if line["stage"] == stage}
        for line in lines.values():
            found.update({name: int(line.get(f"{name}/targets", 0)) for name in policies})
        return found
    for row in generated(run / stage):
        if row["agent"] in policies:
            found[row["agent"]] += ppo.fit.epochs * len(row["token_ids"] or ())
    return found


def generated(folder: Path) -> Iterator[Row]:
    """The answers of all updates of a training, by agent, tag and ids."""
    for file in sorted((folder / "updates").glob("*.parquet")):
        rows = pq.read_table(file, columns=["agent", "tag", "token_ids"]).to_pylist()
        yield from (row for row in rows if row["agent"] != SCORER)
