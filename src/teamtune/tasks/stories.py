"""Short word problems in the manner of GSM8K, composed on the fly: unlimited, deterministic from (split, seed, index).

    question  "Mia fills 6 bags with 14 shells in each. Omar is 9 years old. She gives 25 shells to Omar.
               How many shells does Mia have now?"
    answer    "59"
    solution  "There are 6 * 14 = 84 shells in all. Then 84 - 25 = 59 shells are left.\nAnswer: 59"

A story is a start, a chain of events and a question; each event is one or two steps of the calculation. The level is
the number of steps. Levels 1 to 4 are in the house model's corpus; 5 and 6 are longer than anything it has seen.
Some stories hold a distractor, a sentence with a number that does not matter.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from teamtune.grading.number import grade as grade
from teamtune.tasks.plan import Plan, Ref, Step, distinct, draw, results
from teamtune.tasks.story_events import EVENTS, MONEY_EVENTS, NAMES, SELL, STARTS, THINGS, Event, distractor
from teamtune.types import Problem, TeamtuneError

ENDING = "End with a line: Answer: <number>"
DEFAULT_LEVEL = "3"
LEVELS = ("1", "2", "3", "4", "5", "6")
LARGEST = 999


@dataclass(frozen=True, slots=True)
class Story:
    question: str
    plan: Plan
    distraction: int | None
    """The number that does not matter, where there is one."""


def make(rng: random.Random, level: str) -> Story:
    """Draw one story with as many steps as its level."""
    while True:
        story = _try(rng, int(level))
        if story is not None:
            return story


def _try(rng: random.Random, size: int) -> Story | None:
    """One attempt; None where a number left the range that the task allows."""
    name, female = rng.choice(NAMES)
    # The others are of the other sex, so that "she" and "he" are never in doubt.
    other, third = rng.sample([n for n, is_female in NAMES if is_female != female], 2)
    words = {
        "name": name,
        "other": other,
        "third": third,
        "she": "she" if female else "he",
        "She": "She" if female else "He",
        "her": "her" if female else "his",
        "things": rng.choice(THINGS),
    }
    sentences: list[str] = []
    steps: list[Step] = []

    def tell(event: Event, now: int) -> int | None:
        """Add an event to the story; what there is afterwards, None where it does not fit."""
        made = event(rng, now, len(steps))
        if made is None or len(steps) + len(made.steps) > size:
            return None
        sentences.append(made.text.format(**words))
        steps.extend(
            Step(s.op, s.left, s.right, s.label.format(**words), s.says.format(calc="{calc}", **words), s.why)
            for s in made.steps
        )
        found = results(tuple(steps))
        if any(not 0 < z <= LARGEST for z in found):
            return None
        return found[-1] if steps else made.start

    now = tell(rng.choice(STARTS), 0)
    if now is None:
        return None
    unit = words["things"]
    while len(steps) < size:
        in_money = unit == "dollars"
        sells = bool(steps) and not in_money and rng.random() < 0.2
        event = SELL if sells else rng.choice(MONEY_EVENTS if in_money else EVENTS)
        now = tell(event, now)
        if now is None:
            return None
        unit = "dollars" if sells else unit
    distraction = None
    if rng.random() < 0.35:
        text, distraction = distractor(rng)
        sentences.insert(rng.randint(1, len(sentences)), text.format(**words))
    sentences.append(_asks(rng, unit).format(**words))
    return Story(" ".join(sentences), tuple(steps), distraction)


def _asks(rng: random.Random, unit: str) -> str:
    """The question; it names the owner, for others in the story may own such things too."""
    if unit == "dollars":
        return rng.choice(["How many dollars does {name} have now?", "How much money does {name} have in the end?"])
    return rng.choice(
        [
            "How many {things} does {name} have now?",
            "How many {things} does {name} have in the end?",
            "How many are left with {name}?",
        ]
    )


def worked(plan: Plan) -> str:
    """A worked solution in sentences, with every calculation spelled out."""
    found = results(plan)
    shown = lambda x: found[x.step] if isinstance(x, Ref) else x  # noqa: E731
    lines = [
        step.says.format(calc=f"{shown(step.left)} {step.op} {shown(step.right)} = {z}")
        for step, z in zip(plan, found, strict=True)
    ]
    return " ".join(lines) + f"\nAnswer: {found[-1]}"


def story_at(split: str, seed: int, index: int, level: str = DEFAULT_LEVEL) -> Story:
    """The story that (split, seed, index) names; raises TeamtuneError for an unknown split."""
    return draw(f"stories-{level}", split, seed, index, lambda rng: make(rng, level), lambda s: s.question)


def load(split: str, count: int, seed: int = 0, level: str = DEFAULT_LEVEL) -> list[Problem]:
    """`count` problems of a split. Train and test never share a question, whatever their seeds."""
    if level not in LEVELS:
        raise TeamtuneError(f"stories has no level {level!r}; choose one of {', '.join(LEVELS)}")
    problems = []
    stories = distinct(f"stories level {level}", count, lambda i: story_at(split, seed, i, level), lambda s: s.question)
    for index, story in stories:
        answer = str(results(story.plan)[-1])
        meta = {"level": level, "solution": worked(story.plan)}
        problems.append(Problem(f"stories-{level}/{split}/{seed}/{index}", story.question, answer, ENDING, meta))
    return problems
