"""Multi-agent PPO: a team discusses problems, every answer is rewarded, and all policies learn at once, over and over.

One update:

    a batch of problems -> discussions by the model that is being trained -> scores, rewards (credit/discussion.py) ->
    every answer under its policy, the frozen base and its values (samples.py) -> advantages -> some epochs of clipped
    steps, policies and values of all agents in each of them

    folder/  agent-1/adapter_model.safetensors  ...                    the policies, at the end
             updates/000000.parquet                                    the discussions of each update, with rewards
             live/step-000007/agent-1/  ...                            the policies of this update, for an engine apart
             state/step-000005/                                        what a killed training resumes from

`live` and `state` are there until the run has sealed the folder.

Resuming is exact: seeds follow from the problem's place and the update, so after a kill the same updates are made again
from the last state, with the same metrics. (vLLM and servers are not exact themselves.)
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console, Group
from rich.live import Live
from rich.progress import Progress

from teamtune.credit.discussion import ends
from teamtune.credit.penalty import CAUSES
from teamtune.play import Engine, ProtocolFn
from teamtune.play import Live as Playing
from teamtune.proofs import check_adapters
from teamtune.rollout import Driver, Rollout, drive, episode_rows, watched
from teamtune.store import write_rows
from teamtune.train.fit import Metrics
from teamtune.train.host import Host
from teamtune.train.policies import Clock, Learner, Ppo
from teamtune.train.proof import prove
from teamtune.train.samples import finite_mean, where
from teamtune.train.state import latest_state, load_tensors, optimizer_tensors, restore_optimizer, save_state
from teamtune.train.update import compared, improved
from teamtune.train.view import update_table
from teamtune.types import UNFIT, Problem, Row, Team, TeamtuneError, place_of
from teamtune.vote import lot

Rewarded = Callable[[Sequence[Row]], Sequence[Row]]
"""From a Turn table to its answers' rewards, as `credit.discussion.discussion_rewards` gives them."""


def train(
    folder: Path,
    problems: Sequence[Problem],
    protocol: ProtocolFn,
    host: Host,
    rewarded: Rewarded,
    ppo: Ppo,
    seed: int = 0,
    driver: Driver = "waves",
) -> Generator[Metrics, None, None]:
    """Train, yielding a line of metrics an update, and leave the policies' adapters in `folder`.

    rewarded: what every answer of a discussion earned.
    """
    team, learners = host.team, host.learners
    policies = [policy for one in learners for policy in one.policies]
    check_sampling(team, policies)
    done, weight = resumed(folder, learners, ppo)
    progress = Progress()
    bar = progress.add_task(folder.name, total=ppo.updates, completed=done)
    with Live(progress, console=Console(stderr=True), refresh_per_second=4) as live:
        for step in range(done, ppo.updates):
            clock, own = Clock(), lot(seed, "update", step) >> 1
            now = shown(host, folder / "live" / f"step-{step:06d}")
            if host.apart:
                check_adapters(host.engine, now, host.elsewhere)
            host.engine.adopt(now)
            clock.lap("adapters")
            how = Rollout(ppo.takes, own, driver)
            rows = play(batch(problems, step, ppo, seed), team, protocol, host.engine, how, watching=step == done)
            clock.lap("generation")
            rewards, groups = compared(rewarded(rows), policies, ppo)
            clock.lap("rewards")
            line: Metrics = {"step": step, "kl_weight": weight, **groups, **told(rows, rewards)}
            for one in learners:
                line |= improved(one, team, rows, rewards, ppo, weight, step, seed, clock)
            line |= {"generated_tokens": sum(len(row["token_ids"] or ()) for row in rows), **clock.told()}
            write_rows(folder / "updates" / f"{step:06d}.parquet", joined(rows, rewards))
            yield line
            weight = adapted(weight, line, learners, ppo)
            # Only after its line is logged: a state must never be ahead of the metrics.
            if (step + 1) % ppo.save_every == 0 or step + 1 == ppo.updates:
                kept(folder, learners, weight, step + 1)
            progress.update(bar, completed=step + 1)
            live.update(Group(update_table(line), progress))
    written(learners, folder)


def shown(host: Host, folder: Path) -> Team:
    """The team as the engine is to hold it now. One that is apart from training finds the policies in `folder`, each
    with a proof, and those of the update before are gone."""
    if not host.apart:
        return host.team
    shutil.rmtree(folder.parent, ignore_errors=True)
    return host.team.adopt(written(host.learners, folder))


def written(learners: Sequence[Learner], folder: Path) -> dict[str, str]:
    """Write every policy into the folder, with its proof; where each is."""
    places: dict[str, Path] = {}
    for one in learners:
        own = {policy: folder / policy for policy in one.policies}
        for policy, place in own.items():
            one.model.save(policy, place)
        prove(one.model, own)
        places |= own
    return {policy: str(place) for policy, place in places.items()}


def check_sampling(team: Team, policies: Sequence[str]) -> None:
    """Raises TeamtuneError where a policy does not sample from its own whole distribution."""
    for name in policies:
        sampling = team[name].sampling
        if sampling.temperature <= 0 or sampling.top_p < 1 or sampling.top_k:
            told_ = f"temperature {sampling.temperature}, top_p {sampling.top_p}, top_k {sampling.top_k}"
            raise TeamtuneError(
                f"{name} samples at {told_}; PPO needs the whole distribution: a temperature above 0, top_p 1, top_k 0"
            )


