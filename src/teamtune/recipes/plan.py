"""What a recipe will cost, before anything is done: generations, tokens and rows, at most and expected.

The same checks as a run's are made on the task and on a local model, so a dry run of what cannot run fails too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from teamtune.credit.discussion import INCENTIVES
from teamtune.credit.tree import hoeffding
from teamtune.engines.spec import check_trained
from teamtune.models import check_lora, model_path
from teamtune.recipes import evaluation, maft_evaluation, maporl_evaluation, scorer
from teamtune.recipes.baselines import Baselines
from teamtune.recipes.evaluation import Evaluation
from teamtune.recipes.maft_evaluation import MaftEvaluation
from teamtune.recipes.maft_team import Maft
from teamtune.recipes.malt import Malt, preferring_seats
from teamtune.recipes.maporl import SCORED_ANSWERS, check_places, given_scorer, makes_scorer, problems_before
from teamtune.recipes.maporl_evaluation import MaporlEvaluation
from teamtune.recipes.maporl_team import Maporl, size
from teamtune.recipes.scorer import Scorer, ScorerEvaluation, ScorerTraining
from teamtune.recipes.scorer_source import check_bits
from teamtune.tasks import all_elsewhere, held_out_split, parted, splits
from teamtune.tasks.parse import check_reader
from teamtune.train.team import Lora

Plan = dict[str, Any]
HALF = "expected, were every answer half as long as max_tokens"
EVEN = "expected, were every turn as likely good as bad"


def malt_plan(cfg: Malt) -> Plan:
    """Generations, tokens and rows of a MALT run.

    Rows are expected as if every turn were good with probability one half, by itself: half of the turns for SFT,
    and width * (width - 1) / 4 pairs of a group of siblings, less what the caps leave out.
    """
    splits(cfg.task)
    checked(cfg.model, cfg.engine.kind, *([] if cfg.rows_only else [cfg.lora]))
    if not cfg.rows_only:
        check_trained(cfg.engine, cfg.train_seats)
    n, problems = cfg.width, cfg.task.train
    turns = {"generator": n, "verifier": n**2, "refiner": n**3}
    groups = {"generator": 1, "verifier": n, "refiner": n**2}
    preferring = preferring_seats(cfg.train_seats, cfg.dpo_generator)
    most = (n // 2) * (n - n // 2)  # pairs of one sibling group at the most
    capped = lambda rows, cap: min(rows, cap) if cap else rows  # noqa: E731
    total = lambda per_problem: round(rounds_of(cfg) * problems * per_problem)  # noqa: E731
    training, testing = malt_generations(cfg)
    return {
        "generations per training problem": sum(turns.values()),
        "training generations": training,
        "test generations": testing,
        **tokens(training + testing, cfg.sampling.max_tokens),
        "SFT rows at most": total(sum(capped(turns[s], cfg.sft_cap) for s in cfg.train_seats)),
        f"SFT rows {EVEN}": total(sum(capped(turns[s] / 2, cfg.sft_cap) for s in cfg.train_seats)),
        "DPO pairs at most": total(sum(capped(groups[s] * most, cfg.pair_cap) for s in preferring)),
        f"DPO pairs {EVEN}": total(sum(capped(groups[s] * n * (n - 1) / 4, cfg.pair_cap) for s in preferring)),
        "value error of a generator turn (Hoeffding, 95 %)": f"+- {hoeffding(n * n, nodes=n):.2f}{_uninformative(n)}",
    }


def malt_generations(cfg: Malt) -> tuple[int, int]:
    """Generations of the trees, and on test problems."""
    tree = sum(cfg.width**depth for depth in (1, 2, 3))
    testing = 0 if cfg.rows_only else cfg.task.test * calls_a_test_problem(cfg)
    return trees(cfg) * cfg.task.train * tree, testing


def rounds_of(cfg: Malt) -> int:
    """Rounds that a run makes rows in."""
    return 1 if cfg.rows_only else cfg.rounds


def trees(cfg: Malt) -> int:
    """Trees that a run grows on every problem."""
    return rounds_of(cfg) - bool(cfg.turns_from)


def maft_plan(cfg: Maft) -> Plan:
    """Generations, tokens and rows of a Multiagent Finetuning run; a debate's summaries are generations too."""
    splits(cfg.task)
    check_reader(cfg.task)
    checked(cfg.model, cfg.engine.kind, *([] if cfg.rows_only else [cfg.lora]))
    if not cfg.rows_only:
        check_trained(cfg.engine, cfg.names)
    training, testing = maft_generations(cfg, further(cfg))
    votes = {"besides": "single answers for as many tokens as a debate takes, counted when that is known"}
    return {
        "generations per debate": debate_calls(cfg),
        "training generations" + (" at most" if "star" in cfg.baselines else ""): training,
        "test generations": testing,
        **(votes if "majority" in cfg.baselines else {}),
        **tokens(training + testing, cfg.sampling.max_tokens),
        "rows of one generator at most": cfg.task.train,
        "rows of one critic at most": cfg.task.train if cfg.critics else 0,
    }


