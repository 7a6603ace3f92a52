"""Plans: the calculation behind a made problem, as a short list of steps.

    "Tom has 5 boxes of 12 apples. He gives 13 apples away."  has the plan
    Step("*", 5, 12, "apples in all"), Step("-", Ref(0), 13, "apples left")

The tasks make a plan with every problem; the house model's corpus lets imagined authors follow it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from teamtune.types import TeamtuneError

Op = Literal["+", "-", "*", "/"]
Split = Literal["train", "dev", "test", "corpus"]


@dataclass(frozen=True, slots=True)
class Ref:
    """The result of an earlier step."""

    step: int


Operand = int | Ref


@dataclass(frozen=True, slots=True)
class Step:
    op: Op
    left: Operand
    right: Operand
    label: str = ""
    """What the step finds: "apples left"."""
    says: str = "{calc}"
    """A sentence of the worked solution; {calc} stands for "60 - 13 = 47"."""
    why: str = ""
    """Why this operation: "13 are given away, so take them off"."""


Plan = tuple[Step, ...]
T = TypeVar("T")


def calculate(op: Op, x: int, y: int) -> int:
    """One operation on whole numbers; a division must come out even."""
    if op == "+":
        return x + y
    if op == "-":
        return x - y
    if op == "*":
        return x * y
    if y == 0 or x % y:
        raise ValueError(f"{x} / {y} does not come out even")
    return x // y


def value(operand: Operand, results: Sequence[int]) -> int:
    """An operand as a number, given the results of the steps so far."""
    return results[operand.step] if isinstance(operand, Ref) else operand


def results(plan: Plan) -> list[int]:
    """What every step of the plan gives."""
    found: list[int] = []
    for step in plan:
        found.append(calculate(step.op, value(step.left, found), value(step.right, found)))
    return found


# Which split a question belongs to depends on its text alone, so the splits are disjoint whatever the seeds.
_BUCKETS: dict[Split, range] = {
    "test": range(0, 1),
    "train": range(1, 2),
    "dev": range(2, 3),
    "corpus": range(3, 8),
}


def split_of(question: str) -> Split:
    """The split that owns a question: 1/8 of all questions are test, 1/8 train, 1/8 dev, 5/8 for the house corpus."""
    bucket = hashlib.sha256(question.encode()).digest()[0] % 8
    return next(split for split, buckets in _BUCKETS.items() if bucket in buckets)


def draw(
    name: str,
    split: str,
    seed: int,
    index: int,
    make: Callable[[random.Random], T],
    question: Callable[[T], str],
) -> T:
    """The item that (split, seed, index) names: draws until the question falls into the split."""
    if split not in _BUCKETS:
        raise TeamtuneError(f"{name} has no split {split!r}; choose train, dev or test")
    rng = random.Random(f"{name}/{split}/{seed}/{index}")
    while True:
        item = make(rng)
        if split_of(question(item)) == split:
            return item


def distinct(
    name: str, count: int, item_at: Callable[[int], T], question: Callable[[T], str]
) -> Iterator[tuple[int, T]]:
    """The first `count` items with different questions, with their indices.

    Raises TeamtuneError where a level has too few different questions for that.
    """
    seen: set[str] = set()
    for index in range(20 * count + 1000):
        item = item_at(index)
        if question(item) not in seen:
            seen.add(question(item))
            yield index, item
        if len(seen) == count:
            return
    raise TeamtuneError(f"{name} has only about {len(seen)} different questions; ask for fewer than {count}")
