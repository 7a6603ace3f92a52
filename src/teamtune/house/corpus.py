"""The house model's corpus: conversations in which imagined authors play every role, through the package's prompts.

One document, as it is stored:

    {"kind": "verify", "messages": [{"role": "system", "content": "You are the verifier. ..."},
      {"role": "user", "content": "Problem: ..."}, {"role": "assistant", "content": "1. 7 * 23 = ..."}]}

Besides the roles there are drills, lists of correct calculations, some worked in detail: more than half of the first
documents, so that the arithmetic is there before the roles need it, and one in eight afterwards.

Every document is named by (seed, index), so a corpus of any size can be made in any number of processes. Questions come
from the corpus split of the tasks alone, which shares none with train or test.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from teamtune.house.authors import Subject, Work, care, solve, written
from teamtune.house.critics import critique, detail, refinement, reply, summary
from teamtune.protocols import debate, discussion, pipeline
from teamtune.tasks import arithmetic, stories
from teamtune.tasks.plan import Op, calculate
from teamtune.types import Message, Problem, assistant, user

Kind = Literal["drill", "solve", "verify", "refine", "debate", "summed", "summarise", "discuss"]
SHARES: dict[Kind, float] = {
    "solve": 0.27,
    "verify": 0.28,
    "refine": 0.19,
    "debate": 0.08,
    "summed": 0.04,
    "summarise": 0.07,
    "discuss": 0.07,
}
DRILLER = "You work out calculations."
EARLY, EARLY_DRILLS, LATER_DRILLS = 40_000, 0.6, 0.125
LEVELS = {
    "arithmetic": (("paper", 0.5), ("1", 0.1), ("2", 0.15), ("3", 0.15), ("4", 0.1)),
    "stories": (("1", 0.12), ("2", 0.25), ("3", 0.4), ("4", 0.23)),
}


@dataclass(frozen=True, slots=True)
class Document:
    kind: Kind
    messages: tuple[Message, ...]


def subject_at(seed: int, index: int) -> tuple[Problem, Subject]:
    """The problem of one document, without its answer: no role sees that."""
    rng = random.Random(f"corpus-subject/{seed}/{index}")
    task = rng.choice(["arithmetic", "stories"])
    levels, weights = zip(*LEVELS[task], strict=True)
    level = rng.choices(levels, weights)[0]
    if task == "arithmetic":
        terms = arithmetic.terms_at("corpus", seed, index, level)
        question = arithmetic.question(terms)
        subject = Subject(question, arithmetic.plan(terms), terms)
        return Problem("", question, "", arithmetic.ENDING), subject
    story = stories.story_at("corpus", seed, index, level)
    subject = Subject(story.question, story.plan, None, story.distraction)
    return Problem("", story.question, "", stories.ENDING), subject


def document(seed: int, index: int) -> Document:
    """The document that (seed, index) names."""
    rng = random.Random(f"corpus-document/{seed}/{index}")
    if rng.random() < (EARLY_DRILLS if index < EARLY else LATER_DRILLS):
        return drill(rng)
    problem, subject = subject_at(seed, index)
    kind: Kind = rng.choices(list(SHARES), list(SHARES.values()))[0]
    own = solve(rng, subject, care(rng))
    if kind == "solve":
        system = rng.choice([pipeline.GENERATOR, pipeline.GENERATOR, debate.DEBATER])
        return _doc(kind, system, *pipeline.generate(problem), assistant(written(own)))
    if kind == "verify":
        # A critic learns most from wrong solutions, so half of those it sees are by a very careless author.
        own = solve(rng, subject, 0.2) if rng.random() < 0.5 else own
        found = critique(rng, own)
        return _doc(kind, pipeline.VERIFIER, *pipeline.verify(problem, written(own)), assistant(found.text))
    if kind == "refine":
        own = solve(rng, subject, 0.14) if rng.random() < 0.3 else own
        if rng.random() < 0.06:
            asked, text = pipeline.refine(problem, written(own)), written(refinement(rng, own, None))
        else:
            found = critique(rng, own)
            asked, text = pipeline.refine(problem, written(own), found.text), written(refinement(rng, own, found))
        return _doc(kind, pipeline.REFINER, *asked, assistant(text))
    return _in_company(rng, kind, problem, own)


def drill(rng: random.Random) -> Document:
    """A list of calculations and their results; in half of the drills worked in a critic's detail."""
    detailed = rng.random() < 0.5
    sums = [calculation(rng) for _ in range(rng.randint(6, 10) if detailed else rng.randint(12, 20))]
    asked = ", ".join(f"{x} {op} {y}" for op, x, y in sums)
    shown = detail if detailed else (lambda op, x, y: f"{x} {op} {y} = ")
    lines = [f"{shown(op, x, y)}{calculate(op, x, y)}" for op, x, y in sums]
    return _doc("drill", DRILLER, user(f"Work these out: {asked}"), assistant("\n".join(lines)))


def calculation(rng: random.Random) -> tuple[Op, int, int]:
    """One calculation of the kind and size that the tasks bring about."""
    ops: list[Op] = ["*", "+", "-", "/"]
    op = rng.choices(ops, [0.32, 0.25, 0.33, 0.1])[0]
    size = lambda: rng.randint(0, rng.choice([30, 100, 400, 1000]))  # noqa: E731
    if op == "*":
        x, y = (rng.randint(2, 40), rng.randint(2, 40)) if rng.random() < 0.75 else (size(), rng.randint(2, 9))
    elif op == "/":
        y = rng.randint(2, 9)
        x = y * rng.randint(2, 120)
    else:
        x, y = size() * rng.choice([1, 1, 1, -1]), size()
    return op, x, y


def _in_company(rng: random.Random, kind: Kind, problem: Problem, own: Work) -> Document:
    """The roles that see several solutions, over two or three rounds."""
    count = rng.choices([1, 2, 3, 4], [0.15, 0.5, 0.25, 0.1])[0]
    peers = [solve(rng, own.subject, care(rng)) for _ in range(count)]
    if kind == "summarise":
        texts = [written(work) for work in peers]
        return _doc(kind, debate.SUMMARISER, *debate.summarise(problem, texts), assistant(summary(peers)))
    said: list[Message] = [*debate.first(problem), assistant(written(own))]
    texts = [written(work) for work in peers]
    for _ in range(rng.choice([1, 1, 2])):
        scores = None
        if kind == "debate":
            shown = debate.others(problem, texts)
        elif kind == "summed":
            shown = debate.summarised(problem, summary(peers))
        else:
            truth = solve(rng, own.subject, 0.0).answer
            scores = [_score(rng, work.answer == truth) for work in [own, *peers]]
            shown = discussion.discuss(problem, scores[0], list(zip(texts, scores[1:], strict=True)))
        everyone = [own, *peers]
        mine = reply(rng, own, peers, scores)
        others = [reply(rng, work, everyone[:k] + everyone[k + 1 :]) for k, work in enumerate(peers, 1)]
        said += [shown, assistant(mine.text)]
        own, peers, texts = mine.work, [other.work for other in others], [other.text for other in others]
    return _doc(kind, debate.DEBATER, *said)


def _score(rng: random.Random, right: bool) -> float:
    """A scorer that is good but not perfect."""
    return rng.betavariate(6, 2) if right else rng.betavariate(2, 5)


def _doc(kind: Kind, system: str, *messages: Message) -> Document:
    return Document(kind, (Message("system", system), *messages))
