"""Rows to imitate: the turns whose value is above the threshold, and a count of every turn left out.

One row of the SFT table:

    {"agent": "verifier", "problem": "sums/3", "take": 0, "turn": 1,
     "messages": [{"role": "system", "content": "You are the verifier. ..."}, ...],
     "completion": "7 * 23: 7 * 20 = 140, ...", "prompt_ids": [1, 90, ...], "token_ids": [33, 12, ...],
     "value": 1.0}

and the counts beside the rows:

    {"verifier: kept": 210, "verifier: value not above threshold": 85, "verifier: duplicate": 5}
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from teamtune.store import Counted
from teamtune.types import UNFIT, Row, TeamtuneError, place_of
from teamtune.vote import lot


def sft_rows(
    turns: Sequence[Row],
    values: Sequence[Row],
    agents: Sequence[str],
    dedup: bool = True,
    cap: int = 0,
    seed: int = 0,
) -> Counted:
    """The positive turns of `agents`, sorted by problem, take and turn (MALT, Motwani et al. 2024).

    values: rows of `credit.tree.backup`, or any rows with a turn's place, "value" and "positive".
    dedup: keep one of the turns with the same agent, messages and text.
    cap: keep at most so many rows of one agent and problem, drawn by `seed`; 0 keeps all.

    The outcome depends on the set of rows, not on their order. A turn is counted once, under the first of
    these that holds: "value not above threshold", "cut off at the token limit", "prompt over the model's
    context", "duplicate", "over the cap of ...", "kept". So the counts of an agent add up to its turns.

    Raises TeamtuneError for a turn without a value, an agent without turns, or a negative cap.
    """
    rows: list[Row] = []
    seen: set[tuple[str, str, str]] = set()
    outcomes = Counter({(agent, "kept"): 0 for agent in agents})
    for turn, value in valued_turns(turns, values, agents):
        agent, identity = turn["agent"], (turn["agent"], context(turn), turn["text"])
        if not value["positive"]:
            outcomes[agent, "value not above threshold"] += 1
        elif turn["finish"] in UNFIT:  # to imitate what was cut off would teach the agent never to stop
            outcomes[agent, UNFIT[turn["finish"]]] += 1
        elif dedup and identity in seen:
            outcomes[agent, "duplicate"] += 1
        else:
            seen.add(identity)
            rows.append(sft_row(turn, value["value"]))
    kept = capped(rows, cap, seed, ("take", "turn"))
    outcomes.update((row["agent"], "kept") for row in kept)
    outcomes.update(over_cap(rows, kept, cap))
    return Counted(kept, tally(outcomes, agents))


def valued_turns(turns: Sequence[Row], values: Sequence[Row], agents: Sequence[str]) -> list[tuple[Row, Row]]:
    """The turns of `agents` with their value rows, sorted by problem, take and turn."""
    valued = {place_of(row): row for row in values}
    present = dict.fromkeys(turn["agent"] for turn in turns)
    for agent in agents:
        if agent not in present:
            names = ", ".join(present) or "nobody"
            raise TeamtuneError(f"agent {agent!r} has no turns to train on; name agents of these: {names}")
    chosen = sorted((turn for turn in turns if turn["agent"] in agents), key=place_of)
    for turn in chosen:
        if place_of(turn) not in valued:
            problem, take, index = place_of(turn)
            raise TeamtuneError(f"problem {problem!r} take {take} turn {index} has no value; back its episode up first")
    return [(turn, valued[place_of(turn)]) for turn in chosen]


def context(turn: Row) -> str:
    """The messages that a turn answers, as one string to compare."""
    return json.dumps([[message["role"], message["content"]] for message in turn["messages"]])


def capped(rows: Sequence[Row], cap: int, seed: int, columns: Sequence[str]) -> list[Row]:
    """At most `cap` rows of each agent and problem, in their order; 0 keeps all.

    A row's lot is drawn from `seed`, its agent, its problem and the `columns` that name it among those, and
    the lowest lots stay: the choice ignores the order of rows, and a lower cap keeps a part of what a higher
    one keeps.
    """
    if cap < 0:
        raise TeamtuneError(f"cap is {cap}; it must be 0 (off) or above")
    if cap == 0:
        return list(rows)
    lots: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for index, row in enumerate(rows):
        name = row["agent"], row["problem"]
        lots[name].append((lot(seed, *name, *(row[column] for column in columns)), index))
    lowest = sorted(index for group in lots.values() for _, index in sorted(group)[:cap])
    return [rows[index] for index in lowest]


def tally(outcomes: Mapping[tuple[str, str], int], agents: Sequence[str]) -> dict[str, int]:
    """{(agent, outcome): count} as sentences, agent by agent: {"verifier: duplicate": 5}."""
    return {f"{who}: {what}": n for agent in agents for (who, what), n in outcomes.items() if who == agent}


def over_cap(rows: Sequence[Row], kept: Sequence[Row], cap: int) -> dict[tuple[str, str], int]:
    """How many rows of each agent the cap left out; nothing for an agent that lost none."""
    lost = Counter(row["agent"] for row in rows) - Counter(row["agent"] for row in kept)
    return {(agent, f"over the cap of {cap} per problem"): count for agent, count in lost.items()}


def sft_row(turn: Row, value: float) -> Row:
    return {
        "agent": turn["agent"],
        "problem": turn["problem"],
        "take": turn["take"],
        "turn": turn["turn"],
        "messages": turn["messages"],
        "completion": turn["text"],
        "prompt_ids": turn["prompt_ids"],
        "token_ids": turn["token_ids"],
        "value": value,
    }
