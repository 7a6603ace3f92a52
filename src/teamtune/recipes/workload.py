"""A recipe's work in tokens, before it begins: what it will read, write, score and train on.

Numbers of answers are those of the dry run, but that no data are looked at: a further task counts with as many test
problems as the recipe's own. Their lengths are assumed: every question has `question` ids, every answer
`answer`, prompts hold the answers that a protocol shows, and of a tree's turns half are good. `teamtune plan DIR` tells
how a finished run came out beside this.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from teamtune.credit.discussion import INCENTIVES
from teamtune.curate.discussions import BEST
from teamtune.protocols.discussion import opens
from teamtune.recipes.maft_team import Maft
from teamtune.recipes.malt import Malt, preferring_seats
from teamtune.recipes.maporl import makes_scorer
from teamtune.recipes.maporl_team import Maporl, size
from teamtune.recipes.plan import maft_generations, malt_generations, maporl_generations, trees
from teamtune.resources import Work
from teamtune.train.fit import Fit
from teamtune.train.packing import micro_tokens
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
    if isinstance(cfg, Maporl):
        return maporl_load(cfg, q, a)
    whole = malt_load(cfg, q, a) if isinstance(cfg, Malt) else maft_load(cfg, q, a)
    # Rows alone: nothing is trained, nor scored for it.
    return replace(whole, work=replace(whole.work, forward=0), adapters=0, fits=()) if cfg.rows_only else whole


def malt_load(cfg: Malt, q: int, a: int) -> Load:
    """Tree: a verifier reads one answer, a refiner two. Half of the turns are good; a preference has two answers."""
    n, (training, testing) = cfg.width, malt_generations(cfg)
    nodes = {"generator": (n, q), "verifier": (n**2, q + a), "refiner": (n**3, q + 2 * a)}
    problems = cfg.rounds * cfg.task.train
    read = trees(cfg) * cfg.task.train * sum(count * prompt for count, prompt in nodes.values()) + testing * (q + a)
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
    rows are about one a problem, and so are its pairs where it prefers; rivals learn from as many as the vote of all
    agrees with, were it to agree with all."""
    training, testing = maft_generations(cfg, cfg.task.test * len(cfg.eval_tasks))
    answers = training + testing
    first, later, passes = q + a, q + 3 * a, cfg.iterations * cfg.agents
    own = passes * (first + (later if cfg.critics else 0))
    single = passes * (first + (cfg.rounds - 1) * later)
    rivals = {
        "star": cfg.star_rounds * first,
        "majority-ft": cfg.agents * first,
        "single-ft": single,
        "temperature-2": 0 if "single-ft" in cfg.baselines else single,
        "union-ft": own,
    }
    variants = {"no-critic": passes * first if cfg.iterations > 1 else 0, "no-summary": own, "cooperative": own}
    asked = lambda ids: cfg.task.train * sum(ids.get(name, 0) for name in cfg.baselines)  # noqa: E731
    # Variants of the team are trained as it is, whatever rivals are trained by.
    rows, others = cfg.task.train * own + asked(variants), asked(rivals)
    of = {"sft": [(cfg.sft, rows)], "ppo": [(cfg.ppo, rows)], "dpo": [(cfg.sft, rows), (cfg.dpo, 2 * rows)]}
    fits = tuple((fit, ids * fit.epochs) for fit, ids in [*of[cfg.objective], (cfg.sft, others)] if ids)
    work = Work(answers, round(answers * (q + 1.5 * a)), answers * a, 2 * rows if cfg.objective == "dpo" else 0)
    return Load(work, cfg.agents * (2 if cfg.critics else 1), fits, q + cfg.agents * a + cfg.sampling.max_tokens)


def maporl_load(cfg: Maporl, q: int, a: int) -> Load:
    """Discussion: an agent reads its own answers so far and the others' last ones. Every answer of one passes the
    scorer once, and every one that is learned from its policy, the base and its values; policy and values are trained
    on it. Values read the question and the answer, and so does a scorer that is made."""
    scored, training, testing = maporl_generations(cfg, cfg.task.test * len(cfg.eval_tasks))
    shown = [q + (t - 1) * a + (cfg.agents - 1) * a * (t > 1) for t in range(1, cfg.turns + 1)]
    prompt = sum(shown) / len(shown)
    answers = scored + training + testing
    policies = {name for seats in cfg.speakers for name in seats if not opens(name)}
    values = {value_of(name) for name in policies} if cfg.ppo.has_values else set()
    # Answers of a discussion that are learned from, and the ids of their prompts; and how many discussions there are.
    learning = [n for n, seats in zip(shown, cfg.speakers, strict=True) for name in seats if not opens(name)]
    shares = {"hidden-scores": 1, "no-scorer": 1, "frozen-partners": 1 / cfg.agents, "incentives": len(INCENTIVES)}
    each = cfg.ppo.updates * cfg.ppo.problems * cfg.ppo.takes
    talks = each * (1 + sum(shares.get(name, 0) for name in cfg.baselines))
    alone = each * cfg.agents * cfg.turns * (q + a) if "single-agent" in cfg.baselines else 0
    policy = talks * sum(n + a for n in learning) + alone
    valued = talks * len(learning) * (q + a) + alone if values else 0
    blind = each * cfg.agents * cfg.turns if "no-scorer" in cfg.baselines else 0
    (agents, turns), tested = size(cfg.sizes[0]), cfg.task.test * (1 + len(cfg.eval_tasks))
    blind += tested * agents * turns * len({"votes", "no-feedback", "no-scorer"} & set(cfg.baselines))
    judged = (training - blind + testing) * (prompt + a) if cfg.scorer == "learned" else 0
    fits = [(cfg.ppo.fit, round((policy + valued) * cfg.ppo.fit.epochs))]
    if makes_scorer(cfg):
        made = cfg.making
        rows = min(made.answers, 2 * made.quota) if made.quota else made.answers
        # Its steps are so small that they, and no bound, decide its memory.
        step = made.fit.batch * (q + made.sampling.max_tokens)
        most = min(made.fit.micro_tokens or micro_tokens(False, made.fit.checkpoint), step)
        small, ids = replace(made.fit, micro_tokens=most), cfg.scorer_questions * rows * (q + a)
        fits.append((small, ids * made.fit.epochs))
        judged += ids if made.scoring.surprise else 0
    if "sft" in cfg.baselines:
        best = cfg.task.train * BEST * sum(n + a for n in learning)
        fits.append((cfg.sft, round(best * cfg.sft.epochs)))
    work = Work(answers, round(answers * prompt), answers * a, round(2 * policy + valued + judged))
    held = len(policies | values) + (cfg.scorer == "learned")
    return Load(work, held, tuple(fits), round(shown[-1]) + cfg.sampling.max_tokens)