def batch(problems: Sequence[Problem], step: int, ppo: Ppo, seed: int) -> list[Problem]:
    """The problems of an update: each at most once a pass, each pass in another order; what is left at the end of a
    pass, since it fills no update, comes in another one."""
    ppo.check_problems(len(problems))
    number, place = divmod(step, len(problems) // ppo.problems)
    order = sorted(problems, key=lambda problem: lot(seed, "pass", number, problem.id))
    return order[place * ppo.problems : (place + 1) * ppo.problems]


def play(
    problems: Sequence[Problem],
    team: Team,
    protocol: ProtocolFn,
    engine: Engine,
    how: Rollout,
    watching: bool = False,
) -> list[Row]:
    """The turns of discussions of the problems. watching: say so where an agent's answers do not end."""
    lives = [Playing(problem, take, protocol, team) for problem in problems for take in range(how.takes)]
    stream = drive(lives, engine, how)
    for _ in watched(stream) if watching else stream:
        pass
    return [row for live in lives for row in episode_rows(live.episode())]


def told(rows: Sequence[Row], rewards: Sequence[Row]) -> Metrics:
    """Of every agent at every turn: what it earned and why, how right and how long it was, what it changed. Of the
    discussions: how many turns they had, and how right and how well scored the answers were that they ended with."""
    turns = {place_of(row): row for row in rows}
    groups: dict[tuple[int, int], list[Row]] = defaultdict(list)
    before = {(r["problem"], r["take"], r["number"], r["place"]): r["graded"] for r in rewards}
    for row in rewards:
        groups[row["place"], row["number"]].append(row)
    line: Metrics = {}
    for (place, number), own in sorted(groups.items()):
        name = where(place, number)
        line[f"{name}/discussions"] = float(len(own))
        for column in ("reward", "base", "incentive", "score"):
            line[f"{name}/{column}"] = finite_mean([row[column] for row in own])
        line[f"{name}/accuracy"] = finite_mean([float(row["graded"]) for row in own])
        line[f"{name}/penalties"] = finite_mean([float(bool(row["penalty"])) for row in own])
        line[f"{name}/penalties_of_right"] = finite_mean([float(bool(row["penalty"])) for row in own if row["graded"]])
        for cause in CAUSES:
            line[f"{name}/penalty: {cause}"] = finite_mean([float(row["penalty"] == cause) for row in own])
        ended = [turns[place_of(row)]["finish"] for row in own]
        for finish in UNFIT:
            line[f"{name}/finish: {finish}"] = finite_mean([float(one == finish) for one in ended])
        line[f"{name}/paid"] = finite_mean([float(row["incentive"] > 0) for row in own])
        line[f"{name}/charged"] = finite_mean([float(row["incentive"] < 0) for row in own])
        line[f"{name}/length"] = finite_mean([float(len(turns[place_of(row)]["token_ids"] or ())) for row in own])
        if number > 1:
            was = [(before[r["problem"], r["take"], number - 1, place], r["graded"]) for r in own]
            line[f"{name}/corrected"] = finite_mean([float(now and not then) for then, now in was])
            line[f"{name}/lost"] = finite_mean([float(then and not now) for then, now in was])
    last = ends(rewards)
    line["turns"] = finite_mean([float(own[0]["number"]) for own in last])
    for column in ("score", "graded"):
        line[f"last/{column}"] = finite_mean([float(row[column]) for own in last for row in own])
    return line


def joined(rows: Sequence[Row], rewards: Sequence[Row]) -> list[Row]:
    """The turns of an update with their rewards; a scorer's turns have none."""
    by_place = {place_of(row): row for row in rewards}
    columns = ("score", "right", "graded", "penalty", "base", "incentive", "reward")
    return [{**row, **{name: by_place.get(place_of(row), {}).get(name) for name in columns}} for row in rows]


def adapted(weight: float, line: Metrics, learners: Sequence[Learner], ppo: Ppo) -> float:
    """The weight of the KL for the next update, after its error, at most a fifth (Ziegler et al. 2019)."""
    apart = [float(line[key]) for one in learners for p in one.policies if (key := f"{p}/base_kl") in line]
    if not ppo.kl_target or not apart:
        return weight
    error = min(0.2, max(-0.2, finite_mean(apart) / ppo.kl_target - 1))
    return weight * (1 + 0.1 * error)


def kept(folder: Path, learners: Sequence[Learner], weight: float, step: int) -> None:
    """Save what a killed training needs to go on from `step`."""
    tensors: dict[str, Mapping[str, torch.Tensor]] = {}
    for one in learners:
        for name, optimizer in one.optimizers.items():
            tensors |= {name: one.model.weights(name), f"{name}.optimizer": optimizer_tensors(optimizer)}
    save_state(folder / "state" / f"step-{step:06d}", tensors, {"step": step, "kl_weight": weight})


def resumed(folder: Path, learners: Sequence[Learner], ppo: Ppo) -> tuple[int, float]:
    """Load the newest state, if there is one; the update to go on from, and the weight of the KL."""
    found = latest_state(folder / "state")
    if found is None:
        return 0, ppo.kl
    where, state = found
    for one in learners:
        for name, optimizer in one.optimizers.items():
            one.model.restore(name, where / f"{name}.safetensors")
            restore_optimizer(optimizer, load_tensors(where, f"{name}.optimizer"))
    Console(stderr=True).print(f"{folder.name}: going on from update {state['step']}")
    return state["step"], state["kl_weight"]
