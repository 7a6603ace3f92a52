"""The corpus's critics, refiners, debaters and summarisers.

A careful critic redoes one step at a time in more detail than any solver writes ("14 * 9 = 10 * 9 + 4 * 9 = 90 + 36 =
126. It says 136, wrong."), goes on with the corrected number after a mistake, and closes with a verdict and an answer.
A quick one redoes the steps as a solver would; a glance only says what it feels like.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from teamtune.house.authors import Done, Subject, Work, attempt, care, equation, follow, slip, solve, written
from teamtune.tasks.plan import Op, Plan, results, value

CRITICS = (("careful", 0.6), ("quick", 0.22), ("glance", 0.18))
REFINERS = (("follow", 0.62), ("again", 0.22), ("stubborn", 0.16))
DEBATERS = (("majority", 0.4), ("checker", 0.3), ("again", 0.18), ("stubborn", 0.12))


def pick(rng: random.Random, kinds: Sequence[tuple[str, float]]) -> str:
    names, weights = zip(*kinds, strict=True)
    return rng.choices(names, weights)[0]


# ---- one step in detail ----------------------------------------------------------------------------------------------


def detail(op: Op, x: int, y: int) -> str:
    """A calculation in small pieces, up to the last equals sign: "14 * 9 = 10 * 9 + 4 * 9 = 90 + 36 = "."""
    head = f"{x} {op} {y} = "
    if op == "*":
        return head + _product(x, y)
    if op == "+" and x >= 0 and y >= 10 and (x >= 10 or y >= 100):
        high, low = y // 10 * 10, y % 10
        return head + (f"{x + high} + {low} = " if low else "")
    if op == "-" and x >= 0 and y >= 10:
        if y > x:
            return head + f"-({y} - {x}) = "
        high, low = y // 10 * 10, y % 10
        return head + (f"{x - high} - {low} = " if low else "")
    if op == "-" and x < 0:
        return head + f"-({-x} + {y}) = "
    if op == "+" and x < 0:
        return head + (f"{y} - {-x} = " if y >= -x else f"-({-x} - {y}) = ")
    return head


def _product(x: int, y: int) -> str:
    big, small = max(abs(x), abs(y)), min(abs(x), abs(y))
    high, low = big // 10 * 10, big % 10
    if big < 10 or small < 2 or not low or x < 0 or y < 0:
        return ""
    return f"{high} * {small} + {low} * {small} = {high * small} + {low * small} = "


# ---- critiques -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Critique:
    text: str
    right: bool
    """The critic's verdict on the solution."""
    given: dict[int, int]
    """Step -> result that the critic arrived at, in the order of `plan`."""
    plan: Plan
    answer: int | None


def critique(rng: random.Random, work: Work, kind: str | None = None) -> Critique:
    """What a critic of the given kind writes about a solution."""
    kind = kind or pick(rng, CRITICS)
    if kind == "glance":
        return _glance(rng, work)
    return _redo(rng, work, 0.01 if kind == "careful" else care(rng), kind == "careful")


def _glance(rng: random.Random, work: Work) -> Critique:
    truth = work.answer == _true_answer(work.subject)
    right = rng.random() < (0.85 if truth else 0.6)
    if right:
        text = rng.choice(["It looks fine.", "I see no mistake.", "All steps look right."])
        return Critique(f"{text}\nVerdict: right.\nAnswer: {work.answer}", True, {}, work.plan, work.answer)
    text = rng.choice(["Something is off here.", "I do not trust this.", "This cannot be right."])
    return Critique(f"{text}\nVerdict: wrong.", False, {}, work.plan, None)


def _true_answer(subject: Subject) -> int:
    return results(subject.plan)[-1]


def _redo(rng: random.Random, work: Work, rate: float, careful: bool) -> Critique:
    """Go through the solution step by step: what the problem asks for, what comes out, what the solution says.

    A quick critic overlooks a flaw of an expression's plan half of the time.
    """
    lines: list[str] = []
    plan, aligned = work.plan, True
    if work.subject.terms is None:
        plan = work.subject.plan
    elif work.flaw and (careful or rng.random() < 0.5):
        lines.append(work.flaw)
        plan, aligned = work.subject.plan, False
    found: list[int] = []
    for k, step in enumerate(plan):
        x, y = value(step.left, found), value(step.right, found)
        z = attempt(step.op, x, y)
        if rng.random() < rate:
            z = slip(rng, z)
        found.append(z)
        shown = detail(step.op, x, y) if careful else f"{x} {step.op} {y} = "
        because = f"{step.why}: " if step.why and careful else ""
        line, aligned = _judged(f"{because}{shown}{z}", work, k, Done(step.op, x, y, z), aligned)
        lines.append(line)
    right = found[-1] == work.answer and aligned
    numbered = [f"{k}. {line}" for k, line in enumerate(lines, 1)]
    close = f"Verdict: {'right' if right else 'wrong'}.\nAnswer: {found[-1]}"
    return Critique("\n".join([*numbered, close]), right, dict(enumerate(found)), plan, found[-1])


