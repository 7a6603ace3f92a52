"""Right against wrong answers of debates, as the vote has it: preferences, and advantages for policy gradients.

Multiagent Finetuning's authors suggest DPO and PPO as extensions, with critics to supply preferences or rewards, and
publish neither; this is our reading, on the turns that are there already. One pair is a row of `curate/pairs.py`; one
advantage row:

    {"agent": "critic-1", "problem": "sums/3", "take": 0, "turn": 6, "messages": [...], "completion": "So 42. ...",
     "prompt_ids": [1, 90, ...], "token_ids": [33, 12, ...], "logprobs": [-0.1, ...], "value": 1.0, "advantage": 0.667}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from teamtune.credit.consensus import Judged, judgements, labelled
from teamtune.curate.sft import context, sft_row
from teamtune.store import Counted
from teamtune.types import UNFIT, UNSAID, Row, place_of


def debate_pairs(turns: Sequence[Row], credit: Sequence[Row], learners: Mapping[str, str]) -> Counted:
    """Preference pairs of a debate's agents, in order of problem and take, one side of each the agent's own answer.

    A generator's are its first answer against those of others to the same prompt that the vote judges otherwise. A
    critic's are its last answer, where it agrees with the vote, against a wrong one in its place: its own first answer
    said again where that was wrong, else those of the others that were (so: correct yourself, and do not give in).

    learners: who learns from whose turns, as in `curate.debate.debate_rows`. A learner of several agents' turns has a
        pair that two of them give once; the second one is counted as a duplicate.
    """
    judged = judgements(credit)
    counts: Counter[str] = Counter()
    rows: list[Row] = []
    known: set[tuple[str, ...]] = set()
    for rounds in labelled(turns, judged, counts):
        for source, prompt, chosen, rejected in [*_first_pairs(rounds[0], judged), *_last_pairs(rounds, judged)]:
            if source not in learners:
                continue
            if chosen["finish"] in UNFIT:
                counts[f"{source}: chosen {UNFIT[chosen['finish']]}"] += 1
            elif rejected["finish"] in UNSAID or chosen["text"] == rejected["text"]:
                counts[f"{source}: no other text to reject"] += 1
            else:
                name = learners[source], prompt["problem"], context(prompt), chosen["text"], rejected["text"]
                counts[f"{source}: {'duplicate' if name in known else 'pairs kept'}"] += 1
                if name not in known:
                    known.add(name)
                    rows.append(_pair(learners[source], prompt, chosen, rejected))
    return Counted(rows, counts)


def _first_pairs(first: Sequence[Row], judged: Judged) -> Iterator[tuple[str, Row, Row, Row]]:
    """(agent, the turn whose prompt it is, chosen, rejected)"""
    for mine in first:
        for theirs in first:
            if judged[place_of(mine)] != judged[place_of(theirs)] and context(mine) == context(theirs):
                good, bad = (mine, theirs) if judged[place_of(mine)] else (theirs, mine)
                yield mine["agent"], mine, good, bad


def _last_pairs(rounds: Sequence[Sequence[Row]], judged: Judged) -> Iterator[tuple[str, Row, Row, Row]]:
    for seat, last in enumerate(rounds[-1] if len(rounds) > 1 else ()):
        if judged[place_of(last)]:
            own = rounds[0][seat]
            wrong = [own] if not judged[place_of(own)] else [t for t in rounds[0] if not judged[place_of(t)]]
            yield from ((last["agent"], last, last, bad) for bad in wrong)


def _pair(learner: str, prompt: Row, chosen: Row, rejected: Row) -> Row:
    named = {name: prompt[name] for name in ("problem", "take")}
    ids = {"prompt_ids": prompt["prompt_ids"], "chosen_ids": chosen["token_ids"], "rejected_ids": rejected["token_ids"]}
    texts = {"messages": prompt["messages"], "chosen": chosen["text"], "rejected": rejected["text"]}
    ids["rejected_ended"] = rejected["finish"] == "stop"
    places = {"chosen_turn": chosen["turn"], "rejected_turn": rejected["turn"], "rejected_take": rejected["take"]}
    return {"agent": learner, **named, **texts, **places, **ids, "chosen_value": 1.0, "rejected_value": 0.0}


def advantage_rows(turns: Sequence[Row], credit: Sequence[Row], learners: Mapping[str, str]) -> Counted:
    """Every answer with its advantage: 1 where it agrees with the vote, else 0, less the mean over its round.

    A round in which all agree, or none does, teaches nothing and is counted; so is an answer without sampled ids or
    log-probabilities. Answers cut off at the token limit stay: that it did not end is the agent's doing.
    """
    judged = judgements(credit)
    counts: Counter[str] = Counter()
    rows: list[Row] = []
    for rounds in labelled(turns, judged, counts):
        for one in rounds:
            mean = sum(judged[place_of(turn)] for turn in one) / len(one)
            for turn in one:
                source = turn["agent"]
                if source not in learners:
                    continue
                if mean in (0, 1):
                    counts[f"{source}: everybody in the round {'agrees' if mean else 'disagrees'}"] += 1
                elif not turn["token_ids"] or turn["logprobs"] is None or turn["prompt_ids"] is None:
                    counts[f"{source}: no ids or log-probabilities"] += 1
                else:
                    value = float(judged[place_of(turn)])
                    counts[f"{source}: kept"] += 1
                    row = {**sft_row(turn, value), "agent": learners[source]}
                    rows.append({**row, "logprobs": turn["logprobs"], "advantage": value - mean})
    return Counted(rows, counts)
