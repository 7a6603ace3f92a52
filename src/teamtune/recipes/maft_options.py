"""Which options of Multiagent Finetuning others leave without use, and which baselines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from teamtune.types import TeamtuneError

FINETUNED = ("star", "majority-ft", "single-ft", "union-ft", "temperature-2")
"""the rivals that are finetuned whatever trains the team"""
OF_OTHERS = {
    "sft": ("dpo", "preference", "ppo", "policy"),
    "dpo": ("ppo", "policy"),
    "ppo": ("dpo", "preference"),
}
"""options that each objective does not read"""


def unread(option: Callable[[str], Any]) -> dict[str, str]:
    """The options that others leave without use, and those others. option: the value of one, by name."""
    objective, critics, rivals = option("objective"), option("critics"), {*option("baselines")}
    found = dict.fromkeys(OF_OTHERS[objective], f"objective {objective}")
    if objective == "ppo" and not {*FINETUNED} & rivals:
        found["sft"] = "objective ppo and no baseline that is finetuned"
    if "star" not in rivals:
        found["star_rounds"] = "baselines without star"
    why = f"objective {objective}" if critics else "critics that are not finetuned"
    if not critics or (objective == "ppo" and "union-ft" not in rivals):
        found["weight"] = why
    if (not critics or objective == "ppo") and not {"single-ft", "temperature-2", "union-ft"} & rivals:
        found["masking"] = why
    if option("iterations") == 1:
        found["init"] = "one iteration"
    if option("agents") == 1:
        found |= dict.fromkeys(("summary", "manner"), "one agent, which hears nobody")
        found["ties"] = "one agent, whose vote is its own answer"
    return found


def check_rivals(option: Callable[[str], Any]) -> None:
    """Raises TeamtuneError for a baseline that is nothing of its own: it would train the method a second time."""
    alone = {"1 agent": option("agents") == 1}
    itself = {
        "no-summary": {"summary none": option("summary") == "none"} | alone,
        "cooperative": {"manner cooperate": option("manner") == "cooperate"} | alone,
        "no-critic": {"critics that are not finetuned": not option("critics")},
        "no-interaction": alone,
    }
    if "star" in option("baselines") and option("task").unlabelled:
        raise TeamtuneError("baseline star learns from gold answers, and the task is unlabelled; leave one of them out")
    for name in option("baselines"):
        why = next((why for why, holds in itself.get(name, {}).items() if holds), None)
        if why is not None:
            raise TeamtuneError(f"baseline {name} is the method itself with {why}; leave it out")
