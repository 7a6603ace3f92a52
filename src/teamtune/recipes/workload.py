"""A recipe's work in tokens, before it begins: what it will read, write, score and train on.

Numbers of answers are those of the dry run. Their lengths are assumed: every question has `question` ids, every answer
`answer`, prompts hold the answers that a protocol shows, and of a tree's turns half are good. `teamtune plan DIR` tells
how a finished run came out beside this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from teamtune.protocols.discussion import opens
from teamtune.recipes.maft_team import Maft
from teamtune.recipes.malt import Malt, preferring_seats
from teamtune.recipes.maporl_team import Maporl
from teamtune.recipes.plan import maft_generations, malt_generations, maporl_generations
from teamtune.resources import Work
from teamtune.train.fit import Fit
from teamtune.train.samples import value_of
from teamtune.types import TeamtuneError


@dataclass(frozen=True, slots=True)
class Lengths:
    """Ids of a question with its instructions, and of an answer."""

    question: int = 150
    answer: int = 0
    """0 takes half of max_tokens"""

    def __post_init__(self) -> None:
        if self.question < 1 or self.answer < 0:
            raise TeamtuneError(
                f"lengths are {self.question} and {self.answer}; a question has 1 id or more, an answer 0 or more"
            )


@dataclass(frozen=True, slots=True)
class Load:
    """What a recipe asks of a machine."""

    work: Work
    adapters: int
    """trained at once in one joint fit, those of values included"""
    fits: tuple[tuple[Fit, int], ...]
    """its kinds of fits, and the ids of rows that each trains on, as often as it does"""
    longest: int
    """ids of the longest prompt and answer that are expected"""

    @property
    def trained(self) -> int:
        """Ids of rows of all fits."""
        return sum(ids for _, ids in self.fits)


def load_of(cfg: Any, lengths: Lengths) -> Load:
    """The load of a recipe's options."""
    if not isinstance(cfg, Malt | Maft | Maporl):
        raise TeamtuneError(f"there is no plan of {type(cfg).__name__}; give malt, maft or maporl")
    q, a = lengths.question, lengths.answer or cfg.sampling.max_tokens // 2
    if isinstance(cfg, Malt):
        return malt_load(cfg, q, a)
    return maft_load(cfg, q, a) if isinstance(cfg, Maft) else maporl_load(cfg, q, a)


def malt_load(cfg: Malt, q: int, a: int) -> Load:
    """Tree: a verifier reads one answer, a refiner two. Half of the turns are good; a preference has two answers."""
    n, (training, testing) = cfg.width, malt_generations(cfg)
    nodes = {"generator": (n, q), "verifier": (n**2, q + a), "refiner": (n**3, q + 2 * a)}
    problems = cfg.rounds * cfg.task.train
    read = problems * sum(count * prompt for count, prompt in nodes.values()) + testing * (q + a)
    capped = lambda rows, cap: min(rows, cap) if cap else rows  # noqa: E731
    good = sum(capped(nodes[seat][0] / 2, cfg.sft_cap) * (nodes[seat][1] + a) for seat in cfg.train_seats)
    preferring = preferring_seats(cfg.train_seats, cfg.dpo_generator)
    pairs = {seat: capped(nodes[seat][0] / n * n * (n - 1) / 4, cfg.pair_cap) for seat in preferring}
    preferred = sum(2 * count * (nodes[seat][1] + a) for seat, count in pairs.items())
    fits = [(cfg.sft, round(problems * good * cfg.sft.epochs))]
    fits += [(cfg.dpo, round(problems * preferred * cfg.dpo.epochs))] if pairs else []
    work = Work(training + testing, read, (training + testing) * a, round(problems * preferred))
    return Load(work, len(cfg.train_seats), tuple(fits), q + 2 * a + cfg.sampling.max_tokens)


def maft_load(cfg: Maft, q: int, a: int) -> Load:
    """Debate: later answers read a summary and the agent's own last answer, summaries read the answers. Every agent's
    rows are about one a problem, and so are its pairs where it prefers; those of rivals are not counted."""
    training, testing = maft_generations(cfg)
    answers = training + testing
    rows = cfg.task.train * cfg.iterations * cfg.agents * ((q + a) + (q + 3 * a if cfg.critics else 0))
    of = {"sft": [(cfg.sft, rows)], "ppo": [(cfg.ppo, rows)], "dpo": [(cfg.sft, rows), (cfg.dpo, 2 * rows)]}
    fits = tuple((fit, ids * fit.epochs) for fit, ids in of[cfg.objective])
    work = Work(answers, round(answers * (q + 1.5 * a)), answers * a, 2 * rows if cfg.objective == "dpo" else 0)
    return Load(work, cfg.agents * (2 if cfg.critics else 1), fits, q + cfg.agents * a + cfg.sampling.max_tokens)


def maporl_load(cfg: Maporl, q: int, a: int) -> Load:
    """Discussion: an agent reads its own answers so far and the others' last ones. Every answer of the training passes
    its policy, the base, its values and the scorer once, and policy and values are trained on it."""
    scored, training, testing = maporl_generations(cfg)
    shown = [q + (t - 1) * a + (cfg.agents - 1) * a * (t > 1) for t in range(1, cfg.turns + 1)]
    prompt = sum(shown) / len(shown)
    answers = scored + training + testing
    policies = {name for seats in cfg.speakers for name in seats if not opens(name)}
    values = {value_of(name) for name in policies} if cfg.ppo.has_values else set()
    looks = 2 + bool(values) + (cfg.scorer == "learned")
    trained = training * cfg.ppo.fit.epochs * (prompt + a + ((q + a) if values else 0))
    forward = round(training * looks * (prompt + a))
    work = Work(answers, round(answers * prompt), answers * a, forward)
    held = len(policies | values) + (cfg.scorer == "learned")
    return Load(work, held, ((cfg.ppo.fit, round(trained)),), round(shown[-1]) + cfg.sampling.max_tokens)
