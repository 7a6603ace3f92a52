"""Problems and grades as tables of a run.

One row of the problem table:

    {"id": "gsm8k/test/17", "question": "...", "answer": "18", "ending": "End with ...",
     "meta": "{\\"level\\": \\"2\\"}"}

One row of the grade table:

    {"problem": "gsm8k/test/17", "take": 0, "turn": 4, "parsed": "18", "score": 1.0, "rule": "marked",
     "reason": "18 against 18"}
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import wraps
from typing import TypeVar

from teamtune.grading import Grader
from teamtune.grading.merge import merged
from teamtune.store import Counted, Run, Table
from teamtune.tasks.find import MADE, check_apart, find, seen_in
from teamtune.tasks.spec import TaskSpec
from teamtune.tasks.validate import errors_of
from teamtune.types import Grade, Problem, Row, TeamtuneError, answering
from teamtune.warn import warn

THREADS = 8  # graders that wait (for a worker, for a server) wait beside each other
FEW = 64
LOOKED_AT = 3
"""problems whose own answers a grader must know, before a run begins"""
T = TypeVar("T")
R = TypeVar("R")


def problem_row(problem: Problem) -> Row:
    row = {name: getattr(problem, name) for name in ("id", "question", "answer", "ending")}
    return {**row, "meta": json.dumps(dict(problem.meta), sort_keys=True)}


def problems_in(rows: Iterable[Row]) -> list[Problem]:
    """The problems that a table holds."""
    return [Problem(**{**row, "meta": json.loads(row["meta"])}) for row in rows]


def digest(problems: Sequence[Problem]) -> str:
    """Tells whether a set of problems is still the same, when a run goes on."""
    rows = json.dumps([problem_row(problem) for problem in problems], sort_keys=True)
    return hashlib.sha256(rows.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Split:
    """Train or test problems of a task, looked at before a run begins; `leaks` of them are in both splits."""

    task: TaskSpec
    name: str
    digest: str
    leaks: int = 0
    place: str = ""
    """the name of its table, where that is not the split's"""
    span: tuple[int, int] | None = None
    """which of the problems that the task loads: from one place up to another; None takes all"""

    def sealed(self, run: Run) -> Table:
        """The problems as a table of the run."""
        args = (self.task, self.name, self.digest, self.leaks, *([self.span] if self.span else []))
        return run.stage(f"problems/{self.place or self.name}", problem_rows, *args)


def splits(task: TaskSpec, trained_on: TaskSpec | None = None) -> tuple[Split, Split]:
    """Both splits of a task, checked to be apart and their graders to know right answers; of an evaluation, the
    training problems are of another spec, which its own run has looked at."""
    before = trained_on or task
    train, test = before.load("train"), task.load("test")
    leaks = check_apart(train, test, task.allow_leaks)
    check_grader(task, "test", test)
    if trained_on is None:
        check_grader(task, "train", train)
    return Split(before, "train", digest(train)), Split(task, "test", digest(test), leaks)


def parted(task: TaskSpec, first: int) -> tuple[Split, Split, Split]:
    """The first so many training problems, for what is trained before the team; those of the team, which leave out
    what is among the first; and the test problems, which are apart from both."""
    whole = replace(task, train=first + task.train)
    train, test = whole.load("train"), whole.load("test")
    leaks = check_apart(train, test, task.allow_leaks)
    own = train[first:]
    if own and not unseen(own, train[:first]):
        raise TeamtuneError(
            f"the {len(own)} training problems after the first {first} are among those, so that none is left "
            "for the team; give more problems, or fewer to what is trained before it"
        )
    check_grader(whole, "test", test)
    check_grader(whole, "train", train)
    return (
        Split(whole, "train", digest(train[:first]), place="first", span=(0, first)),
        Split(whole, "train", digest(own), span=(first, len(train))),
        Split(whole, "test", digest(test), leaks),
    )


def check_grader(task: TaskSpec, split: str, problems: Sequence[Problem]) -> None:
    """Say so where the grader takes none of the first problems' own answers for right: no training can mend that."""
    grader = judged_by(task, split)
    found = [next(errors_of(problem, grader), "") for problem in problems[:LOOKED_AT]]
    if len(found) >= LOOKED_AT and all(found):
        told = (
            f"task {task.name(split)!r}, {split} problems: {found[0]}, nor those of the next {len(found) - 1} problems"
        )
        warn(told)


def judged_by(task: TaskSpec, split: str) -> Grader:
    """The task's grader, held to what a grader gives."""
    grader = task.grade(split)

    @wraps(grader)  # whose it is decides what else may be equal (grading/merge.py)
    def grade(problem: Problem, text: str) -> Grade:
        found = grader(problem, text)
        if not isinstance(found, Grade):
            raise TeamtuneError(
                f"grade of task {task.name(split)!r} gave a {type(found).__name__}; it must give teamtune.Grade"
            )
        return found

    return grade


def all_elsewhere(task: TaskSpec, told: Sequence[str]) -> list[Split]:
    """`elsewhere` of several. Raises TeamtuneError where two of them would have one name in the run."""
    found: dict[str, Split] = {}
    for one in told:
        split = elsewhere(task, one)
        if split.place in found:
            raise TeamtuneError(
                f"eval_tasks has {split.place} twice, at {one!r} again; test on one of them, and on the other with "
                "teamtune eval"
            )
        found[split.place] = split
    return list(found.values())


