"""Measure every role of a model by itself, on problems that neither the corpus nor any test set holds.

    python -m teamtune.house measure --model house --problems 500

Roles are asked through the package's own prompts and protocols. The problems are of the dev split, so nothing is ever
chosen on test problems. One line of the output:

    {"task": "stories", "level": "3", "role": "verifier", "measure": "verdict agrees with the truth", "value": 0.81,
     "se": 0.017, "n": 500}
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from transformers import PreTrainedTokenizerFast

from teamtune.engines import EngineSpec, open_engine
from teamtune.evaluate import estimate
from teamtune.house.corpus import LEVELS as CORPUS_LEVELS
from teamtune.house.corpus import document
from teamtune.house.data import encode
from teamtune.play import Live, ProtocolFn, ask, waves
from teamtune.protocols import debate
from teamtune.protocols.pipeline import pipeline, seats
from teamtune.tasks import find
from teamtune.types import Agent, Episode, Problem, Row, Sampling, Team
from teamtune.vote import vote_score

SEED = 77_000_000  # of problems and sampling
VERDICT = re.compile(r"verdict:\s*(right|wrong)", re.IGNORECASE)


def measure(model: str, problems: int, temperature: float, levels: Mapping[str, Sequence[str]]) -> Iterator[Row]:
    """All measures for the given levels of each task, level by level as they are done."""
    sampling = Sampling(temperature, max_tokens=320)
    for task, names in levels.items():
        for level in names:
            chosen = find(task).load("dev", problems, SEED, level=level)
            for role, name, scores in [
                *pipeline_scores(model, task, chosen, sampling),
                *debate_scores(model, task, chosen, sampling),
                *summary_scores(model, chosen, sampling),
            ]:
                if scores:
                    found = estimate(scores)
                    numbers = {"value": round(found.mean, 4), "se": round(found.se, 4), "n": found.n}
                    yield {"task": task, "level": level, "role": role, "measure": name, **numbers}


Scores = list[tuple[str, str, list[float]]]


def played(model: str, team: Team, problems: Sequence[Problem], protocol: ProtocolFn) -> list[Episode]:
    engine = open_engine(EngineSpec(), team)
    engine.adopt(team)
    lives = [Live(problem, 0, protocol, team) for problem in problems]
    for _ in waves(lives, engine, SEED):
        pass
    return [live.episode() for live in lives]


def pipeline_scores(model: str, task: str, problems: Sequence[Problem], sampling: Sampling) -> Scores:
    """Solver, critic and refiner from single passes; solver also greedily."""
    grade = find(task).grade
    team = Team(model, seats(sampling))
    passes = []
    for problem, episode in zip(problems, played(model, team, problems, pipeline), strict=True):
        g, v, r = episode.turns
        verdict = VERDICT.search(v.text)
        passes.append(
            {
                "solved": grade(problem, g.text).score,
                "says": verdict.group(1).lower() if verdict else None,
                "answer": grade(problem, v.text).score,
                "refined": grade(problem, r.text).score,
            }
        )
    greedy = Team(model, tuple(replace(a, sampling=replace(sampling, temperature=0.0)) for a in team.agents))
    first = played(model, greedy, problems, partial(pipeline, roles="G"))
    best = [grade(p, e.turns[0].text).score for p, e in zip(problems, first, strict=True)]
    agrees = lambda p: float((p["says"] == "right") == (p["solved"] == 1)) if p["says"] else 0.0  # noqa: E731
    pick = lambda key, test: [p[key] for p in passes if test(p)]  # noqa: E731
    right, wrong = (lambda p: p["solved"] == 1), (lambda p: p["solved"] == 0)
    seen = lambda p: wrong(p) and p["says"] == "wrong" and p["answer"] == 1  # noqa: E731
    return [
        ("generator", "right", pick("solved", lambda p: True)),
        ("generator", "right, greedy", best),
        ("verifier", "verdict agrees with the truth", [agrees(p) for p in passes]),
        ("verifier", "calls a right solution right", [agrees(p) for p in passes if right(p)]),
        ("verifier", "calls a wrong solution wrong", [agrees(p) for p in passes if wrong(p)]),
        ("verifier", "own answer right where the solution is wrong", pick("answer", wrong)),
        ("refiner", "right", pick("refined", lambda p: True)),
        (
            "refiner",
            "right where solution and verdict are right",
            pick("refined", lambda p: right(p) and agrees(p)),
        ),
        ("refiner", "right where the solution is wrong and the critique right", pick("refined", seen)),
        (
            "refiner",
            "right where the solution is wrong and the critique too",
            pick("refined", lambda p: wrong(p) and not seen(p)),
        ),
    ]


def debate_scores(model: str, task: str, problems: Sequence[Problem], sampling: Sampling) -> Scores:
    """Debaters before and after they see two peers' answers."""
    grade = find(task).grade
    team = Team(model, debate.seats(sampling, 3))
    rounds: dict[str, list[float]] = {}
    for problem, episode in zip(
        problems, played(model, team, problems, partial(debate.debate, agents=3, rounds=2)), strict=True
    ):
        for tag in ("round-1", "round-2"):
            said = [grade(problem, turn.text) for turn in episode.turns if turn.ask.tag == tag]
            scores = [one.score for one in said]
            rounds.setdefault(f"right in {tag}", []).append(sum(scores) / len(scores))
            vote = vote_score([one.parsed for one in said], scores)
            rounds.setdefault(f"vote of {tag} right", []).append(vote)
    return [("debater", name, scores) for name, scores in rounds.items()]


