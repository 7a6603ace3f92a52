"""What MAPoRL is compared with: its paper's baselines, each asking what a part of the method is for.

off-the-shelf      the same discussion by the base
votes              the base alone, as many times as a discussion has answers
no-feedback        that without scores in the prompts: a base may not know what to make of them
hidden-scores      trained as the team is, by the same scores, which nobody is shown: is reading them what is learned?
single-agent       one agent trained alone, by the same scorer on as many generated tokens; alone, as many times as a
                   discussion has answers, and in discussion
frozen-partners    one agent trained beside untrained ones; beside them again, and in all places
no-scorer          trained on whether the last answer is right, without a scorer
sft                finetuned on the best tenth of its own discussions
no-collaboration   the trained team's later policies, asked the question alone: was it the problems that they learned?
incentives         the team trained again with each of the four incentives by itself
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from teamtune.credit.discussion import INCENTIVES, Incentives, Rewards, scores_in
from teamtune.credit.penalty import OFF
from teamtune.curate.discussions import best_discussions
from teamtune.protocols.discussion import by_policy, opens
from teamtune.recipes.entrants import Entrant
from teamtune.recipes.malt import enough
from teamtune.recipes.maporl_team import DEFAULTS, Lab, Trained, generated, size, trained
from teamtune.recipes.systems import trained_tokens
from teamtune.rollout import Rollout, rollout
from teamtune.store import Counted, Table
from teamtune.tasks import grade_turns
from teamtune.train.fit import fit
from teamtune.train.objective import Sft
from teamtune.train.policies import Ppo
from teamtune.types import Row

PAID = "incentive-"
"""how the places of teams that are paid an incentive begin"""
UNSCORED = {
    **{"scorer": "none", "scorer_from": "", "rewards": Rewards(gate=OFF), "feedback": True},
    **{name: DEFAULTS[name].default for name in ("scorer_questions", "making")},
}
"""the options of a discussion that nobody scores, but for when it ends early"""
entrant = partial(Entrant, debates=True)


def rivals(lab: Lab, team: Trained) -> Iterator[Entrant]:
    """Everybody whom the options ask for, trained where there is something to train."""
    cfg, chosen, told = lab.cfg, lab.cfg.baselines, lab.cfg.sizes[0]
    if "off-the-shelf" in chosen:
        yield entrant("Off-the-shelf", "base", lab.team, cfg.talk(cfg.speakers_of(told)))
    if "votes" in chosen:
        yield votes(lab)
    if "no-feedback" in chosen:
        bare = unscored(lab, "no-feedback")
        yield entrant("Off-the-shelf without scores", "no-feedback", bare.team, bare.cfg.talk(cfg.speakers_of(told)))
    if "hidden-scores" in chosen:
        bare = lab.variant("hidden-scores", feedback=False)
        done, protocol = trained(bare), bare.cfg.talk(cfg.speakers_of(told))
        yield entrant("MAPoRL, scores not shown", "hidden-scores", done.team, protocol, done.tokens)
    if "single-agent" in chosen:
        yield from single_agent(lab, team)
    if "frozen-partners" in chosen:
        yield from frozen_partners(lab)
    if "no-scorer" in chosen:
        yield no_scorer(lab)
    if "sft" in chosen:
        yield best_sft(lab)
    if "no-collaboration" in chosen:
        yield from no_collaboration(lab, team)
    if "incentives" in chosen:
        yield from incentives(lab)


def unscored(lab: Lab, name: str) -> Lab:
    """The variant in which nobody scores."""
    return lab.variant(name, **UNSCORED, early=replace(lab.cfg.early, score=0.0))


def votes(lab: Lab) -> Entrant:
    """A vote of answers that the base gives on its own, at the number of calls of a discussion. Nobody scores them."""
    bare, (agents, turns) = unscored(lab, "votes"), size(lab.cfg.sizes[0])
    seat = bare.cfg.speakers[0][0]
    protocol = bare.cfg.talk([[seat] * (agents * turns)])
    return entrant("Off-the-shelf, alone, equal calls", "votes", bare.team, protocol)


def single_agent(lab: Lab, team: Trained) -> Iterator[Entrant]:
    """One agent, one turn; so many answers to a problem that as many tokens are generated as for the team."""
    cfg, (agents, turns) = lab.cfg, size(lab.cfg.sizes[0])
    ppo = replace(cfg.ppo, takes=answers_for(team.folder, cfg.ppo))
    # Incentives are for what agents do to each other.
    rewards = replace(cfg.rewards, incentives=Incentives(), right_by="grader")
    one: dict[str, Any] = {"agents": 1, "turns": 1, "share": "shared", "first_turn": "trained", "partners": ()}
    alone = lab.variant("single-agent", **one, ppo=ppo, rewards=rewards)
    done = trained(alone)
    place = "single-agent"
    at_once, whole = (alone.cfg.talk(by_policy("shared", agents, count)) for count in (1, turns))
    as_many = alone.cfg.talk(by_policy("shared", agents * turns, 1))
    yield entrant("Single-agent RL, alone", f"{place}-alone", done.team, at_once, done.tokens)
    yield entrant("Single-agent RL, alone, equal calls", f"{place}-votes", done.team, as_many, done.tokens)
    yield entrant("Single-agent RL, in discussion", place, done.team, whole, done.tokens)


def answers_for(folder: Path, ppo: Ppo) -> int:
    """How many first answers to a problem have as many tokens as what was generated for it in a training."""
    first = whole = answers = 0
    for row in generated(folder):
        tokens = len(row["token_ids"] or ())
        whole += tokens
        if row["tag"] == "turn-1":
            first, answers = first + tokens, answers + 1
    return max(1, round(whole / (ppo.updates * ppo.problems) / max(1.0, first / answers)))


def incentives(lab: Lab) -> Iterator[Entrant]:
    """The team trained again with each incentive by itself; what they shift stands in `shifts` of the run."""
    cfg = lab.cfg
    for name in INCENTIVES:
        paid = replace(cfg.rewards.incentives, **{name: cfg.incentive})
        variant = lab.variant(f"incentives/{name}", rewards=replace(cfg.rewards, incentives=paid))
        done = trained(variant)
        protocol = cfg.talk(cfg.speakers_of(cfg.sizes[0]))
        told = f"MAPoRL with {name} {cfg.incentive:g}"
        yield entrant(told, f"{PAID}{name}", done.team, protocol, done.tokens, transfers=False)


def frozen_partners(lab: Lab) -> Iterator[Entrant]:
    """The first agent trained beside others at the base; then the others beside it again, or it in all places."""
    variant = lab.variant("frozen-partners", share="agent")
    done = trained(variant, only=["agent-1"])
    speakers = variant.cfg.speakers_of(lab.cfg.sizes[0])
    own = partial(entrant, team=done.team, trained=done.tokens, transfers=False)
    # More agents than were trained are as the second, unless each has a base of its own.
    other = lambda name: name if opens(name) or variant.cfg.partners else "agent-2"  # noqa: E731
    one = [[names[0], *map(other, names[1:])] for names in speakers]
    beside, everywhere = (variant.cfg.talk(some) for some in (one, in_all_places(speakers, "agent-1")))
    yield own("One agent trained, beside untrained ones", "frozen-partners", protocol=beside)
    yield own("One agent trained, in all places", "frozen-partners-all", protocol=everywhere)


def in_all_places(speakers: Sequence[Sequence[str]], name: str) -> list[list[str]]:
    """The speakers with one of them everywhere but where the base opens."""
    return [[one if opens(one) else name for one in names] for names in speakers]


def no_scorer(lab: Lab) -> Entrant:
    """Trained on the last answer's grade alone, without incentives or penalties; nobody is shown a score."""
    variant = unscored(lab, "no-scorer")
    done = trained(variant)
    protocol = variant.cfg.talk(variant.cfg.speakers_of(lab.cfg.sizes[0]))
    return entrant("MAPoRL without a scorer", "no-scorer", done.team, protocol, done.tokens)


