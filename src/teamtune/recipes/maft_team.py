"""How Multiagent Finetuning trains a team: its options, and one iteration from debates to adapters.

debates on training problems -> answers read without gold -> the last round's majority as label -> every generator's
right first answers, every critic's corrected and kept ones -> SFT of all 2N agents in one joint fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from teamtune.credit.consensus import TiePolicy, consensus
from teamtune.curate.contrast import advantage_rows, debate_pairs
from teamtune.curate.debate import Masking, debate_rows
from teamtune.engines import EngineSpec
from teamtune.given import refuse_unread
from teamtune.play import ProtocolFn
from teamtune.protocols import exchange
from teamtune.protocols.exchange import Manner, Speakers, Summary, by_roles, critic, generator
from teamtune.recipes.maft_options import check_rivals, unread
from teamtune.recipes.malt import enough
from teamtune.recipes.measures import Measures
from teamtune.recipes.stored import taken_turns
from teamtune.recipes.systems import round_seed, trained_tokens
from teamtune.rollout import Driver, Rollout, rollout
from teamtune.store import Run, Table
from teamtune.tasks import Split, TaskSpec, grade_turns
from teamtune.tasks.parse import parse_turns
from teamtune.track import Track
from teamtune.train.fit import Fit, fit
from teamtune.train.objective import Objective, Policy, Preference, Sft
from teamtune.train.team import Lora
from teamtune.types import BESIDE, Sampling, Team, TeamtuneError

Rival = Literal[
    "majority",
    "debate",
    "star",
    "majority-ft",
    "single-ft",
    "union-ft",
    "no-critic",
    "no-summary",
    "no-interaction",
    "unique-id",
    "cooperative",
    "temperature-2",
]


FIRST = "iteration-1/turns"
"""where the team's first debates are in a run"""


