"""The imagined authors of the corpus: how they work through a plan, and how they write it down.

An author has a style and a care. Care sets how often a step goes wrong; what goes wrong is what goes wrong for people:
a digit slips, a carry is forgotten, a number is copied badly, the wrong operation or a number that does not matter is
used, a step is left out. A later step takes over what an earlier one gave.

    care 0.02, style "lines":   "7 * 23 = 161\n14 * 9 = 126\n12 + 161 = 173\n..."
    care 0.15, style "rewrite": "12 + 7 * 23 + 5 - 14 * 9\n= 12 + 161 + 5 - 136\n..."
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from teamtune.tasks.arithmetic import Order, Term, Terms, expression
from teamtune.tasks.arithmetic import plan as arithmetic_plan
from teamtune.tasks.plan import Op, Plan, Ref, Step, calculate, value

ARITHMETIC_STYLES = ("lines", "rewrite", "running", "groups", "words")
STORY_STYLES = ("sentences", "lines", "labels", "steps", "reasons")
CARES = ((0.01, 0.3), (0.05, 0.4), (0.14, 0.3))
"""(chance that a step goes wrong, share of authors)"""

PRECEDENCE = "Products come before sums."
SPOKEN: dict[Op, str] = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}


@dataclass(frozen=True, slots=True)
class Subject:
    """What an author writes about: a question with its right plan, and the expression where it is one."""

    question: str
    plan: Plan
    terms: Terms | None = None
    distraction: int | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """One step as an author did it: the numbers used and the result written."""

    op: Op
    x: int
    y: int
    z: int


@dataclass(frozen=True, slots=True)
class Work:
    """One worked solution."""

    subject: Subject
    style: str
    plan: Plan
    done: tuple[Done, ...]
    flaw: str = ""
    """What is wrong with the plan itself, as a critic would say it; empty where the plan is right."""

    @property
    def answer(self) -> int:
        return self.done[-1].z


def care(rng: random.Random) -> float:
    """How often a step of a random author goes wrong."""
    rates, weights = zip(*CARES, strict=True)
    return rng.choices(rates, weights)[0]


def slip(rng: random.Random, z: int) -> int:
    """A wrong result near the right one: a digit off, a carry forgotten, digits swapped, a sign lost."""
    forms = [
        z + rng.choice([-1, 1]),
        z + rng.choice([-10, 10]),
        z + rng.choice([-2, 2, -9, 9, -20, 20, -100, 100]),
    ]
    text = str(abs(z))
    if len(text) > 1:
        i = rng.randrange(len(text) - 1)
        swapped = text[:i] + text[i + 1] + text[i] + text[i + 2 :]
        forms.append((-1 if z < 0 else 1) * int(swapped))
    if z < 0 and rng.random() < 0.3:
        forms.append(-z)
    wrong = [form for form in forms if form != z]
    return rng.choice(wrong)


def misread(rng: random.Random, x: int) -> int:
    """A number copied badly."""
    return abs(x + rng.choice([-1, 1, -10, 10, 2, -2]))


def attempt(op: Op, x: int, y: int) -> int:
    """What comes out of a calculation; a division that does not come out even is rounded down, or not done by 0."""
    if op == "/" and (y == 0 or x % y):
        return x // y if y else x
    return calculate(op, x, y)


def follow(rng: random.Random, plan: Plan, rate: float, given: dict[int, int] | None = None) -> tuple[Done, ...]:
    """Work through a plan with errors at `rate` a step; `given` results are taken over as they are."""
    found: list[int] = []
    done: list[Done] = []
    for k, step in enumerate(plan):
        x, y = value(step.left, found), value(step.right, found)
        error = rng.random() < rate
        if error and rng.random() < 0.2 and not isinstance(step.right, Ref):
            y = misread(rng, y)
            error = False
        z = attempt(step.op, x, y)
        if error:
            z = slip(rng, z)
        if given is not None and k in given:
            y, z = value(step.right, found), given[k]
        found.append(z)
        done.append(Done(step.op, x, y, z))
    return tuple(done)


# ---- plans that are wrong ----------------------------------------------------------------------------------------


def misplan(rng: random.Random, subject: Subject, style: str) -> tuple[Plan, str]:
    """A plan with a mistake of thought, and the mistake in a critic's words."""
    return _bad_expression(rng, subject, style) if subject.terms else _bad_story(rng, subject)


def _bad_expression(rng: random.Random, subject: Subject, style: str) -> tuple[Plan, str]:
    terms = subject.terms
    assert terms is not None
    kind = rng.choice(["sign", "left", "dropped", "left"])
    later = range(1, len(terms))
    if kind == "left" and any(len(term.factors) > 1 for term in terms[1:]):
        return _left_to_right(terms), PRECEDENCE
    if kind == "dropped" and len(terms) > 2:
        gone = rng.choice(later)
        shorter = tuple(term for i, term in enumerate(terms) if i != gone)
        return arithmetic_plan(shorter, order_of(style)), f"The {terms[gone]} is left out."
    turned = rng.choice(later)
    flipped = "-" if terms[turned].sign == "+" else "+"
    changed = tuple(Term(flipped, t.factors) if i == turned else t for i, t in enumerate(terms))
    verb = "added" if terms[turned].sign == "+" else "taken away"
    return arithmetic_plan(changed, order_of(style)), f"The {terms[turned]} must be {verb}."


