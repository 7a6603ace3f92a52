"""What Multiagent Finetuning is compared with: its paper's baselines and ablations, and what its critics asked for.

base, majority   one answer; N answers, as many as a debate has calls, and as many as a debate's tokens pay for
debate           the debate, untrained
star             one model on right answers, and on those that a hint at the gold answer made right
majority-ft      one model on all answers that agree with a vote of N
single-ft        one model on all answers of debates that agree with the vote; in debate, and alone
union-ft         one model on the very rows that the 2N agents learn from, used N times
no-critic        only the generators finetuned
no-summary       the method with the others' answers shown whole, in training and at test time
no-interaction   the trained team with all first answers by one generator
unique-id        one untrained model, every seat told apart by an id
cooperative      agents combine answers, untrained and trained
temperature-2    single-ft sampled at temperature 2
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import ceil

from teamtune.curate.star import hinted, star_rows
from teamtune.protocols import exchange
from teamtune.protocols.exchange import by_one, by_roles, critic, generator
from teamtune.recipes.entrants import Entrant
from teamtune.recipes.maft_team import Lab, Method, Step, debates, iterations, learn, multiagent
from teamtune.recipes.malt import enough
from teamtune.recipes.systems import round_seed, trained_tokens
from teamtune.rollout import Rollout, rollout
from teamtune.store import Table, read_table
from teamtune.tasks import grade_turns
from teamtune.train.fit import fit
from teamtune.train.objective import Sft
from teamtune.types import Row, Team, tokens_of
from teamtune.warn import warn

SOLVER = "solver"
"""the seat of a single model"""
ALONE = "base-solo"
"""where the base's single answers are, which all votes share"""
ablation = partial(Entrant, transfers=False, debates=True)
"""a debate that is compared on the task itself alone"""


def rivals(lab: Lab, team: Step) -> Iterator[Entrant]:
    """Everybody whom the options ask for, trained where there is something to train. team: after its last iteration."""
    cfg, chosen = lab.cfg, lab.cfg.baselines
    held = [read_table(lab.run.path / f"iteration-{n}" / "turns") for n in range(1, cfg.iterations + 1)]
    plain = lab.variant("", objective="sft")  # whatever the team is trained by
    yield from untrained(lab, held[0])
    if "star" in chosen:
        yield from star(lab)
    if "majority-ft" in chosen:
        yield majority_ft(plain)
    if "single-ft" in chosen or "temperature-2" in chosen:
        yield from single_ft(plain, held[:1])
    if "union-ft" in chosen:
        yield union_ft(plain, held)
    if "no-critic" in chosen:
        yield no_critic(lab, team, held[:1])
    if "no-interaction" in chosen:
        speakers = [[generator(0)] * cfg.agents, *by_roles(cfg.agents, cfg.rounds)[1:]]
        alike = cfg.debate_of(speakers)
        idle = {generator(n): None for n in range(1, cfg.agents)}
        used = {name: count for name, count in team.tokens.items() if name not in idle}
        yield ablation("MAFT, one generator", "no-interaction", team.team.adopt(idle), alike, used)
    if "no-summary" in chosen:
        yield variant(lab.variant("no-summary", summary="none"), "MAFT without summaries")
    if "cooperative" in chosen:
        other = lab.variant("cooperative", manner="cooperate")
        yield ablation("Debate, cooperative", "cooperative-base", lab.base, other.cfg.debate)
        yield variant(other, "MAFT, cooperative")


def untrained(lab: Lab, first: Table) -> Iterator[Entrant]:
    """One answer, majorities, debates, all by the base."""
    cfg, base = lab.cfg, lab.base
    yield from alone(lab, first.rows())
    if "debate" in cfg.baselines:
        yield untrained_debate(lab)
    if "unique-id" in cfg.baselines:
        told = replace(base, agents=exchange.seats(cfg.names, cfg.sampling, ids=True))
        yield ablation("Debate, unique ids", "unique-id", told, cfg.debate)


