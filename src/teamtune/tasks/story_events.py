"""What can happen in a story: starts, events, sales and distractors, each with several wordings.

An event looks at what there is now and draws its numbers; it gives None where it does not fit (nothing to halve
evenly, say). In the texts {name}, {other}, {things}, {she}, {her} are filled in by the story; in `says`, {calc} is the
calculation, "60 - 13 = 47".
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from teamtune.tasks.plan import Operand, Ref, Step


@dataclass(frozen=True, slots=True)
class Told:
    text: str
    steps: tuple[Step, ...]
    start: int = 0
    """What there is afterwards, where no step says so."""


Event = Callable[[random.Random, int, int], Told | None]
"""(random numbers, what there is now, steps so far) -> what is told, or None where it does not fit."""

NAMES = [
    *((n, True) for n in "Mia Anna Lucy Rosa Emma Nina Sara Ella Zoe Ivy Clara Maya Julia Lena Amy Kate".split()),
    *((n, False) for n in "Tom Omar Ben Leo Max Sam Noah Adam Jack Paul Luis Finn Hugo Eric Raj Dan".split()),
]
THINGS = (
    "apples pears plums eggs cakes cookies shells stamps cards coins marbles books pens pencils beads stickers "
    "flowers roses seeds nuts candles buttons toys balls bricks tiles photos keys cups plates"
).split()
KIND = [("red", "blue"), ("big", "small"), ("old", "new"), ("green", "yellow")]


def now_of(now: int, so_far: int) -> Operand:
    """What there is now as an operand: the last step's result, or the number the story began with."""
    return Ref(so_far - 1) if so_far else now


# ---- starts ----------------------------------------------------------------------------------------------------------


def has(rng: random.Random, now: int, so_far: int) -> Told:
    a = rng.randint(6, 90)
    text = rng.choice(
        [
            "{name} has %d {things}.",
            "{name} starts with %d {things}.",
            "There are %d {things} in {name}'s box.",
        ]
    )
    return Told(text % a, (), a)


def packs(rng: random.Random, now: int, so_far: int) -> Told:
    a, b = rng.randint(2, 19), rng.randint(3, 25)
    text = rng.choice(
        [
            f"{{name}} buys {a} boxes of {{things}} with {b} {{things}} in each box.",
            f"{{name}} fills {a} bags with {b} {{things}} in each.",
            f"There are {a} rows of {b} {{things}} on {{name}}'s table.",
            f"{{name}} has {a} packs of {{things}}. Each pack holds {b}.",
        ]
    )
    step = Step("*", a, b, "{things} in all", "There are {calc} {things} in all.", f"{a} times {b} each, so multiply")
    return Told(text, (step,))


def rate(rng: random.Random, now: int, so_far: int) -> Told:
    a, b = rng.randint(4, 28), rng.randint(2, 14)
    unit = rng.choice(["day", "hour", "week"])
    text = rng.choice(
        [
            f"{{name}} makes {a} {{things}} every {unit} for {b} {unit}s.",
            f"For {b} {unit}s {{name}} finds {a} {{things}} per {unit}.",
            f"{{name}} gets {a} {{things}} each {unit}. {{She}} does so for {b} {unit}s.",
        ]
    )
    step = Step(
        "*",
        a,
        b,
        "{things} in all",
        f"In {b} {unit}s that makes {{calc}} {{things}}.",
        f"{a} per {unit}, so multiply",
    )
    return Told(text, (step,))


def kinds(rng: random.Random, now: int, so_far: int) -> Told:
    a, b = rng.randint(5, 150), rng.randint(5, 150)
    one, two = rng.choice(KIND)
    text = rng.choice(
        [
            f"{{name}} has {a} {one} {{things}} and {b} {two} {{things}}.",
            f"In {{name}}'s bag are {a} {one} and {b} {two} {{things}}.",
        ]
    )
    step = Step("+", a, b, "{things} in all", "Together {calc} {things}.", "both kinds count, so add")
    return Told(text, (step,))