def maft_generations(cfg: Maft, others: int) -> tuple[int, int]:
    """Generations on problems to train on, and on test problems, of the team and all its rivals. others: problems of
    further tasks."""
    if cfg.rows_only:
        return 0 if cfg.turns_from else cfg.task.train * debate_calls(cfg), 0
    n, more = cfg.agents, cfg.iterations - 1
    answers, debate = n * cfg.rounds, debate_calls(cfg)
    # Of every rival: calls a training problem, a test problem, and a problem of a further task.
    calls = {
        "majority": (0, max(n, debate), max(n, debate)),
        "debate": (0, debate, debate),
        "star": (2 * cfg.star_rounds, n, n),
        "majority-ft": (n, n, n),
        "single-ft": (more * debate, (more + 1) * debate + 1, debate + 1),
        "union-ft": (0, debate, debate),
        "no-summary": ((more + 1) * answers, answers, 0),
        "cooperative": ((more + 1) * debate, 2 * debate, 0),
        "no-critic": (more * debate, debate, 0),
        "temperature-2": (more * debate if "single-ft" not in cfg.baselines else 0, debate, 0),
    }
    rivals = [calls.get(name, (0, debate, 0)) for name in cfg.baselines]
    own = ((more + (not cfg.turns_from)) * debate, (more + 1) * debate, debate)
    train, test, further = (sum(column) for column in zip(own, *rivals, strict=True))
    return cfg.task.train * train, cfg.task.test * test + others * further


def maporl_plan(cfg: Maporl) -> Plan:
    """Generations, tokens and steps of a MAPoRL run; scores are no generations."""
    before = problems_before(cfg)
    _, train, test = parted(cfg.task, before)
    check_places(cfg, train)
    check_bits(cfg)
    others = all_elsewhere(train.task, cfg.eval_tasks)
    given_scorer(cfg, test, others, before)
    for model in (cfg.model, *cfg.partners):
        checked(model, cfg.engine.kind, cfg.lora)
    if makes_scorer(cfg):
        checked(cfg.model, cfg.engine.kind, cfg.making.lora)
    sampled, training, testing = maporl_generations(cfg, sum(one.task.test for one in others))
    return {
        **({"generations for the scorer": sampled} if makes_scorer(cfg) else {}),
        **(further_answers(cfg.making, cfg.scorer_questions) if makes_scorer(cfg) else {}),
        "answers of an update": cfg.ppo.problems * cfg.ppo.takes * cfg.agents * cfg.turns,
        "training generations": training,
        "test generations": testing,
        **tokens(sampled + training + testing, cfg.sampling.max_tokens),
    }


def maporl_generations(cfg: Maporl, others: int) -> tuple[int, int, int]:
    """Generations for the scorer, in training, and on test problems, of the team and all its rivals. others: problems
    of further tasks."""
    making = makes_scorer(cfg)
    agents, turns = size(cfg.sizes[0])
    whole, each = agents * turns, cfg.ppo.updates * cfg.ppo.problems * cfg.ppo.takes * cfg.agents * cfg.turns
    later = max(0, cfg.turns - 1) * agents if cfg.share in ("turn", "agent-turn") else agents
    # Of every rival: answers in training, answers to a test problem, answers to a problem of a further task.
    calls = {
        "off-the-shelf": (0, whole, whole),
        "votes": (0, whole, whole),
        "no-feedback": (0, whole, whole),
        "hidden-scores": (each, whole, whole),
        "single-agent": (each, agents + 2 * whole, agents + 2 * whole),
        "frozen-partners": (each, 2 * whole, 0),
        "no-scorer": (each, whole, whole),
        "sft": (cfg.task.train * cfg.agents * cfg.turns, whole, whole),
        "no-collaboration": (0, later, 0),
        "incentives": (len(INCENTIVES) * each, len(INCENTIVES) * whole, 0),
    }
    rows = [(each, whole, whole), *(calls[name] for name in cfg.baselines)]
    training, test, further = (sum(column) for column in zip(*rows, strict=True))
    more = sum(2 * a * t for a, t in map(size, cfg.sizes[1:]))
    sampled = cfg.scorer_questions * cfg.making.answers if making else 0
    measuring = SCORED_ANSWERS * cfg.making.agents * cfg.making.turns if making else 0
    return sampled, training, cfg.task.test * (test + more + measuring) + others * further