def elsewhere(task: TaskSpec, told: str) -> Split:
    """Test problems of another task, told as NAME, NAME:LEVEL, NAME=PATH or NAME:LEVEL=PATH, where PATH holds its data:
    as many as the task's own or as there are, and apart from what the task trains on."""
    named, _, data = told.partition("=")
    name, _, level = named.partition(":")
    made = name in MADE or not hasattr(find(name), "DATASET")
    other = TaskSpec(
        task=name,
        level=level if made else "",
        levels=() if made or not level else (level,),
        data=data,
        train=1,
        test=task.test,
        held_out=task.held_out,
        data_seed=task.data_seed,
        allow_leaks=task.allow_leaks,
    )
    most = other.most()
    other = other if most is None else replace(other, test=min(task.test, most))
    return replace(splits(other, task)[1], place=f"{name}-{level}" if level else name)


def held_out_split(task: TaskSpec) -> Split:
    """The test problems of a task, for what trains nothing, looked at as those of `splits` are."""
    test = task.load("test")
    check_grader(task, "test", test)
    return Split(task, "test", digest(test))


def problem_rows(task: TaskSpec, split: str, same: str, leaks: int = 0, span: tuple[int, int] | None = None) -> Counted:
    """The rows of the problem table. `same` is their digest: it makes a stage notice that data have changed."""
    counts = Counter({"in the training set too": leaks} if leaks else {})
    every = task.load(split)
    problems = every[slice(*span)] if span else every
    kept = unseen(problems, every[: span[0]]) if span else problems
    if again := len(problems) - len(kept):
        counts["among the problems of what is trained before"] = again
    return Counted([problem_row(problem) for problem in kept], counts)


def unseen(problems: Sequence[Problem], before: Sequence[Problem]) -> Sequence[Problem]:
    """The problems without those that are among others, which something else is trained on."""
    again = {problem.id for problem in seen_in(before, problems)}
    return [problem for problem in problems if problem.id not in again]


def grade_turns(turns: Sequence[Row], problems: Sequence[Row], task: TaskSpec, split: str) -> Counted:
    """A grade for every turn: what was read in it, by which rule, and whether and why that is right.

    Equal texts on the same problem are graded once. Equal answers of a problem have the same text in "parsed", so that
    they vote together; those that a grader reads alike and scores apart are told apart, and counted. A scorer's turns
    are no answers.
    """
    turns = answering(turns)
    known = {problem.id: problem for problem in problems_in(problems)}
    grader = judged_by(task, split)
    asked = list(dict.fromkeys((turn["problem"], turn["text"]) for turn in turns))
    found = beside_each_other(lambda place: grader(known[place[0]], place[1]), asked)
    graded = dict(zip(asked, found, strict=True))
    stands: dict[tuple[str, str], str | None] = {}
    for score in {found.score for found in graded.values()}:  # what is right never stands for what is wrong
        stands |= alike({place: one.parsed for place, one in graded.items() if one.score == score}, known, grader)
    best: dict[tuple[str, str | None], float] = {}
    for place, answer in stands.items():
        best[place[0], answer] = max(best.get((place[0], answer), 0.0), graded[place].score)
    apart = 0
    rows: list[Row] = []
    for turn in turns:
        place = turn["problem"], turn["text"]
        found, parsed = graded[place], stands[place]
        if parsed is not None and found.score < best[place[0], parsed]:
            parsed, apart = f"{parsed} (scored {found.score:g})", apart + 1
        key = {name: turn[name] for name in ("problem", "take", "turn")}
        reason = found.reason if parsed == found.parsed else f"{found.reason}; {found.parsed} counts as {parsed}"
        rows.append({**key, "parsed": parsed, "score": found.score, "rule": found.rule, "reason": reason})
    return Counted(rows, unread(turns, rows) + Counter({"answers read alike and scored apart": apart}))


def unread(turns: Sequence[Row], rows: Sequence[Row]) -> Counter[str]:
    """How many turns of each agent have no answer that could be read."""
    silent = (turn["agent"] for turn, row in zip(turns, rows, strict=True) if row["parsed"] is None)
    return Counter(f"{agent}: no answer found" for agent in silent)


def beside_each_other(one: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """`one` of each item, in threads where they are many."""
    if len(items) <= FEW:
        return [one(item) for item in items]
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, items))


def alike(
    read: Mapping[tuple[str, str], str | None], problems: Mapping[str, Problem], grader: Grader
) -> dict[tuple[str, str], str | None]:
    """{(problem, text): answer} with one answer standing for all that are equal to it."""
    found: dict[str, set[str]] = {}
    for (name, _), parsed in read.items():
        if parsed is not None:
            found.setdefault(name, set()).add(parsed)
    one = lambda name: merged(problems[name], sorted(found[name]), grader)  # noqa: E731
    same = dict(zip(found, beside_each_other(one, list(found)), strict=True))
    return {place: None if parsed is None else same[place[0]][parsed] for place, parsed in read.items()}
