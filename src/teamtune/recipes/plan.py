"""What a recipe will cost, before anything is done: generations and rows."""

from __future__ import annotations

from typing import Any

from teamtune.credit.tree import hoeffding
from teamtune.recipes.baselines import Baselines
from teamtune.recipes.evaluation import Evaluation
from teamtune.recipes.malt import Malt

Plan = dict[str, Any]


def malt_plan(cfg: Malt) -> Plan:
    """Generations and the largest possible numbers of rows of a MALT run; tokens at most `max_tokens` each."""
    n, problems = cfg.width, cfg.task.train
    per_problem = n + n**2 + n**3
    training = cfg.rounds * problems * per_problem
    testing = cfg.task.test * calls_a_test_problem(cfg)
    dpo = {"verifier": n, "refiner": n**2} | ({"generator": 1} if cfg.dpo_generator else {})
    most = (n // 2) * (n - n // 2)  # pairs of one sibling group at the most
    pairs = sum(groups for role, groups in dpo.items() if role in cfg.roles) * most
    return {
        "generations per training problem": per_problem,
        "training generations": training,
        "test generations": testing,
        "generated tokens at most": (training + testing) * cfg.sampling.max_tokens,
        "SFT rows at most": cfg.rounds
        * problems
        * sum({"generator": n, "verifier": n**2, "refiner": n**3}[r] for r in cfg.roles),
        "DPO pairs at most": cfg.rounds * problems * pairs,
        "value error of a generator turn (Hoeffding, 95 %)": f"+- {hoeffding(n * n, nodes=n):.2f}{_uninformative(n)}",
    }


def _uninformative(width: int) -> str:
    """At small widths the bound spans most of [0, 1] and certifies nothing; nobody should think that it does."""
    return " (uninformative: the value itself lies in [0, 1])" if hoeffding(width * width, nodes=width) > 0.25 else ""


def calls_a_test_problem(cfg: Malt) -> int:
    """Calls a test problem over all systems that the run compares."""
    pass_calls, alone = 3 * cfg.votes, 3 * cfg.votes
    sets = {"none": 0, "base": 1, "all": 2}[cfg.baselines]
    debate = 9 if cfg.baselines == "all" else 0
    return pass_calls + sets * (pass_calls + alone) + debate


def baselines_plan(cfg: Baselines) -> Plan:
    calls = 3 * cfg.votes + 3 * cfg.votes + cfg.debaters**2
    return {
        "test generations": calls * cfg.task.test,
        "generated tokens at most": calls * cfg.task.test * cfg.sampling.max_tokens,
    }


def evaluation_plan(cfg: Evaluation) -> Plan:
    calls = len(cfg.roles) * cfg.votes
    return {
        "test generations": calls * cfg.task.test,
        "generated tokens at most": calls * cfg.task.test * cfg.sampling.max_tokens,
    }
