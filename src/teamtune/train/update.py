"""One update of multi-agent PPO: answers and their rewards become steps of all policies of one base."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace

from teamtune.credit.advantage import degenerate_groups, group_relative, leave_one_out
from teamtune.engines.render import Renderer
from teamtune.train.examples import Example, Sampled, Valued
from teamtune.train.fit import Metrics, autocast, backward, finite, first_epoch, schedule, update
from teamtune.train.nested import chains
from teamtune.train.objective import CLIPS, TOKENS, Item, Policy
from teamtune.train.packing import row_of
from teamtune.train.policies import Clock, Learner, Ppo
from teamtune.train.samples import Answer, Look, finite_mean, learned, looked, value_of, where, worth
from teamtune.types import Message, Row, Team, TeamtuneError, place_of
from teamtune.vote import lot

GROUPS = {"turn": ("problem", "number"), "agent": ("problem", "number", "place"), "update": ("number", "place")}
"""what the answers of a group have in common"""


def compared(rewards: Sequence[Row], policies: Container[str], ppo: Ppo) -> tuple[list[Row], Metrics]:
    """The rewards with how much better each answer is than its group, whoever gave the others of it; and how many
    groups there are that policies take part in, and how many teach nothing, for their rewards are equal or there is one
    alone (`Ppo.check_groups` sees to it that there may be more). Unchanged where values are learned.
    """
    if ppo.has_values:
        return list(rewards), {}
    apart = GROUPS[ppo.group]
    group = lambda row: tuple(row[name] for name in apart)  # noqa: E731
    learning = {group(row) for row in rewards if row["agent"] in policies}
    mine = [number for number, row in enumerate(rewards) if group(row) in learning]
    earned, groups = [rewards[n]["reward"] for n in mine], [group(rewards[n]) for n in mine]
    relative = group_relative if ppo.objective == "group" else leave_one_out
    better = dict(zip(mine, relative(earned, groups), strict=True))
    bad, whole = degenerate_groups(earned, groups)
    told: Metrics = {"groups": whole, "degenerate_groups": bad}
    return [{**row, "better": better.get(n, 0.0)} for n, row in enumerate(rewards)], told


def improved(
    one: Learner,
    team: Team,
    rows: Sequence[Row],
    rewards: Sequence[Row],
    ppo: Ppo,
    weight: float,
    step: int,
    seed: int,
    clock: Clock,
) -> Metrics:
    """One update of all policies of one base; what there is to say of it."""
    by_policy = answers_of(one, team, rows, rewards, ppo)
    if not by_policy:
        return {}
    line: Metrics = {}
    looks = looks_of(one, by_policy, ppo, step, seed, clock)
    how = ppo.estimate(weight if ppo.kl_in == "reward" else 0.0)
    anchored = ppo.kl_in == "loss" and weight > 0
    made = {policy: learned(answers, looks, how, anchored) for policy, answers in by_policy.items()}
    for policy, answers in by_policy.items():
        about = seen(answers, looks)
        if not about["gap"] <= ppo.gap:  # nor is a number that is none
            raise TeamtuneError(
                f"log-probabilities of {policy} are {about['gap']:.3f} a token apart between engine and training, over "
                f"ppo.gap {ppo.gap}; both must hold the same weights in the same precision"
            )
        line |= {f"{policy}/{name}": value for name, value in about.items()}
        line |= seen_where(answers, looks, made[policy].values)
    objective = replace(ppo.policy, kl=weight) if anchored else ppo.policy
    items = {policy: found.policy for policy, found in made.items()}
    values = {value_of(policy): found.values for policy, found in made.items() if found.values}
    line |= stepped(one, items, values, objective, ppo, step, seed)
    clock.lap("update")
    return line


def stepped(
    one: Learner,
    items: Mapping[str, Sequence[Item]],
    values: Mapping[str, Sequence[Item]],
    objective: Policy,
    ppo: Ppo,
    step: int,
    seed: int,
) -> Metrics:
    """The clipped steps of one update, some epochs of batches, policies and values side by side; means over steps."""
    plans = planned({**items, **values}, ppo, step, seed)
    moved: set[str] = set()
    taken, targets = Counter[str](), Counter[str]()
    sums: dict[str, list[float]] = defaultdict(list)
    for number in range(max(map(len, plans.values()))):
        going = {name: plan[number] for name, plan in plans.items() if number < len(plan) and name not in moved}
        now = {name: [items[name][i] for i in going[name]] for name in items if name in going}
        worths = {name: [values[name][i] for i in going[name]] for name in values if name in going}
        found = backward(one.model, now, objective, ppo.fit, None) if now else {}
        found |= backward(one.model, worths, ppo.values, ppo.fit, None) if worths else {}
        for agent, told_ in found.items():
            # What it has moved is known before the step that would move it on.
            if ppo.target_kl and float(told_.get("kl", 0.0)) > ppo.target_kl:
                moved.add(agent)
                one.optimizers[agent].zero_grad()
                continue
            batch = (now if agent in now else worths)[agent]
            taken[agent] += sum(map(len, batch))
            targets[agent] += sum(len(item.data.example.answer) for item in batch if isinstance(item.data, Sampled))
            finite(agent, "loss", told_["loss"], step, ppo.fit)
            options = ppo.fit if agent in items else replace(ppo.fit, rate=ppo.value_rate or ppo.fit.rate)
            told_ |= _numbers(update(one.model, agent, one.optimizers[agent], options, step, ppo.updates))
            for name, value in told_.items():
                counted = name.startswith((CLIPS, TOKENS))
                sums[name if "/" in name or counted else f"{agent}/{name}"].append(value)
    line: Metrics = {n: finite_mean(numbers) for n, numbers in sums.items() if not n.startswith((CLIPS, TOKENS))}
    for here in (name.removeprefix(TOKENS) for name in sums if name.startswith(TOKENS)):
        line[f"{here}/clipped"] = sum(sums[CLIPS + here]) / sum(sums[TOKENS + here])
    counts = {f"{agent}/steps": len(sums[f"{agent}/loss"]) for agent in plans}
    met = {f"{agent}/tokens": taken[agent] for agent in plans} | {f"{agent}/targets": targets[agent] for agent in items}
    return line | counts | met


def planned(items: Mapping[str, Sequence[Item]], ppo: Ppo, step: int, seed: int) -> dict[str, list[list[int]]]:
    """Which items each step of an update takes: a policy's answers of one conversation together, for they are read as
    one row."""
    together = {name: chains(list(map(row_of, own))) for name, own in items.items()}
    return {name: schedule(len(own), ppo.fit, lot(seed, step), name, together[name]) for name, own in items.items()}


def _numbers(line: Metrics) -> dict[str, float]:
    return {name: float(value) for name, value in line.items()}


def answers_of(
    one: Learner, team: Team, rows: Sequence[Row], rewards: Sequence[Row], ppo: Ppo
) -> dict[str, list[Answer]]:
    """The answers of each policy that can be learned from: those that were begun."""
    turns = {place_of(row): row for row in rows}
    renderer = Renderer(one.model.tokenizer, "the base")
    found: dict[str, list[Answer]] = {}
    for reward in rewards:
        turn, policy = turns[place_of(reward)], reward["agent"]
        if policy not in one.policies or not turn["token_ids"]:
            continue
        whole = Example(list(turn["prompt_ids"]), list(turn["token_ids"]))
        asked = whole
        if ppo.value_input != "full":
            messages = [Message(message["role"], message["content"]) for message in turn["messages"]]
            asked = Example(opening(messages, renderer), whole.answer)
        own = found.setdefault(policy, [])
        heat = team[policy].sampling.temperature
        earned = (reward["reward"], where(reward["place"], reward["number"]), reward.get("better", 0.0))
        own.append(Answer(policy, len(own), whole, asked, list(turn["logprobs"]), heat, *earned))
    return found


def opening(messages: Sequence[Message], renderer: Renderer) -> list[int]:
    """The ids that ask for a first answer: of a later turn's messages, the question alone."""
    asked = next(place for place, message in enumerate(messages) if message.role == "user")
    return renderer.prompt(messages[: asked + 1])


