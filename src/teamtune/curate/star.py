"""STaR's data (Zelikman et al., 2022): right answers, and answers that become right once the right one is told.

STaR sees gold answers, unlike Multiagent Finetuning, whose baseline it is (4.5 of the specification). A hint is a
problem of its own, so no protocol has to know of it:

    {"id": "sums/3", "question": "What is 6 * 7?\n(The right answer is 42; show how to get there.)", ...}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from teamtune.curate.sft import sft_row
from teamtune.store import Counted
from teamtune.types import UNFIT, Row

HINT = "(The right answer is {}; show how to get there.)"


def hinted(problems: Sequence[Row], grades: Sequence[Row]) -> list[Row]:
    """The problems whose answer was wrong, with the right one told; none where all were right."""
    wrong = {row["problem"] for row in grades if row["score"] != 1}
    return [
        {**row, "question": f"{row['question']}\n{HINT.format(row['answer'])}"}
        for row in problems
        if row["id"] in wrong
    ]


def star_rows(
    turns: Sequence[Row], grades: Sequence[Row], hinted_turns: Sequence[Row], hinted_grades: Sequence[Row]
) -> Counted:
    """SFT rows: right answers as they are, and hinted answers that came out right, to the question without its hint.

    One answer a problem in either table. Every answer is counted once.
    """
    counts: Counter[str] = Counter()
    rows: list[Row] = []
    asked = {turn["problem"]: turn for turn in turns}
    for name, table, judged in (("answer", turns, grades), ("rationale", hinted_turns, hinted_grades)):
        score = {row["problem"]: row["score"] for row in judged}
        for turn in table:
            if score[turn["problem"]] != 1:
                counts[f"{turn['agent']}: {name} wrong"] += 1
            elif turn["finish"] in UNFIT:
                counts[f"{turn['agent']}: {name} {UNFIT[turn['finish']]}"] += 1
            else:
                counts[f"{turn['agent']}: {name} kept"] += 1
                first = asked[turn["problem"]]
                plain = {"messages": first["messages"], "prompt_ids": first["prompt_ids"]}
                rows.append({**sft_row(turn, 1.0), **plain})
    return Counted(rows, counts)