def _judged(shown: str, work: Work, k: int, mine: Done, aligned: bool) -> tuple[str, bool]:
    """One line of a critique, and whether the solution still agrees with the critic after it.

    The critic quotes the solution beside its own result before it judges: "= 126. It says 136, wrong."
    """
    if not aligned:
        return f"{shown}.", False
    if k >= len(work.done):
        return f"{shown}. It stops before this, wrong.", False
    done = work.done[k]
    # Rewriting shows results alone; its operands cannot be quoted.
    if (done.op, done.x, done.y) != (mine.op, mine.x, mine.y) and work.style != "rewrite":
        return f"{shown}. It says {equation(done)}, wrong.", False
    if done.z != mine.z:
        return f"{shown}. It says {done.z}, wrong.", False
    return f"{shown}. It says {done.z}, right.", True


# ---- refiners --------------------------------------------------------------------------------------------------------


def refinement(rng: random.Random, work: Work, feedback: Critique | None, kind: str | None = None) -> Work:
    """A refined solution. A follower takes over what the critic found; others solve again or keep what there is."""
    kind = kind or pick(rng, REFINERS)
    if kind == "stubborn" or (kind == "follow" and feedback is not None and feedback.right):
        return work
    if kind == "follow" and feedback is not None and feedback.given:
        return _taken_over(rng, work, feedback)
    return solve(rng, work.subject, care(rng))


def _taken_over(rng: random.Random, work: Work, feedback: Critique) -> Work:
    """The solution with the critic's results, in the old style where the critic kept the order of the steps."""
    given = {k: z for k, z in feedback.given.items() if rng.random() > 0.01}
    kept = feedback.plan == work.plan or work.subject.terms is None
    style = work.style if kept else "lines"
    return Work(work.subject, style, feedback.plan, follow(rng, feedback.plan, 0.01, given))


# ---- debates ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """What a debater says after reading the others: a remark, and the solution now held."""

    remark: str
    work: Work

    @property
    def text(self) -> str:
        return f"{self.remark}\n{written(self.work)}"


def reply(rng: random.Random, own: Work, peers: Sequence[Work], scores: Sequence[float] | None = None) -> Reply:
    """A debater's next answer after seeing peers' solutions (with their scores, own first, where there are some)."""
    kind = pick(rng, DEBATERS)
    everyone = [own, *peers]
    if kind == "stubborn":
        return Reply("I stay with my answer.", own)
    if kind == "again":
        return Reply("I solve it again.", solve(rng, own.subject, care(rng)))
    if scores is not None and rng.random() < 0.7:
        best = max(range(len(everyone)), key=lambda i: scores[i])
        if best == 0:
            return Reply("My answer has the best score. I stay with it.", own)
        return Reply(f"Agent {best} has the best score.", everyone[best])
    if kind == "checker":
        return _checked(rng, own, everyone)
    answer, votes = Counter(work.answer for work in everyone).most_common(1)[0]
    if votes == 1:
        return Reply("All answers differ. I solve it again.", solve(rng, own.subject, care(rng)))
    remark = "I agree." if answer == own.answer else "I was wrong."
    chosen = own if answer == own.answer else next(work for work in peers if work.answer == answer)
    return Reply(f"{votes} of {len(everyone)} say {answer}. {remark}", chosen)


def _checked(rng: random.Random, own: Work, everyone: Sequence[Work]) -> Reply:
    """Check the own solution in detail and answer with what comes out."""
    if len({work.answer for work in everyone}) == 1:
        return Reply(f"All say {own.answer}. I agree.", own)
    found = critique(rng, own, "careful")
    if found.right:
        return Reply("I checked my steps. They are right.", own)
    wrong = next((line for line in found.text.split("\n") if line.endswith("wrong.")), "")
    return Reply(f"I find a mistake in mine. {wrong[3:]}", refinement(rng, own, found, "follow"))


def summary(works: Sequence[Work]) -> str:
    """Who says what, and the calculations it stands on."""
    groups: dict[int, list[int]] = {}
    for i, work in enumerate(works, 1):
        groups.setdefault(work.answer, []).append(i)
    lines = []
    for answer, members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[1])):
        steps = ", ".join(equation(done) for done in works[members[0] - 1].done)
        who = f"Agent {members[0]} says" if len(members) == 1 else f"Agents {' and '.join(map(str, members))} say"
        lines.append(f"{who} {answer}: {steps}.")
    return "\n".join(lines)