def best_sft(lab: Lab) -> Entrant:
    """The policies finetuned on the base's best discussions of the training problems."""
    cfg, run = lab.cfg, lab.run
    policies, rows = lab.team.trainable, sft_rows(lab)
    team, tokens = lab.team, Counter[str]()
    for number, base in enumerate(lab.team.models, start=1):
        part = lab.team.part(base)
        own = [name for name in part.names if name in policies]
        mine = rows if len(lab.team.models) == 1 else run.stage(f"sft/rows-{number}", rows_of, rows, own)
        name = "sft/sft" if mine is rows else f"sft/sft-{number}"
        done = run.train(name, fit, mine, part, own, cfg.lora, Sft(), cfg.sft, cfg.seed)
        team = team.adopt({policy: str(done.path / policy) for policy in own})
        tokens += trained_tokens(mine, base, cfg.sft.epochs)
    return entrant("SFT on the best discussions", "sft", team, cfg.talk(cfg.speakers_of(cfg.sizes[0])), tokens)


def sft_rows(lab: Lab) -> Table:
    """What they learn from. The run asks for it before it trains anybody: there may be nothing."""
    cfg, run, policies = lab.cfg, lab.run, lab.team.trainable
    how = Rollout(seed=cfg.seed, driver=cfg.driver)
    turns = run.work("sft/turns", rollout, lab.problems, lab.team, cfg.talk(cfg.speakers), cfg.engine, how)
    grades = run.stage("sft/grades", grade_turns, turns, lab.problems, lab.train.task, "train")
    rows = run.stage("sft/rows", best_rows, turns, grades, policies, cfg.seed)
    enough(rows, policies, "; leave sft out of the baselines, with another --out")
    return rows


def rows_of(rows: Sequence[Row], agents: Sequence[str]) -> list[Row]:
    """The rows of the agents on one base."""
    return [row for row in rows if row["agent"] in agents]


def best_rows(turns: Sequence[Row], grades: Sequence[Row], agents: Sequence[str], seed: int) -> Counted:
    """`best_discussions` by the scores that the turns hold."""
    return best_discussions(turns, grades, scores_in(turns), agents, seed=seed)


def no_collaboration(lab: Lab, team: Trained) -> Iterator[Entrant]:
    """Every trained policy of a later turn, asked the question and shown nothing."""
    cfg, (agents, _) = lab.cfg, size(lab.cfg.sizes[0])
    later = [tuple(names) for names in cfg.speakers_of(f"{agents}x{cfg.turns}")[1:]]
    for number, names in enumerate(dict.fromkeys(later), start=2):
        name = f"Policy of turn {number}, the question alone" if len(set(later)) > 1 else "Trained, the question alone"
        protocol = cfg.talk([list(names)])
        yield entrant(name, f"alone-{number}", team.team, protocol, team.tokens, transfers=False)
