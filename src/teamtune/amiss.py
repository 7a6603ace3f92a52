"""What the first update of a training of discussions says of settings that do not suit the model. Pure.

amiss({"step": 0, "agent-1-turn-1/discussions": 32.0, "agent-1-turn-1/accuracy": 0.5, ...})
-> ["41% of the right answers of the first update were penalised ..."]
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from teamtune.credit.penalty import CAUSES

MOST_UNSAID = 0.5
"""share of an agent's answers at a turn that may be over the context"""
MOST_CHARGED = 0.25
"""share of right answers that a gate may penalise"""
MOST_EQUAL = 0.9
"""share of groups that may have equal rewards"""
ANSWERS = re.compile(r"(agent-\d+-turn-\d+)/")


def places(names: Iterable[str]) -> list[str]:
    """The agents and turns that metrics tell of."""
    return list(dict.fromkeys(found[1] for name in names if (found := ANSWERS.match(name))))


def short(place: str) -> str:
    """ "1, turn 2" of "agent-1-turn-2": a line is to fit a narrow window."""
    return place.removeprefix("agent-").replace("-turn-", ", turn ")


def amiss(line: Mapping[str, Any]) -> list[str]:
    """Discussions that outgrow the context, a gate that charges for right answers, groups that tell nothing. line: the
    metrics of a first update."""
    return [*unsaid(line), *charged(line), *equal(line)]


def unsaid(line: Mapping[str, Any]) -> list[str]:
    found = []
    for place in places(line):
        if (share := line.get(f"{place}/finish: overflow", 0.0)) > MOST_UNSAID:
            agent, turn = short(place).split(", ")
            found.append(
                f"{share:.0%} of the answers of agent {agent} at {turn} were not begun, since their prompts are over "
                "the context; lower sampling.max_tokens, turns or agents"
            )
    return found


def charged(line: Mapping[str, Any]) -> list[str]:
    count = lambda place, name: line.get(f"{place}/discussions", 0.0) * line.get(f"{place}/{name}", 0.0)  # noqa: E731
    right = {place: count(place, "accuracy") for place in places(line)}
    fined = sum(right[place] * line.get(f"{place}/penalties_of_right", 0.0) for place in right)
    if fined <= MOST_CHARGED * sum(right.values()):
        return []
    causes = Counter({cause: sum(count(place, f"penalty: {cause}") for place in right) for cause in CAUSES})
    return [
        f"{fined / sum(right.values()):.0%} of the right answers of the first update were penalised (what most answers "
        f"are penalised for: {causes.most_common(1)[0][0]}), so that the gate teaches its own rules before all else; "
        "set rewards.gate by what this model writes (--preset house does for the house model)"
    ]


def equal(line: Mapping[str, Any]) -> list[str]:
    whole, bad = line.get("groups", 0), line.get("degenerate_groups", 0)
    if bad <= MOST_EQUAL * whole:
        return []
    return [
        f"{bad} of the {whole} groups of the first update have equal rewards, from which nothing is learned; take more "
        "ppo.takes, problems that are sometimes solved, or a learned scorer"
    ]
