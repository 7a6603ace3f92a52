"""Preference pairs: of siblings (answers to one prompt), each positive one against each negative one.

One row of the pairs table; the prompt ends in "messages", "chosen" and "rejected" are the two answers:

    {"agent": "verifier", "problem": "sums/3", "take": 0,
     "messages": [{"role": "system", "content": "You are the verifier. ..."}, ...],
     "chosen": "7 * 20 = 140, not 130. ...", "rejected": "All steps hold.",
     "chosen_turn": 1, "rejected_turn": 2, "rejected_take": 0, "prompt_ids": [1, 90, ...],
     "chosen_ids": [33, 12, ...], "rejected_ids": [40, 2], "rejected_ended": true,
     "chosen_value": 1.0, "rejected_value": 0.0}

and the counts beside the rows:

    {"verifier: pairs kept": 12, "verifier: groups": 9, "verifier: unanimous groups": 3,
     "verifier: duplicate": 2}
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import product

from teamtune.credit.tree import parent
from teamtune.curate.sft import capped, context, over_cap, tally, valued_turns
from teamtune.store import Counted
from teamtune.types import UNFIT, UNSAID, Row

Valued = tuple[Row, Row]
"""A turn and its value row."""
Group = tuple[str, str, int | None, int | None, str]
"""What siblings share: agent, problem, take and parent (None for roots), context."""


def sibling_pairs(
    turns: Sequence[Row],
    values: Sequence[Row],
    agents: Sequence[str],
    dedup: bool = True,
    cap: int = 0,
    seed: int = 0,
) -> Counted:
    """All pairs of a positive and a negative sibling, group by group (MALT, Motwani et al. 2024).

    Siblings are turns of one agent with the same messages under the same parent of one episode; roots have no
    parent, so those of all takes of a problem are siblings ("take" names the chosen turn's, "rejected_take"
    the other's).

    values: rows of `credit.tree.backup`, or any rows with a turn's place, "value" and "positive".
    dedup: keep one of the pairs with the same agent, messages and both texts.
    cap: keep at most so many pairs of one agent and problem, drawn by `seed`; 0 keeps all.

    The outcome depends on the set of rows, not on their order. A candidate pair is counted once, under the
    first of these that holds: "chosen cut off at the token limit", "prompt over the model's context",
    "withheld by the server's filter", "same text on both sides", "duplicate", "over the cap of ...", "pairs
    kept". Besides, "groups" counts the groups of siblings and "unanimous groups" those that offer no pair. A
    rejected turn may be cut off: not to stop is a good reason to be rejected.

    Raises TeamtuneError for a turn without a value, an agent without turns, or a negative cap.
    """
    rows: list[Row] = []
    seen: set[tuple[str, str, str, str]] = set()
    always = ("pairs kept", "groups", "unanimous groups")
    outcomes = Counter({(agent, outcome): 0 for agent in agents for outcome in always})
    for (agent, *_, prompt), siblings in _groups(valued_turns(turns, values, agents)).items():
        positives = [one for one in siblings if one[1]["positive"]]
        negatives = [one for one in siblings if not one[1]["positive"]]
        outcomes[agent, "groups"] += 1
        outcomes[agent, "unanimous groups"] += not (positives and negatives)
        for good, bad in product(positives, negatives):
            chosen, rejected = good[0]["text"], bad[0]["text"]
            if good[0]["finish"] == "length":
                outcomes[agent, "chosen cut off at the token limit"] += 1
            elif (unsaid := good[0] if good[0]["finish"] in UNSAID else bad[0])["finish"] in UNSAID:
                outcomes[agent, UNFIT[unsaid["finish"]]] += 1
            elif chosen == rejected:  # luck further down the tree, nothing to prefer
                outcomes[agent, "same text on both sides"] += 1
            elif dedup and (agent, prompt, chosen, rejected) in seen:
                outcomes[agent, "duplicate"] += 1
            else:
                seen.add((agent, prompt, chosen, rejected))
                rows.append(_pair(good, bad))
    kept = capped(rows, cap, seed, ("take", "chosen_turn", "rejected_take", "rejected_turn"))
    outcomes.update((row["agent"], "pairs kept") for row in kept)
    outcomes.update(over_cap(rows, kept, cap))
    return Counted(kept, tally(outcomes, agents))


def _groups(valued: Sequence[Valued]) -> dict[Group, list[Valued]]:
    """Siblings by what they share, in order of first appearance."""
    groups: dict[Group, list[Valued]] = defaultdict(list)
    for turn, value in valued:
        above = parent(turn)
        take = None if above is None else turn["take"]
        groups[turn["agent"], turn["problem"], take, above, context(turn)].append((turn, value))
    return groups


def _pair(good: Valued, bad: Valued) -> Row:
    (chosen, chosen_value), (rejected, rejected_value) = good, bad
    return {
        "agent": chosen["agent"],
        "problem": chosen["problem"],
        "take": chosen["take"],
        "messages": chosen["messages"],
        "chosen": chosen["text"],
        "rejected": rejected["text"],
        "chosen_turn": chosen["turn"],
        "rejected_turn": rejected["turn"],
        "rejected_take": rejected["take"],
        "prompt_ids": chosen["prompt_ids"],
        "chosen_ids": chosen["token_ids"],
        "rejected_ids": rejected["token_ids"],
        "rejected_ended": rejected["finish"] == "stop",
        "chosen_value": chosen_value["value"],
        "rejected_value": rejected_value["value"],
    }