def compared(rng: random.Random, now: int, so_far: int) -> Told | None:
    a, b = rng.randint(8, 120), rng.randint(3, 60)
    form = rng.choice(["more", "fewer", "times"])
    if form == "more":
        text, op, why = f"{{name}} has {b} more {{things}} than {{other}}.", "+", f"{b} more, so add"
    elif form == "fewer":
        if b >= a:
            return None
        text, op, why = f"{{name}} has {b} fewer {{things}} than {{other}}.", "-", f"{b} fewer, so subtract"
    else:
        b = rng.randint(2, 6)
        text, op, why = (
            f"{{name}} has {b} times as many {{things}} as {{other}}.",
            "*",
            f"{b} times, so multiply",
        )
    text = rng.choice([f"{{other}} has {a} {{things}}. {text}", f"{text} {{other}} has {a} {{things}}."])
    return Told(text, (Step(op, a, b, "{name}'s {things}", "{name} has {calc} {things}.", why),))


# ---- events ----------------------------------------------------------------------------------------------------------


def gets(rng: random.Random, now: int, so_far: int) -> Told:
    b = rng.randint(3, 160)
    text = rng.choice(
        [
            f"{{other}} gives {{name}} {b} more.",
            f"Then {{name}} finds {b} more {{things}}.",
            f"{{She}} gets {b} {{things}} from {{other}}.",
            f"{{name}} buys another {b} {{things}}.",
        ]
    )
    step = Step(
        "+",
        now_of(now, so_far),
        b,
        "{things} now",
        "With the new ones {calc} {things}.",
        f"{b} come in, so add",
    )
    return Told(text, (step,))


def gives(rng: random.Random, now: int, so_far: int) -> Told | None:
    if now < 4:
        return None
    b = rng.randint(2, now - 1)
    text = rng.choice(
        [
            f"{{She}} gives {b} {{things}} to {{other}}.",
            f"Then {{name}} loses {b} of them.",
            f"{{other}} takes {b} {{things}} away from {{name}}.",
            f"{b} of {{name}}'s {{things}} break.",
            f"{{name}} sends {b} {{things}} to {{third}}.",
        ]
    )
    step = Step(
        "-",
        now_of(now, so_far),
        b,
        "{things} left",
        "Then {calc} {things} are left.",
        f"{b} go away, so subtract",
    )
    return Told(text, (step,))


def grows(rng: random.Random, now: int, so_far: int) -> Told:
    k = rng.choice([2, 2, 3, 3, 4, 5])
    word = {2: "doubles", 3: "triples"}.get(k)
    text = rng.choice(
        [
            f"Later {{she}} has {k} times as many as before.",
            f"The number of {{name}}'s {{things}} grows to {k} times that.",
        ]
    )
    if word and rng.random() < 0.6:
        text = f"Then the number of {{name}}'s {{things}} {word}."
    step = Step(
        "*",
        now_of(now, so_far),
        k,
        "{things} now",
        "Now there are {calc} {things}.",
        f"{k} times, so multiply",
    )
    return Told(text, (step,))


