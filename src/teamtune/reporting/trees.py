"""The data of the tree viewer: which problems are shown, and their turns in a form that stays small. Pure.

One problem:

    {"id": "sums/3", "question": "7 * 23 = ?", "answer": "161", "right": 5, "leaves": 27, "pairs": 4, "kind": "mixed",
     "prompts": [[["system", ["You are the generator. ..."]], ["user", ["Problem: ...", 0, "..."]]], ...],
     "episodes": [{"take": 0, "rounds": false, "turns": [
         {"turn": 0, "agent": "generator", "tag": "generate", "parents": [], "prompt": 0, "text": "...",
          "cut": false, "parsed": "161", "score": 1.0, "value": 0.56, "positive": true, "sft": true,
          "over": [[0, 5]], "under": []}]}]}

A prompt repeats the texts of the turns it shows, so each of them is told by its turn's number (an int among the
strings), and siblings share one entry. "over" lists the (take, turn) that a turn was preferred to, "under" those that
were preferred to it; "likely" is what a scorer said of it. "answer" is what a turn graded right says; None if no turn
is.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from teamtune.credit.discussion import scores_in
from teamtune.reporting.measures import ancestors, leaves
from teamtune.types import Place, Row, answering, by_episode, place_of

LIGHT = ("problem", "take", "turn", "agent", "tag", "parents", "final")
"""Columns of a Turn table that statistics need."""
FULL = (*LIGHT, "messages", "text", "finish")


def mix(problems: Sequence[str], kind: Callable[[str], Any], limit: int) -> list[str]:
    """At most `limit` problems, as many of each kind as there are, the first of each; in their old order."""
    groups: dict[Any, list[str]] = defaultdict(list)
    for problem in problems:
        groups[kind(problem)].append(problem)
    taken: set[str] = set()
    for rank in range(max(map(len, groups.values()), default=0)):
        for group in groups.values():
            if rank < len(group) and len(taken) < limit:
                taken.add(group[rank])
    return [problem for problem in problems if problem in taken]


def right_shares(turns: Sequence[Row], grades: Sequence[Row]) -> dict[str, float]:
    """How many of a problem's leaves are right, over all its takes."""
    score = {place_of(row): row["score"] for row in grades}
    found: dict[str, list[float]] = defaultdict(list)
    for (problem, _), rows in by_episode(turns).items():
        found[problem] += [score.get(place_of(leaf), 0.0) for leaf in leaves(rows)]
    return {problem: sum(scores) / len(scores) for problem, scores in found.items()}


def kind_of(share: float, pairs: bool = False) -> str:
    """The kinds of training trees to show a mix of."""
    if pairs:
        return "pairs"
    return {1.0: "all right", 0.0: "all wrong"}.get(share, "mixed")


def problem_trees(
    turns: Sequence[Row],
    grades: Sequence[Row] = (),
    values: Sequence[Row] = (),
    sft: Sequence[Row] = (),
    pairs: Sequence[Row] = (),
) -> list[Row]:
    """The viewer's problems from the turns of those to show, in order of first appearance; all else is optional."""
    marks = _Marks(grades, values, sft, pairs, scores_in(turns))
    problems: dict[str, list[list[Row]]] = defaultdict(list)
    for (problem, _), rows in by_episode(answering(turns)).items():
        problems[problem].append(rows)
    return [_problem(name, episodes, marks) for name, episodes in problems.items()]


class _Marks:
    """What the other tables say about a turn, by its place."""

    def __init__(
        self,
        grades: Sequence[Row],
        values: Sequence[Row],
        sft: Sequence[Row],
        pairs: Sequence[Row],
        likely: Mapping[Place, float],
    ) -> None:
        self.likely = likely
        self.grades = {place_of(row): row for row in grades}
        self.values = {place_of(row): row for row in values}
        self.sft: Collection[Place] = {place_of(row) for row in sft}
        self.over: dict[Place, list[list[int]]] = defaultdict(list)
        self.under: dict[Place, list[list[int]]] = defaultdict(list)
        for row in pairs:
            good, bad = [row["take"], row["chosen_turn"]], [row["rejected_take"], row["rejected_turn"]]
            self.over[row["problem"], good[0], good[1]].append(bad)
            self.under[row["problem"], bad[0], bad[1]].append(good)

    def of(self, row: Row) -> Row:
        here = place_of(row)
        told: Row = {}
        if here in self.grades:
            told |= {key: self.grades[here][key] for key in ("parsed", "score")}
        if here in self.values:
            told |= {"value": round(self.values[here]["value"], 4), "positive": self.values[here]["positive"]}
        if here in self.likely:
            told["likely"] = round(self.likely[here], 3)
        lists = {"over": self.over.get(here), "under": self.under.get(here), "sft": here in self.sft}
        return told | {key: value for key, value in lists.items() if value}


def _problem(name: str, episodes: Sequence[Sequence[Row]], marks: _Marks) -> Row:
    prompts: dict[str, int] = {}
    shown = []
    for rows in episodes:
        by_index = {row["turn"]: row for row in rows}
        turns = [_turn(row, by_index, prompts) | marks.of(row) for row in rows]
        shown.append({"take": rows[0]["take"], "rounds": _in_rounds(rows, by_index), "turns": turns})
    ends = [place_of(leaf) for rows in episodes for leaf in leaves(rows)]
    graded = [marks.grades[end] for end in ends if end in marks.grades]
    right = sum(grade["score"] == 1 for grade in graded)
    everywhere = [marks.grades.get(place_of(row)) for rows in episodes for row in rows]
    answers = (grade["parsed"] for grade in everywhere if grade and grade["score"] == 1)
    return {
        "id": name,
        "question": question(episodes[0][0]),
        "answer": next(answers, None),
        "right": right,
        "leaves": len(graded),
        "pairs": sum(len(turn.get("over", ())) for one in shown for turn in one["turns"]),
        "prompts": [json.loads(prompt) for prompt in prompts],
        "episodes": shown,
    }


def question(row: Row) -> str:
    """What a turn without parents was asked; Turn tables know no question as such."""
    return next((m["content"] for m in reversed(row["messages"]) if m["role"] == "user"), row["problem"])


def _turn(row: Row, by_index: Mapping[int, Row], prompts: dict[str, int]) -> Row:
    texts = [(index, by_index[index]["text"]) for index in ancestors(row, by_index)]
    prompt = [[message["role"], quoted(message["content"], texts)] for message in row["messages"]]
    number = prompts.setdefault(json.dumps(prompt), len(prompts))
    told = {key: row[key] for key in ("turn", "agent", "tag", "parents", "text")}
    return told | {"prompt": number} | ({"cut": True} if row.get("finish") == "length" else {})


def quoted(content: str, texts: Sequence[tuple[int, str]]) -> list[str | int]:
    """`content` with each text in it replaced by its number, the earlier texts first."""
    parts: list[str | int] = [content]
    for number, text in texts:
        at = next((i for i, part in enumerate(parts) if text and isinstance(part, str) and text in part), None)
        if at is not None:
            head, _, tail = str(parts[at]).partition(text)
            parts[at : at + 1] = [part for part in (head, number, tail) if part != ""]
    return parts


def _in_rounds(rows: Sequence[Row], by_index: Mapping[int, Row]) -> bool:
    """Whether turns show several turns of one step, as in a debate; then they are no tree."""
    return any(len({by_index[i]["tag"] for i in row["parents"]}) < len(row["parents"]) for row in rows)
