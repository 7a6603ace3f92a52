"""Whole-number expressions, made on the fly: unlimited, and deterministic from (split, seed, index).

The default level is the task of Du et al. (2024), used by Multiagent Finetuning (its section 4):
a + b * c + d - e * f with whole numbers 0..29.

    question  "What is the result of 12 + 7 * 23 + 5 - 14 * 9?"
    answer    "52"

Levels 1 to 4 grade the number and the size of the terms; level 5 is larger than anything in the house model's
corpus and serves as the out-of-distribution level.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from teamtune.grading.number import grade as grade
from teamtune.tasks.plan import Operand, Plan, Ref, Step, distinct, draw, results
from teamtune.types import Problem, TeamtuneError

ENDING = "End with a line: Answer: <number>"
DEFAULT_LEVEL = "paper"
Order = Literal["products", "running", "grouping"]
Sign = Literal["+", "-"]
SIGNS: list[Sign] = ["+", "-"]


@dataclass(frozen=True, slots=True)
class Term:
    """One signed term: a number, or a product of two."""

    sign: Sign
    factors: tuple[int, ...]

    def __str__(self) -> str:
        return " * ".join(map(str, self.factors))


Terms = tuple[Term, ...]

# level -> (number of terms, how many of them are products, largest number)
LEVELS: dict[str, tuple[int, int, int]] = {
    "paper": (4, 2, 29),
    "1": (2, 1, 30),
    "2": (3, 1, 30),
    "3": (4, 2, 29),
    "4": (5, 2, 40),
    "5": (6, 3, 60),
}


def make(rng: random.Random, level: str) -> Terms:
    """Draw one expression of the level."""
    count, products, top = LEVELS[level]
    if level == "paper":
        a, b, c, d, e, f = (rng.randint(0, 29) for _ in range(6))
        return (Term("+", (a,)), Term("+", (b, c)), Term("+", (d,)), Term("-", (e, f)))
    multiplied = set(rng.sample(range(count), products))
    terms = []
    for place in range(count):
        factors = tuple(rng.randint(2, top) for _ in range(2 if place in multiplied else 1))
        sign = "+" if place == 0 else rng.choice(SIGNS)
        terms.append(Term(sign, factors))
    return tuple(terms)


def expression(terms: Terms) -> str:
    """ "12 + 7 * 23 + 5 - 14 * 9"."""
    return str(terms[0]) + "".join(f" {term.sign} {term}" for term in terms[1:])


def question(terms: Terms) -> str:
    """The question that a problem asks about its terms."""
    return f"What is the result of {expression(terms)}?"


def plan(terms: Terms, order: Order = "products") -> Plan:
    """The steps in one of three orders: all products first; as they come; what is added, then what is taken away."""
    steps: list[Step] = []

    def product(term: Term) -> Operand:
        if len(term.factors) == 1:
            return term.factors[0]
        steps.append(Step("*", term.factors[0], term.factors[1]))
        return Ref(len(steps) - 1)

    def chain(total: Operand, signed: Sequence[tuple[Sign, Operand]]) -> Operand:
        for sign, operand in signed:
            steps.append(Step(sign, total, operand))
            total = Ref(len(steps) - 1)
        return total

    if order == "running":
        total = product(terms[0])
        for term in terms[1:]:
            total = chain(total, [(term.sign, product(term))])
        return tuple(steps)
    values: list[tuple[Sign, Operand]] = [(term.sign, product(term)) for term in terms]
    if order == "products":
        chain(values[0][1], values[1:])
        return tuple(steps)
    plus = [operand for sign, operand in values if sign == "+"]
    minus = [operand for sign, operand in values if sign == "-"]
    total = chain(plus[0], [("+", operand) for operand in plus[1:]])
    if minus:
        chain(total, [("-", chain(minus[0], [("+", operand) for operand in minus[1:]]))])
    return tuple(steps)


def worked(terms: Terms) -> str:
    """A worked solution: products first, one calculation a line."""
    steps, found = plan(terms), results(plan(terms))
    shown = lambda x: str(found[x.step] if isinstance(x, Ref) else x)  # noqa: E731
    lines = [f"{shown(s.left)} {s.op} {shown(s.right)} = {z}" for s, z in zip(steps, found, strict=True)]
    return "\n".join([*lines, f"Answer: {found[-1]}"])


def terms_at(split: str, seed: int, index: int, level: str = DEFAULT_LEVEL) -> Terms:
    """The expression that (split, seed, index) names; raises TeamtuneError for an unknown split."""
    return draw(f"arithmetic-{level}", split, seed, index, lambda rng: make(rng, level), question)


def load(split: str, count: int, seed: int = 0, level: str = DEFAULT_LEVEL) -> list[Problem]:
    """`count` problems of a split. Train and test never share a question, whatever their seeds."""
    if level not in LEVELS:
        raise TeamtuneError(f"arithmetic has no level {level!r}; choose one of {', '.join(LEVELS)}")
    problems = []
    drawn = distinct(f"arithmetic level {level}", count, lambda i: terms_at(split, seed, i, level), question)
    for index, terms in drawn:
        answer = str(results(plan(terms))[-1])
        meta = {"level": level, "solution": worked(terms)}
        problems.append(Problem(f"arithmetic-{level}/{split}/{seed}/{index}", question(terms), answer, ENDING, meta))
    return problems