def _left_to_right(terms: Terms) -> Plan:
    """Everything strictly from left to right, products not first."""
    steps: list[Step] = []
    total: int | Ref = terms[0].factors[0]
    pairs: list[tuple[Op, int]] = []
    for place, term in enumerate(terms):
        first, *factors = term.factors
        if place:
            pairs.append((term.sign, first))
        pairs.extend(("*", factor) for factor in factors)
    for op, number in pairs:
        steps.append(Step(op, total, number))
        total = Ref(len(steps) - 1)
    return tuple(steps)


def _bad_story(rng: random.Random, subject: Subject) -> tuple[Plan, str]:
    plan = subject.plan
    k = rng.randrange(len(plan))
    step = plan[k]
    kind = rng.choice(["operation", "operation", "distractor", "skipped"])
    if kind == "distractor" and subject.distraction is not None and isinstance(step.right, int):
        wrong = replace(step, right=subject.distraction)
        return (*plan[:k], wrong, *plan[k + 1 :]), f"The {subject.distraction} does not matter here."
    if kind == "skipped" and k == len(plan) - 1 and k > 0:
        return plan[:-1], f"A step is missing: {step.why}."
    other: dict[Op, Op] = {"+": "-", "-": "+", "*": "+", "/": "*"}
    wrong = replace(step, op=other[step.op])
    return (*plan[:k], wrong, *plan[k + 1 :]), f"{step.why[:1].upper()}{step.why[1:]}."


def order_of(style: str) -> Order:
    if style == "running":
        return "running"
    return "grouping" if style == "groups" else "products"


def solve(rng: random.Random, subject: Subject, rate: float) -> Work:
    """One author's solution at an error rate a step. Mistakes of thought come about as often as one bad step."""
    style = rng.choice(ARITHMETIC_STYLES if subject.terms else STORY_STYLES)
    plan = arithmetic_plan(subject.terms, order_of(style)) if subject.terms else subject.plan
    flaw = ""
    if rng.random() < 1.2 * rate:
        plan, flaw = misplan(rng, subject, style)
        # Rewriting shows the whole expression each time, which leaves no room for another plan.
        style = "lines" if style == "rewrite" or flaw == PRECEDENCE else style
    return Work(subject, style, plan, follow(rng, plan, rate), flaw)


# ---- writing it down ---------------------------------------------------------------------------------------------


def equation(done: Done) -> str:
    return f"{done.x} {done.op} {done.y} = {done.z}"


def written(work: Work) -> str:
    """The solution as its author writes it, with the answer line."""
    body = _expression_text(work) if work.subject.terms else _story_text(work)
    return f"{body}\nAnswer: {work.answer}"


def _expression_text(work: Work) -> str:
    lines = [equation(done) for done in work.done]
    if work.style == "rewrite":
        return _rewritten(work)
    if work.style == "running":
        return ", ".join(lines) + "."
    if work.style == "groups":
        return "Added first, taken away last.\n" + "\n".join(lines)
    if work.style == "words":
        said = [f"{d.x} {SPOKEN[d.op]} {d.y} is {d.z}." for d in work.done]
        return " ".join(["First the products.", *said])
    return "\n".join(lines)


def _rewritten(work: Work) -> str:
    """The expression again and again, with one more thing worked out in each line."""
    terms = work.subject.terms
    assert terms is not None
    products = [done for done in work.done if done.op == "*"]
    sums = [done for done in work.done if done.op != "*"]
    left = iter(products)
    known = [next(left, None) if len(term.factors) > 1 else None for term in terms]
    pieces = [(t.sign, d.z if d else t.factors[0]) for t, d in zip(terms, known, strict=True)]
    lines = [expression(terms)]
    if products:
        lines.append(_sum_text(pieces))
    for k, done in enumerate(sums):
        lines.append(_sum_text([("+", done.z), *pieces[k + 2 :]]))
    return "\n= ".join(lines)


def _sum_text(pieces: Sequence[tuple[str, int]]) -> str:
    return str(pieces[0][1]) + "".join(f" {sign} {number}" for sign, number in pieces[1:])


def _story_text(work: Work) -> str:
    lines = [equation(done) for done in work.done]
    pairs = list(zip(work.plan, lines, strict=True))
    if work.style == "sentences":
        return " ".join(step.says.format(calc=line) for step, line in pairs)
    if work.style == "labels":
        return "\n".join(f"{step.label}: {line}" for step, line in pairs)
    if work.style == "steps":
        return "\n".join(f"Step {k}: {line}" for k, line in enumerate(lines, 1))
    if work.style == "reasons":
        return "\n".join(f"{step.why[:1].upper()}{step.why[1:]}: {line}." for step, line in pairs)
    return "\n".join(lines)
