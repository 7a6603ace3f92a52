"""MALT (Motwani et al., 2024): a generator, a verifier and a refiner, post-trained on a tree of their own answers.

turns of an n-ary tree -> right or wrong leaves -> values averaged up the tree -> SFT of every role on its good turns ->
DPO of verifier and refiner on good against bad siblings -> the team on test problems beside its baselines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from teamtune.credit.tree import backup
from teamtune.curate.pairs import sibling_pairs
from teamtune.curate.sft import sft_rows
from teamtune.engines import EngineSpec
from teamtune.engines.spec import check_trained
from teamtune.given import refuse_unread
from teamtune.models import check_lora
from teamtune.protocols.pipeline import ROLES, pipeline, seats
from teamtune.recipes.stored import taken_turns
from teamtune.recipes.systems import (
    TEST_SEED,
    System,
    alone_and_together,
    base_team,
    compare,
    play_debate,
    play_pipeline,
    play_solo,
    round_seed,
    trained_tokens,
)
from teamtune.rollout import Driver, Rollout, rollout
from teamtune.store import Run, Table
from teamtune.tasks import Split, TaskSpec, grade_turns, splits
from teamtune.track import Track
from teamtune.train.fit import Fit, fit
from teamtune.train.objective import Preference, Sft
from teamtune.train.team import Lora
from teamtune.types import BESIDE, Sampling, Team, TeamtuneError


@dataclass(frozen=True)
class Malt:
    """Train a generator-verifier-refiner team by MALT and compare it with its baselines."""

    out: Path
    """run folder; the same command goes on where a killed run was"""
    task: Annotated[TaskSpec, tyro.conf.arg(name="")] = TaskSpec()
    model: str = "house"
    """house, a folder, or a hub name"""
    engine: EngineSpec = EngineSpec()
    sampling: Sampling = Sampling(temperature=1.0, max_tokens=320)
    """of every seat, in training and at test time; the paper's temperature for Llama-3.1-8B is 0.3"""
    width: int = 3
    """children of every node: width**3 answers a problem"""
    pooling: Literal["global", "local"] = "global"
    threshold: float = 0.5
    """a turn is positive where its value is strictly above this"""
    rounds: int = 1
    """how often to roll out and train; the paper does it once"""
    train_seats: tuple[str, ...] = ("generator", "verifier", "refiner")
    """seats to train; the others stay at the base"""
    dpo_generator: bool = False
    """train the generator by DPO too (the paper does not, for an instruct model)"""
    sft_cap: int = 0
    """most SFT rows of one agent from one problem; 0 keeps all"""
    pair_cap: int = 0
    """most pairs of one agent from one problem; 0 keeps all"""
    lora: Lora = Lora()
    sft: Fit = Fit(rate=1e-4)
    dpo: Fit = Fit(rate=2e-5)
    preference: Preference = Preference(beta=0.2)
    votes: int = 3
    """passes of the pipeline that vote at test time"""
    baselines: Literal["none", "base", "all"] = "all"
    """base: untrained alone and as a team; all: also in debate and, with one round, after STaR (the SFT stage)"""
    driver: Driver = field(default="auto", metadata=BESIDE)
    rows_only: bool = field(default=False, metadata=BESIDE)
    """roll out and make the rows to learn from, and train nothing: for teamtune export; without it the run goes on"""
    turns_from: str = ""
    """a run of malt on the same problems, whose first trees to learn from: what a server wrote (--rows-only) trains a
    model that is here"""
    track: Track = "none"
    """where metrics go besides metrics.jsonl"""
    seed: int = 0

    def __post_init__(self) -> None:
        self.task.check_answers("malt")
        for name in ("width", "rounds", "votes"):
            if getattr(self, name) < 1:
                raise TeamtuneError(f"{name} is {getattr(self, name)}; it must be 1 or above")
        for name in ("sft_cap", "pair_cap"):
            if getattr(self, name) < 0:
                raise TeamtuneError(f"{name} is {getattr(self, name)}; it must be 0 (off) or above")
        if self.width == 1 and preferring_seats(self.train_seats, self.dpo_generator):
            raise TeamtuneError("width is 1; DPO compares siblings: take 2 or above, or train the generator alone")
        if not preferring_seats(self.train_seats, self.dpo_generator):
            told = f"train_seats {' '.join(self.train_seats)}, none of which DPO trains"
            refuse_unread(self, dict.fromkeys(("dpo", "preference", "pair_cap"), told))
        if self.dpo_generator and "generator" not in self.train_seats:
            raise TeamtuneError("dpo_generator has no use where train_seats leave the generator out")
        if not 0 <= self.threshold < 1:
            raise TeamtuneError(f"threshold is {self.threshold}; it must lie in [0, 1)")
        unknown = [seat for seat in self.train_seats if seat not in ROLES]
        if unknown or not self.train_seats:
            raise TeamtuneError(f"train_seats are {list(self.train_seats)}; choose from {', '.join(ROLES)}")


@dataclass(frozen=True, slots=True)
class Trained:
    """What the rounds gave: the team after SFT (which is STaR), after DPO, and the target tokens of each."""

    star: Team
    team: Team
    star_tokens: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)


def main(cfg: Malt, command: str = "") -> Run:
    """Train and compare; everything is in the run folder afterwards."""
    train, test = splits(cfg.task)
    base = base_team(cfg.model, seats(cfg.sampling), cfg.engine, cfg.lora.bits)
    if not cfg.rows_only:
        check_trained(cfg.engine, cfg.train_seats)
        check_lora(cfg.model, cfg.lora.targets, cfg.lora.shard, cfg.lora.bits)
    done = Trained(base, base)
    with Run(cfg.out, cfg, command, cfg.track) as run:
        if cfg.rows_only:
            round_rows(run, cfg, train, base)
            return run
        for number in range(cfg.rounds):
            done = train_round(run, cfg, train, done, number)
        systems = played_systems(run, cfg, test, base, done)
        run.stage("comparison", compare, systems, against=systems[-1].name)
        return run