def shares(rng: random.Random, now: int, so_far: int) -> Told | None:
    fits = [k for k in range(2, 10) if now % k == 0 and now // k > 1]
    if not fits or so_far == 0:
        return None
    k = rng.choice(fits)
    text = rng.choice(
        [
            f"{{She}} puts them evenly into {k} boxes and keeps one box.",
            f"{{name}} splits the {{things}} into {k} equal parts and keeps one part.",
            f"{{name}}'s {{things}} are divided evenly among {k} people, and {{name}} is one of them.",
        ]
    )
    step = Step(
        "/",
        now_of(now, so_far),
        k,
        "{things} in one part",
        "One part is {calc} {things}.",
        f"{k} equal parts, so divide",
    )
    return Told(text, (step,))


def _daily(rng: random.Random, now: int, so_far: int, sign: str, text: str, label: str, says: str) -> Told | None:
    """Two steps: an amount a time, then added to or taken off what there is."""
    a, b = rng.randint(2, 16), rng.randint(2, 12)
    if sign == "-" and a * b >= now:
        return None
    first = Step("*", a, b, label, "That is {calc}.", f"{a} times {b}, so multiply")
    second = Step(
        "+" if sign == "+" else "-",
        now_of(now, so_far),
        Ref(so_far),
        "{things} now" if sign == "+" else "{things} left",
        says,
        "these come in, so add" if sign == "+" else "these go away, so subtract",
    )
    return Told(text.format(a=a, b=b, things="{things}", She="{She}", name="{name}", other="{other}"), (first, second))


def eats(rng: random.Random, now: int, so_far: int) -> Told | None:
    text = rng.choice(
        [
            "{She} uses {a} {things} a day for {b} days.",
            "{name} gives {a} {things} to each of {b} friends.",
            "{other} borrows {a} of {name}'s {things} a week for {b} weeks.",
        ]
    )
    return _daily(rng, now, so_far, "-", text, "{things} that go", "So {calc} {things} are left.")


def restocks(rng: random.Random, now: int, so_far: int) -> Told | None:
    text = rng.choice(
        [
            "{She} buys {a} more bags of {b} {things} each.",
            "{other} brings {name} {a} boxes with {b} {things} in each.",
            "{name} makes {a} {things} a day for {b} days more.",
        ]
    )
    return _daily(rng, now, so_far, "+", text, "new {things}", "Now there are {calc} {things}.")


# ---- money -----------------------------------------------------------------------------------------------------------


def sell(rng: random.Random, now: int, so_far: int) -> Told | None:
    p = rng.randint(2, 12)
    text = rng.choice([f"{{She}} sells all of them for {p} dollars each.", f"{{name}} sells every one at {p} dollars."])
    step = Step("*", now_of(now, so_far), p, "dollars", "{She} gets {calc} dollars.", f"{p} dollars each, so multiply")
    return Told(text, (step,))


def spends(rng: random.Random, now: int, so_far: int) -> Told | None:
    if now < 8:
        return None
    b = rng.randint(3, now - 1)
    text = rng.choice(
        [
            f"{{She}} spends {b} dollars on a gift.",
            f"{{name}} pays {b} dollars for the bus.",
            f"{{She}} gives {b} dollars to {{other}}.",
        ]
    )
    step = Step(
        "-",
        now_of(now, so_far),
        b,
        "dollars left",
        "After paying {calc} dollars are left.",
        f"{b} are paid, so subtract",
    )
    return Told(text, (step,))


def earns(rng: random.Random, now: int, so_far: int) -> Told:
    b = rng.randint(5, 150)
    text = rng.choice([f"{{other}} pays {{name}} {b} dollars.", f"{{She}} finds {b} dollars more."])
    step = Step("+", now_of(now, so_far), b, "dollars now", "With that {calc} dollars.", f"{b} come in, so add")
    return Told(text, (step,))


def wages(rng: random.Random, now: int, so_far: int) -> Told | None:
    text = rng.choice(["Then {name} works {a} hours at {b} dollars an hour."])
    return _daily(rng, now, so_far, "+", text, "wages", "In all {calc} dollars.")


def shopping(rng: random.Random, now: int, so_far: int) -> Told | None:
    text = rng.choice(["{She} buys {a} tickets at {b} dollars each.", "{name} buys {a} drinks for {b} dollars each."])
    return _daily(rng, now, so_far, "-", text, "price", "So {calc} dollars are left.")


STARTS: list[Event] = [has, has, packs, packs, rate, kinds, compared, compared]
EVENTS: list[Event] = [gets, gives, gives, grows, shares, eats, restocks]
MONEY_EVENTS: list[Event] = [spends, spends, earns, wages, shopping]
SELL: Event = sell


def distractor(rng: random.Random) -> tuple[str, int]:
    """A sentence with a number that does not matter, and the number."""
    n = rng.randint(3, 60)
    text = rng.choice(
        [
            f"{{other}} is {n} years old.",
            f"The way to the shop takes {n} minutes.",
            f"{{third}} has {n} {rng.choice(THINGS)}.",
            f"There are {n} people in the room.",
            f"{{other}}'s house has the number {n}.",
        ]
    )
    return text, n