def summary_scores(model: str, problems: Sequence[Problem], sampling: Sampling) -> Scores:
    """Whether a summary of three answers names every different answer."""
    agents = (*debate.seats(sampling, 3), Agent("summariser", debate.SUMMARISER, sampling))

    def protocol(problem: Problem) -> Any:
        said = yield [ask(f"debater-{i}", debate.first(problem), "round-1") for i in range(3)]
        done = yield [ask("summariser", debate.summarise(problem, [t.text for t in said]), "summary", *said)]
        return done[0].index

    full = []
    for episode in played(model, Team(model, agents), problems, protocol):
        *said, summed = episode.turns
        answers = {m.group(1) for t in said if (m := re.search(r"Answer: (-?\d+)", t.text))}
        full.append(float(all(re.search(rf"say[s]? {re.escape(a)}\b", summed.text) for a in answers)))
    return [("summariser", "names every different answer", full)]


def overlap(documents: int, problems: int) -> list[Row]:
    """How much of the test sets the corpus holds: whole questions, and questions with names and numbers left open."""
    corpus = {
        m.content.split("\nEnd with")[0] for i in range(documents) for m in document(0, i).messages if m.role == "user"
    }
    text = "\n".join(corpus)
    questions = {line.removeprefix("Problem: ") for line in text.split("\n")}
    templates = Counter(template(question) for question in questions)
    rows = []
    for task, weighted in CORPUS_LEVELS.items():
        for level, _ in weighted:
            test = [p.question for p in find(task).load("test", problems, level=level)]
            whole = sum(q in questions for q in test)
            shape = sum(template(q) in templates for q in test)
            rows.append({"task": task, "level": level, "n": len(test), "whole": whole, "template": shape})
    return rows


def corpus_table(tokenizer: PreTrainedTokenizerFast, documents: range, longest: int, seed: int = 0) -> list[Row]:
    """The corpus by kind of document: shares, mean ids, mean learned ids, and how many are too long to be used."""
    kinds: dict[str, list[tuple[int, int]]] = {}
    for index, (ids, mask) in zip(documents, encode(tokenizer, seed, documents), strict=True):
        kinds.setdefault(document(seed, index).kind, []).append((len(ids), sum(mask)))
    everything = [size for sizes in kinds.values() for size in sizes]
    rows: list[Row] = []
    for kind, sizes in [*kinds.items(), ("all", everything)]:
        used = [size for size in sizes if size[0] <= longest]
        rows.append(
            {
                "kind": kind,
                "n": len(sizes),
                "share": round(len(sizes) / len(documents), 4),
                "ids": round(sum(ids for ids, _ in used) / max(len(used), 1), 1),
                "learned": round(sum(learned for _, learned in used) / max(len(used), 1), 1),
                "too_long": len(sizes) - len(used),
            }
        )
    return sorted(rows, key=lambda row: -row["share"])


def template(question: str) -> str:
    """A question with its numbers and names left open."""
    return re.sub(r"\b[A-Z][a-z]+\b", "_", re.sub(r"\d+", "#", question))