def prefix_of(cfg: Malt, number: int) -> str:
    return f"round-{number + 1}/" if cfg.rounds > 1 else ""


def roles_of(cfg: Malt) -> list[str]:
    return [role for role in ROLES if role in cfg.train_seats]


def round_rows(run: Run, cfg: Malt, train: Split, team: Team, number: int = 0) -> tuple[Table, Table | None]:
    """Roll out the tree, back values up: rows for SFT, and pairs for DPO where a role prefers. Rounds draw anew."""
    prefix, seed = prefix_of(cfg, number), round_seed(cfg.seed, number + 1)
    roles = roles_of(cfg)
    tree = partial(pipeline, width=cfg.width)
    how = Rollout(seed=seed, driver=cfg.driver)
    problems = train.sealed(run)
    if cfg.turns_from and number == 0:
        turns = taken_turns(run, f"{prefix}turns", problems, cfg, ("width", "rounds"))
    else:
        turns = run.work(f"{prefix}turns", rollout, problems, team, tree, cfg.engine, how)
    grades = run.stage(f"{prefix}grades", grade_turns, turns, problems, cfg.task, "train")
    values = run.stage(f"{prefix}values", backup, turns, grades, pooling=cfg.pooling, threshold=cfg.threshold)
    rows = run.stage(f"{prefix}sft-rows", sft_rows, turns, values, roles, cap=cfg.sft_cap, seed=seed)
    instead = f"; take --rounds {number} with another --out" if number else ""
    enough(rows, roles, instead)
    preferring = preferring_seats(roles, cfg.dpo_generator)
    if not preferring:
        return rows, None
    pairs = run.stage(f"{prefix}pairs", sibling_pairs, turns, values, preferring, cap=cfg.pair_cap, seed=seed)
    enough(pairs, preferring, instead)
    return rows, pairs


def train_round(run: Run, cfg: Malt, train: Split, before: Trained, number: int = 0) -> Trained:
    """One round: the rows of the team as it stands, SFT, DPO."""
    team, prefix, seed = before.team, prefix_of(cfg, number), round_seed(cfg.seed, number + 1)
    roles = roles_of(cfg)
    rows, pairs = round_rows(run, cfg, train, team, number)
    sft = run.train(f"{prefix}sft", fit, rows, team, roles, cfg.lora, Sft(), cfg.sft, seed)
    star = team.adopt({role: str(sft.path / role) for role in roles})
    star_tokens = before.tokens + trained_tokens(rows, cfg.model, cfg.sft.epochs)
    if pairs is None:
        return Trained(star, star, star_tokens, star_tokens)
    preferring = preferring_seats(roles, cfg.dpo_generator)
    dpo = run.train(f"{prefix}dpo", fit, pairs, star, preferring, cfg.lora, cfg.preference, cfg.dpo, seed)
    final = star.adopt({role: str(dpo.path / role) for role in preferring})
    return Trained(star, final, star_tokens, star_tokens + trained_tokens(pairs, cfg.model, cfg.dpo.epochs))


def preferring_seats(trained: Sequence[str], dpo_generator: bool) -> list[str]:
    """The seats that DPO trains."""
    return [seat for seat in trained if seat != "generator" or dpo_generator]


def enough(table: Table, agents: list[str], instead: str = "") -> None:
    """An agent with nothing to learn from stops the run, with the counts that explain it, and with what else there is
    to do."""
    have = {row["agent"] for row in table.rows()}
    empty = [agent for agent in agents if agent not in have]
    if empty:
        told = "; ".join(f"{what} {count}" for what, count in table.counts.items())
        raise TeamtuneError(f"nothing to train {', '.join(empty)} on in {table.path}: {told or 'no turns'}{instead}")


def played_systems(run: Run, cfg: Malt, test: Split, base: Team, done: Trained) -> list[System]:
    """All systems on the same test problems; the trained team comes last."""
    how = partial(Rollout, seed=cfg.seed + TEST_SEED, driver=cfg.driver)
    solo = partial(play_solo, run, test=test, engine=cfg.engine, how=how(3 * cfg.votes))
    passes = partial(play_pipeline, run, test=test, engine=cfg.engine, how=how(cfg.votes))
    systems: list[System] = []
    if cfg.baselines != "none":
        systems += alone_and_together("", solo("test/base-solo", team=base), passes("test/base", team=base), cfg.votes)
    if cfg.baselines == "all":
        talked = play_debate(run, "test/debate", test, base, cfg.sampling, cfg.engine, how(1))
        systems.append(System("Debate 3x3", talked, votes=1))
    # Later rounds start from adapters that DPO has trained, so their SFT stage is no STaR.
    if cfg.baselines == "all" and cfg.rounds == 1:
        alone, together = solo("test/star-solo", team=done.star), passes("test/star", team=done.star)
        # The single agent of STaR is the generator.
        of_one = {"generator": done.star_tokens["generator"]}
        systems += [
            replace(system, trained=of_one if system.played is alone else done.star_tokens)
            for system in alone_and_together("STaR ", alone, together, cfg.votes)
        ]
    malt = passes("test/malt", team=done.team)
    return [
        *systems,
        System("MALT, one pass", malt, 0, done.tokens),
        System(f"MALT + MV@{cfg.votes}", malt, cfg.votes, done.tokens),
    ]