def maporl_evaluation_plan(cfg: MaporlEvaluation) -> Plan:
    """Generations of an evaluation of a trained discussion and of its base."""
    maporl_evaluation.looked_at(cfg)
    testing = cfg.task.test * sum(2 * agents * turns for agents, turns in map(size, cfg.sizes))
    return {"test generations": testing, **tokens(testing, cfg.sampling.max_tokens)}


def scorer_plan(cfg: ScorerTraining) -> Plan:
    """Generations and rows of a scorer's training, and of its measuring."""
    splits(cfg.task)
    checked(cfg.model, cfg.engine.kind, cfg.scorer.lora)
    one, sampled = cfg.scorer, cfg.task.train * cfg.scorer.answers
    tested = cfg.task.test * cfg.test_samples * one.agents * one.turns
    return {
        "training generations": sampled,
        **further_answers(one, cfg.task.train),
        "test generations": tested,
        **tokens(sampled + tested, one.sampling.max_tokens),
        "rows at most": 2 * one.quota * cfg.task.train if one.quota else sampled,
    }


def further_answers(making: Scorer, questions: int) -> Plan:
    """Answers that may be asked for where a question lacks some."""
    return {"further generations at most": 2 * questions * making.ask} if making.asks else {}


def scorer_evaluation_plan(cfg: ScorerEvaluation) -> Plan:
    """Generations of a scorer's measuring."""
    made = scorer.looked_at(cfg)[0].scorer
    tested = cfg.task.test * cfg.test_samples * made.agents * made.turns
    return {"test generations": tested, **tokens(tested, cfg.sampling.max_tokens)}


def checked(model: str, engine: str, *adapters: Lora) -> None:
    """A model that is not there stops a dry run too, and one here that has no module of a LoRA target. The hub is not
    asked."""
    if engine not in ("scripted", "openai"):
        model_path(model)
    here = model == "house" or Path(model).expanduser().exists()
    for lora in adapters if here else ():
        check_lora(model, lora.targets, False, lora.bits)


def further(cfg: Maft) -> int:
    """Problems of further tasks, whose data are looked at."""
    return sum(one.task.test for one in all_elsewhere(cfg.task, cfg.eval_tasks))


def tokens(generations: int, longest: int) -> Plan:
    """Generated tokens, at most and expected."""
    return {
        "generated tokens at most": generations * longest,
        f"generated tokens {HALF}": generations * longest // 2,
    }


def _uninformative(width: int) -> str:
    """At small widths the bound spans most of [0, 1] and certifies nothing; nobody should think that it does."""
    return " (uninformative: the value itself lies in [0, 1])" if hoeffding(width * width, nodes=width) > 0.25 else ""


def calls_a_test_problem(cfg: Malt) -> int:
    """Calls a test problem over all systems that the run compares."""
    pass_calls, alone = 3 * cfg.votes, 3 * cfg.votes
    star = cfg.baselines == "all" and cfg.rounds == 1
    sets = (cfg.baselines != "none") + star
    debate = 9 if cfg.baselines == "all" else 0
    return pass_calls + sets * (pass_calls + alone) + debate


def baselines_plan(cfg: Baselines) -> Plan:
    """Generations and tokens of a baselines run."""
    held_out_split(cfg.task)
    checked(cfg.model, cfg.engine.kind)
    calls = (3 * cfg.votes + 3 * cfg.votes + cfg.debaters**2) * cfg.task.test
    return {"test generations": calls, **tokens(calls, cfg.sampling.max_tokens)}


def evaluation_plan(cfg: Evaluation) -> Plan:
    """Generations and tokens of an evaluation."""
    evaluation.looked_at(cfg)
    calls = len(cfg.roles) * cfg.votes * cfg.task.test
    return {"test generations": calls, **tokens(calls, cfg.sampling.max_tokens)}


def maft_evaluation_plan(cfg: MaftEvaluation) -> Plan:
    """Generations and tokens of an evaluation of generators and critics, and of their base."""
    source, _, _ = maft_evaluation.looked_at(cfg)
    calls = 2 * debate_calls(source) * cfg.task.test
    return {"test generations": calls, **tokens(calls, cfg.sampling.max_tokens)}


def debate_calls(cfg: Maft) -> int:
    """Calls of one debate, its summaries included."""
    sums = cfg.agents * (cfg.rounds - 1) if cfg.summary != "none" and cfg.agents > 1 else 0
    return cfg.agents * cfg.rounds + sums
