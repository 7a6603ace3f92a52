"""Which options of Multiagent Finetuning others leave without use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
        found["summary"] = "one agent, which hears nobody"
    return found