def alone(lab: Lab, held: list[Row]) -> Iterator[Entrant]:
    """One answer by the base; votes of N, of as many as a debate has calls, and of as many as its tokens pay for, which
    is another number on other problems. held: turns of such debates."""
    cfg = lab.cfg
    if "majority" not in cfg.baselines:
        return
    calls, tokens = matched(held)
    if cfg.turns_from and held[0]["token_ids"] is None:
        tokens = None
        warn("no majority of equal tokens: the debates are another model's, which has other tokens")
    elif tokens is None:
        warn("no majority of equal tokens: the engine does not tell what the debates' prompts and answers took")
    counts = sorted({cfg.agents, calls, tokens or calls} - {1})  # a vote of one is the answer itself
    once = cfg.debate_of(by_one(generator(0), 1, 1))
    at = partial(Entrant, place=ALONE, team=lab.base, protocol=once, takes=counts[-1])
    yield at("Base", votes=0)
    equal = {tokens: "equal tokens", calls: "equal calls"}
    if tokens == calls:
        equal = {calls: "equal calls and tokens"}
    for count in counts:
        yield at(f"Majority of {count}{f' ({equal[count]})' if count in equal else ''}", votes=count)


def away(lab: Lab, entrants: Sequence[Entrant], held: list[Row]) -> list[Entrant]:
    """Who plays on a further task: the votes are as many as the team's debates there pay for."""
    others = [one for one in entrants if one.transfers and one.place != ALONE]
    return [*alone(lab, held), *others]


def untrained_debate(lab: Lab) -> Entrant:
    """The base in debate with itself: what the paper starts from."""
    return Entrant("Debate", "base", lab.base, lab.cfg.debate, debates=True)


def matched(turns: list[Row]) -> tuple[int, int | None]:
    """How many single answers cost as much as one debate: in calls, and in tokens read and written, rounded up; None
    where the engine hides them.

    Measured on the untrained team's training debates, whose first answers are what a single agent gives; on a further
    task, on the trained team's debates there.
    """
    counts = [(tokens_of(turn, "prompt_ids"), tokens_of(turn, "token_ids")) for turn in turns]
    cost = [None if prompt is None or said is None else prompt + said for prompt, said in counts]
    episodes = len({(turn["problem"], turn["take"]) for turn in turns})
    calls, known = ceil(len(turns) / episodes), [one for one in cost if one is not None]
    firsts = [one for one, turn in zip(cost, turns, strict=True) if turn["tag"] == "round-1" and one is not None]
    if len(known) < len(cost) or not sum(firsts):
        return calls, None
    return calls, ceil(sum(known) / episodes * len(firsts) / sum(firsts))


def alone_at_base(lab: Lab) -> Team:
    """A team of a single model, and the summariser."""
    return replace(lab.base, agents=exchange.seats([SOLVER], lab.cfg.sampling))


def one_model(lab: Lab, rounds: int, weight: float | None) -> Method:
    """One model in all places, that learns from everybody's turns."""
    cfg = lab.cfg
    # The first debates are the untrained team's, under its seats' names.
    sources = [SOLVER, *(cfg.names if weight is None else cfg.learners)]
    return Method(alone_at_base(lab), by_one(SOLVER, cfg.agents, rounds), dict.fromkeys(sources, SOLVER), weight)


def majority_ft(lab: Lab) -> Entrant:
    """Majority FT: one model on all answers that agree with a vote over N, used by voting."""
    method = one_model(lab, 1, None)
    turns = debates(lab, method, "majority-ft/turns", method.start, lab.cfg.seed)
    step = learn(lab, method, "majority-ft/", turns, Step(method.start, {}), lab.cfg.seed)
    votes = lab.cfg.debate_of(method.speakers)
    return Entrant("Majority FT", "majority-ft", step.team, votes, step.tokens, debates=True)


def single_ft(lab: Lab, held: Sequence[Table]) -> Iterator[Entrant]:
    """Single-agent FT: one model on debates, over as many iterations as the team; in debate, alone, and hotter."""
    cfg, method = lab.cfg, one_model(lab, lab.cfg.rounds, None)
    debate, once = cfg.debate_of(method.speakers), cfg.debate_of(by_one(SOLVER, 1, 1))
    for step in iterations(lab.variant("single-ft", baselines=("single-ft",)), method, held):
        last, place = step.number == cfg.iterations, f"single-ft-{step.number}"
        name = f"Single-agent FT, iteration {step.number}"
        if "single-ft" in cfg.baselines:
            yield Entrant(name, place, step.team, debate, step.tokens, transfers=last, debates=True)
        if last and "single-ft" in cfg.baselines:
            yield Entrant("Single-agent FT, alone", "single-ft-solo", step.team, once, step.tokens)
        if last and "temperature-2" in cfg.baselines:
            seats = tuple(
                replace(a, sampling=replace(a.sampling, temperature=2.0)) if a.name == SOLVER else a
                for a in step.team.agents
            )
            hot = replace(step.team, agents=seats)
            yield ablation("Single-agent FT, temperature 2", "temperature-2", hot, debate, step.tokens)