@dataclass(frozen=True)
class Maft:
    """Train generators and critics by Multiagent Finetuning and compare them with their baselines."""

    out: Path
    """run folder; the same command goes on where a killed run was"""
    task: Annotated[TaskSpec, tyro.conf.arg(name="")] = TaskSpec(train=500)
    model: str = "house"
    """house, a folder, or a hub name"""
    engine: EngineSpec = EngineSpec()
    sampling: Sampling = Sampling(temperature=1.0, top_p=0.9, max_tokens=320)
    """of every seat; the paper's for open models, but for its 2,048 tokens"""
    agents: int = 3
    """N: as many generators as critics"""
    rounds: int = 2
    """M: rounds of a debate"""
    iterations: int = 1
    """L: how often to debate and finetune"""
    summary: Summary = "base"
    """who sums up the others' answers between rounds"""
    manner: Manner = "contest"
    """agents take the others' answers as advice, or combine them with theirs"""
    weight: float = 0.5
    """w: share of corrected answers in a critic's data"""
    ties: TiePolicy = "random"
    """what becomes of a last round without a single winner"""
    masking: Masking = "final"
    """loss on a critic's last answer, or on all answers of its conversation (the published code)"""
    init: Literal["continue", "base"] = "continue"
    """what an iteration's finetuning starts from: the iteration before, or the base"""
    critics: bool = True
    """finetune the critics too; else they stay at the base"""
    objective: Literal["sft", "dpo", "ppo"] = "sft"
    """sft is the method; dpo: then preferences that the vote makes of the same answers; ppo: instead, agreement with
    the vote as reward of the same answers"""
    lora: Lora = Lora()
    sft: Fit = Fit(rate=1e-4, epochs=2)
    dpo: Fit = Fit(rate=2e-5)
    preference: Preference = Preference(beta=0.2)
    ppo: Fit = Fit(rate=1e-4)
    policy: Policy = Policy()
    baselines: tuple[Rival, ...] = ("majority", "debate", "majority-ft", "single-ft", "union-ft")
    """what to compare with, all on the same problems; nothing after it compares with nothing"""
    star_rounds: int = 3
    """most rounds of STaR; it stops where the loss no longer falls"""
    eval_tasks: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--eval-task"])] = ()
    """further tasks to evaluate on, NAME or NAME:LEVEL, a data set's with =PATH where its data lie elsewhere; as many
    problems each, or as many as there are"""
    measures: Measures = Measures()
    driver: Driver = field(default="auto", metadata=BESIDE)
    rows_only: bool = field(default=False, metadata=BESIDE)
    """debate once and make the rows to learn from, and train nothing: for teamtune export; without it a run goes on"""
    turns_from: str = ""
    """a run of maft on the same problems, whose first debates to learn from: what a server wrote (--rows-only) trains a
    model that is here"""
    track: Track = "none"
    """where metrics go besides metrics.jsonl"""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("agents", 1), ("rounds", 2), ("iterations", 1), ("star_rounds", 1)):
            if getattr(self, name) < least:
                raise TeamtuneError(f"{name} is {getattr(self, name)}; it must be {least} or above")
        check_rivals(partial(getattr, self))
        if not 0 <= self.weight <= 1:
            raise TeamtuneError(f"weight is {self.weight}; it must lie in [0, 1]")
        if self.agents == 1 and self.objective != "sft":
            raise TeamtuneError(f"objective is {self.objective} and agents is 1; it compares agents: take 2 or more")
        if self.objective == "ppo" and self.init == "base" and self.iterations > 1:
            raise TeamtuneError("objective is ppo and init is base; it trains the policy that sampled: take continue")
        if self.objective == "ppo" and self.sampling.temperature != 1:
            raise TeamtuneError(
                f"objective is ppo and sampling.temperature is {self.sampling.temperature:g}; it learns from "
                "answers by how likely they are at temperature 1: take that, or another objective"
            )
        if self.turns_from and (unlike := [name for name in ("no-summary", "cooperative") if name in self.baselines]):
            raise TeamtuneError(
                f"baseline {unlike[0]} holds first debates of its own, by this model, and turns_from has the team "
                "learn from another run's; leave one of them out"
            )
        refuse_unread(self, unread(partial(getattr, self)))

    @property
    def learners(self) -> dict[str, str]:
        """Every agent that is finetuned, each on its own turns."""
        names = [generator(n) for n in range(self.agents)]
        names += [critic(n) for n in range(self.agents)] if self.critics else []
        return {name: name for name in names}

    @property
    def names(self) -> list[str]:
        """Every seat that answers, generators first."""
        return list(dict.fromkeys(name for group in by_roles(self.agents, self.rounds) for name in group))

    @property
    def debate(self) -> ProtocolFn:
        """The debate between generators and critics."""
        return self.debate_of(by_roles(self.agents, self.rounds))

    def debate_of(self, speakers: Speakers) -> ProtocolFn:
        """The debate between anybody."""
        return partial(exchange.exchange, speakers=speakers, summary=self.summary, manner=self.manner)


@dataclass(frozen=True, slots=True)
class Lab:
    """What all parts of the recipe work with; `prefix` is where the stages of a variant lie."""

    run: Run
    cfg: Maft
    train: Split
    base: Team
    prefix: str = ""

    @property
    def problems(self) -> Table:
        return self.train.sealed(self.run)

    def variant(self, name: str, **options: object) -> Lab:
        """The same with some options changed, its stages in a folder of its own if it has a name."""
        # What is compared with the method may be a baseline of its own name.
        cfg = varied(self.cfg, **{**({"baselines": ()} if name else {}), **options})
        return replace(self, cfg=cfg, prefix=f"{name}/" if name else self.prefix)


def varied(cfg: Maft, **options: object) -> Maft:
    """The options with some changed, without those that nothing reads any more."""
    idle = unread(lambda one: options.get(one, getattr(cfg, one)))
    left_out = {one.name: one.default for one in fields(Maft) if one.name in idle}
    return replace(cfg, **{**left_out, **options})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Step:
    """A team after an iteration, and the target tokens that each of its agents was trained on so far."""

    team: Team
    tokens: Mapping[str, int]
    number: int = 0
    """0 is the untrained team"""


@dataclass(frozen=True, slots=True)
class Method:
    """Who speaks in the debates, and who learns from whose turns: what sets the method and its single models apart."""

    start: Team
    speakers: Speakers
    learners: Mapping[str, str]
    """as in `curate.debate`"""
    weight: float | None
    """share of corrected answers in a critic's data; None takes all answers that agree"""


