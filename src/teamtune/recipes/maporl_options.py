"""Which options of MAPoRL others leave without use; who makes no use of what it is given is told so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from teamtune.credit.discussion import INCENTIVES, Rewards
from teamtune.credit.penalty import OFF
from teamtune.given import given, refuse_unread
from teamtune.types import TeamtuneError


def unread(option: Callable[[str], Any]) -> dict[str, str]:
    """The options that others leave without use, and those others. option: the value of one, by name."""
    scorer, rivals = option("scorer"), option("baselines")
    found: dict[str, str] = {}
    if scorer != "learned":
        found |= dict.fromkeys(("scorer_questions", "feedback", "making"), f"scorer {scorer}")
    if option("scorer_from"):
        found |= dict.fromkeys(("scorer_questions", "making"), "scorer_from")
    if "sft" not in rivals:
        found["sft"] = "baselines without sft"
    if "incentives" not in rivals:
        found["incentive"] = "baselines without incentives"
    return found


def check_rewards(option: Callable[[str], Any]) -> None:
    """Raises TeamtuneError for parts of the rewards, and for an early end, that have no use.

    A table of incentives may stand there without any that is paid: a preset has it.
    """
    scorer, agents, turns, rewards = (option(name) for name in ("scorer", "agents", "turns", "rewards"))
    incentives = rewards.incentives
    paid = incentives.paid or "incentives" in option("baselines")
    idle: dict[str, str] = {}
    if not paid:
        idle |= dict.fromkeys(("ties", "cells"), "incentives that are not paid")
        refuse_unread(rewards, {"right_by": "incentives that are not paid"}, "{} of the rewards")
    elif agents == 2:
        idle["ties"] = "2 agents, of whom the other always has an opinion"
    refuse_unread(incentives, idle, "{} of the incentives")
    if paid and min(agents, turns) == 1:
        raise TeamtuneError(
            "incentives are paid for what agents do to each other from turn to turn, and there are "
            f"{agents} agents and {turns} turns; leave them out"
        )
    wanted = [name for name in INCENTIVES if getattr(incentives, name) or "incentives" in option("baselines")]
    frozen = option("first_turn") == "frozen"
    if idle_ := [name for name in wanted if name not in incentives.learned(turns, frozen)]:
        first = ", the first of them frozen" if frozen else ""
        raise TeamtuneError(
            f"{idle_[0]} of the incentives pays for no answer that anybody learns from, by their "
            f"{'cells' if incentives.cells else f'table {incentives.table}'} over {turns} turns{first}; take other "
            "cells, --turns 3 or --first-turn trained, or leave it out"
        )
    if scorer == "none" and rewards.rule not in ("last-own", Rewards().rule):
        raise TeamtuneError(
            f"rule {rewards.rule} of the rewards has no use without a scorer, where all answers of an agent earn "
            "what its last one is graded; leave it out, or take --scorer grader"
        )
    if turns == 1:
        refuse_unread(rewards, {"gamma": "1 turn, which has no later ones"}, "{} of the rewards")
    if scorer == "none":
        refuse_unread(rewards, {"gamma": "scorer none, where the last answer's grade counts"}, "{} of the rewards")
    if rewards.right_by == "scorer" and scorer != "learned":
        raise TeamtuneError(f"rewards.right_by is scorer and scorer is {scorer}; take a learned one")
    if agents == 1 and turns > 1 and option("early").share <= 1:
        raise TeamtuneError(
            "early.share ends a discussion where agents agree, and there is 1 agent, with nobody to agree with; leave "
            "it out"
        )
    if option("early").score and scorer != "learned":
        raise TeamtuneError(f"early.score has no use with scorer {scorer}, where agents have no scores; leave it out")


def check_rivals(option: Callable[[str], Any]) -> None:
    """Raises TeamtuneError for a baseline that is nothing of its own."""
    rivals, scorer, rewards = (option(name) for name in ("baselines", "scorer", "rewards"))
    if "incentives" in rivals and "incentives" in given(rewards) and rewards.incentives.paid:
        raise TeamtuneError("the rewards have incentives and the baseline incentives adds each to none; leave them out")
    if "incentives" in rivals and not option("incentive"):
        raise TeamtuneError("incentive is 0, and the baseline incentives pays it; give it another value")
    hidden = [name for name in ("no-feedback", "hidden-scores") if name in rivals]
    if hidden and (scorer != "learned" or not option("feedback")):
        raise TeamtuneError(f"baseline {hidden[0]} has no use where no scores are shown; leave it out")
    if "no-scorer" in rivals and scorer == "none" and rewards.gate == OFF and not rewards.incentives.paid:
        raise TeamtuneError("baseline no-scorer is the method itself with scorer none and no gate; leave it out")
    if "single-agent" in rivals and option("agents") == option("turns") == 1:
        raise TeamtuneError("baseline single-agent is the method itself with 1 agent and 1 turn; leave it out")
    if "frozen-partners" in rivals and option("agents") == 1:
        raise TeamtuneError("baseline frozen-partners has no use with 1 agent, which has no partners; leave it out")
    if "no-collaboration" in rivals and option("turns") == 1:
        raise TeamtuneError(
            "baseline no-collaboration has no use with 1 turn, before which nothing is said; leave it out"
        )
