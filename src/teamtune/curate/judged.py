"""A scorer's data: answers to each question, as many right as wrong, so that it learns which answers are right and not
which questions are hard (MAPoRL, 3.3 of the specification).

One row; "source" is "sampled", or "asked for" where an answer of that kind was lacking and had to be asked for:

    {"agent": "scorer", "problem": "sums/3", "take": 4, "turn": 0, "source": "sampled",
     "messages": [{"role": "system", ...}, {"role": "user", "content": "What is 6 * 7? ..."}],
     "completion": "6 * 7 = 42. ...", "right": True}
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from teamtune.credit.penalty import bare, question_of, trailing
from teamtune.grading.extract import guessed
from teamtune.protocols.debate import DEBATER, first
from teamtune.store import Counted
from teamtune.tasks import problems_in
from teamtune.types import SCORER, UNFIT, Message, Row, TeamtuneError, place_of
from teamtune.vote import lot

RIGHT = (
    "{question}\n\nOne right solution is:\n{example}\n\nGive a fresh solution of your own that comes to the same "
    "answer."
)
WRONG = (
    "{question}\n\n{shown}Give a solution that looks right and is not: let its reasoning go wrong in one step, not its "
    "arithmetic, and do not say that it is wrong."
)
TELLTALE = re.compile(r"rephras|rewrit|reword|(?<!#)###(?!#)", re.IGNORECASE)
"""of answers that speak of the request and not of the problem; what was asked for and has it is left out.
"####" is no heading: a final answer stands behind it"""


@dataclass(frozen=True, slots=True)
class Pool:
    """The usable answers to one question."""

    right: list[Row]
    wrong: list[Row]


def asked_for(
    problems: Sequence[Row], turns: Sequence[Row], grades: Sequence[Row], quota: int, right: bool
) -> list[Row]:
    """The problems that lack right (or wrong) answers, with a question that asks for one.

    {"id": "sums/3", "question": "What is 6 * 7?\\n\\nGive a solution that looks right and is not: ...", ...}

    A right answer can be asked for only where there is one to show.
    """
    pools = usable(turns, grades, Counter())
    rows = []
    for problem in problems:
        pool = pools.get(problem["id"], Pool([], []))
        have = pool.right if right else pool.wrong
        if len(have) >= quota or (right and not have):
            continue
        example = have[0]["text"] if have else ""
        shown = f"One wrong solution is:\n{example}\n\n" if example else ""
        text = (RIGHT if right else WRONG).format(question=problem["question"], example=example, shown=shown)
        rows.append({**problem, "question": text})
    return rows


def judged_rows(
    problems: Sequence[Row],
    turns: Sequence[Row],
    grades: Sequence[Row],
    more: Sequence[Row] = (),
    more_grades: Sequence[Row] = (),
    quota: int = 20,
    seed: int = 0,
) -> Counted:
    """`quota` right and `quota` wrong answers to every question, drawn by `seed`; those asked for fill what is lacking.

    turns, more: Turn tables of answers, sampled and asked for, with their grades. Whatever was said before them, each
        stands as an answer to the question. quota 0 takes all that can be used.

    Questions that cannot meet the quota are left out and counted, and so is every answer that cannot be used.

    Raises TeamtuneError for a quota below 0.
    """
    if quota < 0:
        raise TeamtuneError(f"quota is {quota}; it must be 0 (take all) or above")
    counts: Counter[str] = Counter()
    sampled, extra = usable(turns, grades, counts), usable(more, more_grades, counts, asked=True)
    rows: list[Row] = []
    for problem in problems_in(problems):
        pools = [found.get(problem.id, Pool([], [])) for found in (sampled, extra)]
        sides = []
        for name in ("right", "wrong"):
            own, other = (getattr(pool, name) for pool in pools)
            said = {turn["text"] for turn in own}
            fresh = [turn for turn in other if turn["text"] not in said]
            kept = [("sampled", turn) for turn in drawn(own, quota, seed)]
            lacking = max(0, quota - len(kept))
            sides.append(kept + [("asked for", turn) for turn in drawn(fresh, lacking, seed) if lacking])
        short = [name for name, side in zip(("right", "wrong"), sides, strict=True) if len(side) < quota]
        if short:
            counts[f"questions left out, too few {' and '.join(short)} answers"] += 1
            continue
        messages = [{"role": m.role, "content": m.content} for m in (Message("system", DEBATER), *first(problem))]
        for side, right in zip(sides, (True, False), strict=True):
            counts[f"{SCORER}: {'right' if right else 'wrong'} answers kept"] += len(side)
            for source, turn in side:
                place = {name: turn[name] for name in ("problem", "take", "turn")}
                said = {"messages": messages, "completion": turn["text"], "right": right}
                rows.append({"agent": SCORER, **place, "source": source, **said})
    return Counted(rows, counts)


def usable(turns: Sequence[Row], grades: Sequence[Row], counts: Counter[str], asked: bool = False) -> dict[str, Pool]:
    """The answers that a scorer may learn from, by problem; the others are counted.

    An answer that was sampled often counts as often: a score is the share of right ones among what is said. What was
    asked for counts once.
    """
    graded = {place_of(row): row for row in grades}
    pools: dict[str, Pool] = {}
    seen: dict[str, set[str]] = defaultdict(set)
    for turn in turns:
        grade = graded[place_of(turn)]
        reason = _unusable(turn, grade, seen[turn["problem"]], asked)
        if reason:
            counts[f"answers left out, {reason}"] += 1
            continue
        seen[turn["problem"]].add(turn["text"])
        pool = pools.setdefault(turn["problem"], Pool([], []))
        (pool.right if grade["score"] == 1 else pool.wrong).append(turn)
    return pools


def _unusable(turn: Row, grade: Row, seen: set[str], asked: bool) -> str:
    if turn["finish"] in UNFIT:
        return UNFIT[turn["finish"]]
    if grade["parsed"] is None or guessed(grade.get("rule", "")) or not turn["text"].strip():
        return "no answer in them"
    if bare(turn["text"]):
        return "nothing stands before the answer"
    if trailing(turn["text"], grade["parsed"], question_of(turn)):
        return "they go on after the answer"
    if asked and TELLTALE.search(turn["text"]):
        return "they speak of the request"
    return "said before" if asked and turn["text"] in seen else ""


def drawn(turns: Sequence[Row], count: int, seed: int) -> list[Row]:
    """`count` of the turns by lot, in their order; all for 0 or less."""
    if count <= 0:
        return list(turns)
    lots = sorted((lot(seed, *place_of(turn)), number) for number, turn in enumerate(turns))
    return [turns[number] for number in sorted(number for _, number in lots[:count])]