def union_ft(lab: Lab, held: Sequence[Table]) -> Entrant:
    """One model on the union of what all agents learn from, iteration by iteration on the team's debates."""
    method = one_model(lab, lab.cfg.rounds, lab.cfg.weight)
    *_, step = iterations(lab.variant("union-ft", baselines=("union-ft",)), method, held)
    debate = lab.cfg.debate_of(method.speakers)
    return Entrant("One model, all agents' data", "union-ft", step.team, debate, step.tokens, debates=True)


def no_critic(lab: Lab, team: Step, held: Sequence[Table]) -> Entrant:
    """Only the generators finetuned. After one iteration these are the team's own; later ones saw trained critics.
    The first debates are the untrained team's for both."""
    if lab.cfg.iterations > 1:
        return variant(lab.variant("no-critic", critics=False), "MAFT without critics", held)
    tokens = {name: count for name, count in team.tokens.items() if name.startswith("generator")}
    bare = team.team.adopt({critic(n): None for n in range(lab.cfg.agents)})
    return ablation("MAFT without critics", "no-critic", bare, lab.cfg.debate, tokens)


def variant(lab: Lab, name: str, held: Sequence[Table] = ()) -> Entrant:
    """The method with an option changed, over as many iterations."""
    *_, step = iterations(lab, multiagent(lab), held)
    return ablation(name, lab.prefix.rstrip("/"), step.team, lab.cfg.debate, step.tokens)


def star(lab: Lab) -> Iterator[Entrant]:
    """STaR with rationalisation (Zelikman et al., 2022): gold answers tell which answers to keep.

    Every round answers with the newest model and finetunes the base anew; it ends where the loss no longer falls.
    """
    cfg, run, base = lab.cfg, lab.run, alone_at_base(lab)
    once = cfg.debate_of(by_one(SOLVER, 1, 1))
    team, loss, tokens = base, float("inf"), Counter[str]()
    for number in range(1, cfg.star_rounds + 1):
        rows, stage = reasoned(lab, team, number), f"star/round-{number}/sft"
        if number > 1 and not len(rows):
            warn(f"STaR, round {number}: no answer is right, hinted or not; it ends with the round before")
            break
        done = run.train(stage, fit, rows, base, [SOLVER], cfg.lora, Sft(), cfg.sft, cfg.seed)
        tokens += trained_tokens(rows, cfg.model, cfg.sft.epochs)
        before, loss = loss, last_epoch(lab, stage)
        if loss >= before:
            break
        team = base.adopt({SOLVER: str(done.path / SOLVER)})
    votes = partial(Entrant, place="star-single", team=team, protocol=once, trained=tokens, takes=cfg.agents)
    yield votes("STaR", votes=0)
    yield votes(f"STaR, majority of {cfg.agents}", votes=cfg.agents)


def reasoned(lab: Lab, team: Team, number: int = 1) -> Table:
    """What a round of STaR learns from: right answers, and those that a hint made right. The run asks for the first
    round's before it trains anybody: there may be none."""
    cfg, run, once = lab.cfg, lab.run, lab.cfg.debate_of(by_one(SOLVER, 1, 1))
    prefix, how = f"star/round-{number}/", Rollout(seed=round_seed(cfg.seed, number), driver=cfg.driver)
    turns = run.work(f"{prefix}turns", rollout, lab.problems, team, once, cfg.engine, how)
    grades = run.stage(f"{prefix}grades", grade_turns, turns, lab.problems, cfg.task, "train")
    told = run.stage(f"{prefix}hinted", hinted, lab.problems, grades)
    again = run.work(f"{prefix}hinted-turns", rollout, told, team, once, cfg.engine, how)
    regraded = run.stage(f"{prefix}hinted-grades", grade_turns, again, lab.problems, cfg.task, "train")
    rows = run.stage(f"{prefix}sft-rows", star_rows, turns, grades, again, regraded)
    if number == 1:
        enough(rows, [SOLVER], "; leave star out of the baselines, with another --out")
    return rows


def last_epoch(lab: Lab, stage: str) -> float:
    """Mean loss of the last epoch of a fit of the single model."""
    losses = [line[f"{SOLVER}/loss"] for line in lab.run.metrics() if line["stage"] == stage]
    last = losses[-ceil(len(losses) / lab.cfg.sft.epochs) :]
    return sum(last) / len(last)