def multiagent(lab: Lab) -> Method:
    """Every agent learns from its own turns."""
    cfg = lab.cfg
    return Method(lab.base, by_roles(cfg.agents, cfg.rounds), cfg.learners, cfg.weight)


def iterations(lab: Lab, method: Method, held: Sequence[Table] = ()) -> Iterator[Step]:
    """The team after every iteration. held: turns of the first iterations' debates, where others have held them."""
    step = Step(method.start, {})
    for number in range(1, lab.cfg.iterations + 1):
        prefix, seed = f"{lab.prefix}iteration-{number}/", round_seed(lab.cfg.seed, number)
        name = f"{prefix}turns"
        turns = held[number - 1] if number <= len(held) else debates(lab, method, name, step.team, seed)
        step = learn(lab, method, prefix, turns, step, seed)
        yield step


def debates(lab: Lab, method: Method, name: str, team: Team, seed: int) -> Table:
    """Debates on the training problems; the team's first ones may be another run's."""
    if lab.cfg.turns_from and name == FIRST:
        return taken_turns(lab.run, FIRST, lab.problems, lab.cfg, ("agents", "rounds", "summary", "manner"))
    cfg, how = lab.cfg, Rollout(seed=seed, driver=lab.cfg.driver)
    return lab.run.work(name, rollout, lab.problems, team, cfg.debate_of(method.speakers), cfg.engine, how)


def learn(lab: Lab, method: Method, prefix: str, turns: Table, before: Step, seed: int) -> Step:
    """Label debates by their votes, and finetune every learner on its part. No gold answer is read for it."""
    run, cfg = lab.run, lab.cfg
    names = list(dict.fromkeys(method.learners.values()))
    rows, pairs = rows_of(lab, method, prefix, turns, seed)
    start = method.start if cfg.init == "base" else before.team
    tokens = Counter(before.tokens)  # all that was spent, wherever an iteration starts from

    def fitted(stage: str, rows: Table, begin: Team, objective: Objective, options: Fit) -> Team:
        done = run.train(f"{prefix}{stage}", fit, rows, begin, names, cfg.lora, objective, options, seed)
        tokens.update(trained_tokens(rows, cfg.model, options.epochs))
        return begin.adopt({name: str(done.path / name) for name in names})

    if cfg.objective == "ppo":
        return Step(fitted("ppo", rows, start, cfg.policy, cfg.ppo), tokens, before.number + 1)
    team = fitted("sft", rows, start, Sft(), cfg.sft)
    if pairs is not None:
        team = fitted("dpo", pairs, team, cfg.preference, cfg.dpo)
    return Step(team, tokens, before.number + 1)


def rows_of(lab: Lab, method: Method, prefix: str, turns: Table, seed: int) -> tuple[Table, Table | None]:
    """What every learner learns from in one iteration's debates: rows, and pairs where it prefers afterwards."""
    run, cfg, learners = lab.run, lab.cfg, dict(method.learners)
    names = list(dict.fromkeys(learners.values()))
    if not cfg.task.unlabelled:
        # Gold answers are for reports alone: nothing below reads these grades.
        run.stage(f"{prefix}grades", grade_turns, turns, lab.problems, cfg.task, "train")
    parsed = run.stage(f"{prefix}parsed", parse_turns, turns, lab.problems, cfg.task)
    credit = run.stage(f"{prefix}credit", consensus, turns, parsed, cfg.ties, seed)
    if cfg.objective == "ppo":
        rows = run.stage(f"{prefix}ppo-rows", advantage_rows, turns, credit, learners)
    else:
        rows = run.stage(f"{prefix}sft-rows", debate_rows, turns, credit, learners, method.weight, cfg.masking, seed)
    instead = "; take more training problems, with another --out"
    enough(rows, names, instead)
    if cfg.objective != "dpo":
        return rows, None
    pairs = run.stage(f"{prefix}pairs", debate_pairs, turns, credit, learners)
    enough(pairs, names, instead)
    return rows, pairs


def first_rows(lab: Lab) -> None:
    """The rows of the first iteration, by the untrained team."""
    method, seed = multiagent(lab), round_seed(lab.cfg.seed, 1)
    rows_of(lab, method, "iteration-1/", debates(lab, method, FIRST, method.start, seed), seed)