def looks_of(
    one: Learner, by_policy: Mapping[str, Sequence[Answer]], ppo: Ppo, step: int, seed: int, clock: Clock
) -> dict[tuple[str, int], Look]:
    """Every answer under its policy, the base, and its values, before the update."""
    answers = [answer for own in by_policy.values() for answer in own]
    cast = autocast(one.model, ppo.fit)

    def micros(name: Callable[[str], str], example: Callable[[Answer], Example]) -> Iterator[list[Item]]:
        items = {name(p): [Item(name(p), a.number, example(a)) for a in own] for p, own in by_policy.items()}
        return first_epoch(items, planned(items, ppo, step, seed), ppo.fit, one.model)

    looks = looked(one.model, answers, micros(str, lambda a: a.example), cast)
    clock.lap("reference")
    if ppo.has_values:
        looks = worth(one.model, answers, looks, micros(value_of, lambda a: a.question), cast)
        clock.lap("values")
    return looks


def seen(answers: Sequence[Answer], looks: Mapping[tuple[str, int], Look]) -> dict[str, float]:
    """What is told of a policy's answers before anything is learned from them."""
    here = [looks[one.policy, one.number] for one in answers]
    apart = [p - q for look in here for p, q in zip(look.logprobs, look.reference, strict=True)]
    return {
        "base_kl": finite_mean(apart),
        "entropy": finite_mean([look.entropy for look in here]),
        "gap": finite_mean([look.gap for look in here]),
        "answers": float(len(answers)),
    }


def seen_where(
    answers: Sequence[Answer], looks: Mapping[tuple[str, int], Look], values: Sequence[Item]
) -> dict[str, float]:
    """Of a policy's answers by agent and turn: KL to the base and entropy, a token, and the error of the values."""
    groups: dict[str, list[Answer]] = defaultdict(list)
    for one in answers:
        groups[one.where].append(one)
    line: dict[str, float] = {}
    for here, own in groups.items():
        found = {name: value for name, value in seen(own, looks).items() if name in ("base_kl", "entropy")}
        missed = [
            (value - meant) ** 2
            for answer in own
            if values and isinstance(one := values[answer.number].data, Valued)
            for value, meant in zip(one.values, one.returns, strict=True)
        ]
        found |= {"value_error": finite_mean(missed)} if missed else {}
        line |= {f"{here}/{name}": value for name, value in found.items()}
    return line
