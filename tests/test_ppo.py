"""Multi-agent PPO on a tiny model: exact ratios, signs, learning, resuming, several bases (specification 3.13)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import make_model
from tests.helpers import base_of

from teamtune.adapters import check_adapter
from teamtune.credit.advantage import SPREAD
from teamtune.engines import EngineSpec, open_engine
from teamtune.engines.transformers import TransformersEngine
from teamtune.models import load_model
from teamtune.play import Live, waves
from teamtune.protocols.discussion import OPENER, by_policy, discussion, seats
from teamtune.rollout import episode_rows
from teamtune.train import losses
from teamtune.train.examples import Example, Sampled, Valued
from teamtune.train.fit import Fit
from teamtune.train.host import Host, hosted
from teamtune.train.objective import Policy
from teamtune.train.policies import Clock, Ppo
from teamtune.train.ppo import adapted, batch, check_sampling, train
from teamtune.train.samples import Answer, Look, learned, token_rewards
from teamtune.train.team import Lora
from teamtune.train.update import answers_of, compared, improved
from teamtune.types import Problem, Row, Sampling, Team, TeamtuneError

PROBLEMS = [Problem(f"p{i}", f"What is {i} + 1?", "1", "End.") for i in range(16)]
SMALL = Ppo(
    updates=3, problems=4, fit=Fit(rate=5e-3, epochs=1, batch=64, precision="float32", warmup=0.0, decay="constant")
)
EXACT = EngineSpec(dtype="float32")


def paid(rows: Sequence[Row], reward: Any = None) -> list[Row]:
    """What every answer earned: by default the share of its letters that are in the first half of the alphabet."""
    found = []
    for row in rows:
        text = row["text"]
        share = sum(letter < "n" for letter in text) / max(1, len(text))
        place = {name: row[name] for name in ("problem", "take", "turn", "agent", "tag")}
        number = int(row["tag"].removeprefix("turn-"))
        mates = [other for other in rows if all(other[k] == row[k] for k in ("problem", "take", "tag"))]
        seat = [mate["turn"] for mate in mates].index(row["turn"])
        worth = share if reward is None else reward(row)
        told = {"place": seat, "number": number, "score": share, "graded": share > 0.5, "penalty": ""}
        found.append({**place, **told, "right": told["graded"], "base": worth, "incentive": 0.0, "reward": worth})
    return found


def host(
    path: str, share: Any = "agent", ppo: Ppo = SMALL, agents: int = 2, turns: int = 2, **how: Any
) -> tuple[Host, Any]:
    frozen, heat = how.pop("frozen", False), how.pop("heat", 1.0)
    speakers = by_policy(share, agents, turns, frozen)
    team = Team(path, seats(speakers, Sampling(temperature=heat, max_tokens=8)))
    policies = [agent.name for agent in team.agents if agent.trainable]
    return hosted(team, policies, Lora(rank=4), ppo, EXACT), partial(discussion, speakers=speakers)


def run(folder: Path, one: tuple[Host, Any], ppo: Ppo = SMALL, rewarded: Any = paid) -> list[dict[str, Any]]:
    made, protocol = one
    return list(train(folder, PROBLEMS, protocol, made, rewarded, ppo))


def untimed(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if not k.startswith("seconds/")} for line in lines]


# ---- losses ----------------------------------------------------------------------------------------------------------


def test_the_value_loss_against_a_slow_loop() -> None:
    values, before, returns = torch.randn(3, 4), torch.randn(3, 4), torch.randn(3, 4)
    mask = torch.rand(3, 4) > 0.3
    found = losses.value(values, before, returns, mask, 0.2)
    for i in range(3):
        for j in range(4):
            v, o, r = float(values[i, j]), float(before[i, j]), float(returns[i, j])
            held = min(max(v, o - 0.2), o + 0.2)
            expected = 0.5 * max((v - r) ** 2, (held - r) ** 2) if mask[i, j] else 0.0
            assert float(found[i, j]) == pytest.approx(expected, abs=1e-5)


def test_the_policy_loss_holds_to_an_anchor() -> None:
    now, sampled, anchor = (torch.randn(2, 3) for _ in range(3))
    mask, advantages = torch.ones(2, 3, dtype=torch.bool), torch.randn(2, 3)
    found = losses.policy(now, sampled, mask, advantages, 0.2, 0.5, anchor)
    for i in range(2):
        for j in range(3):
            ratio, a = math.exp(float(now[i, j] - sampled[i, j])), float(advantages[i, j])
            d = float(now[i, j] - anchor[i, j])
            cost = -min(ratio * a, min(max(ratio, 0.8), 1.2) * a) + 0.5 * (math.exp(-d) - 1 + d)
            assert float(found[i, j]) == pytest.approx(cost, abs=1e-4)


def test_a_policy_far_from_the_base_earns_less_and_the_reward_stands_on_one_token() -> None:
    example = Example([1], [2, 3, 4])
    answer = Answer("a", 0, example, example, [], 1.0, 5.0, "agent-1-turn-1")
    near = Look([-1.0, -1.0, -1.0], [-1.0, -1.0, -1.0], 0.0, 0.0, [])
    far = replace(near, reference=[-3.0, -2.0, -1.0])
    mask = np.array([[True, True, True, False]])
    np.testing.assert_allclose(token_rewards([answer], [near], mask, 0.1), [[0, 0, 5, 0]])
    np.testing.assert_allclose(token_rewards([answer], [far], mask, 0.1), [[-0.2, -0.1, 5, 0]])


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heat", [1.0, 0.7])
@pytest.mark.parametrize("share", ["shared", "turn", "agent", "agent-turn"])
def test_the_first_ratio_is_one_whatever_the_temperature(tiny: str, tmp_path: Path, share: Any, heat: float) -> None:
    # So narrow a clip counts every token whose ratio is not 1 to the bit.
    ppo = replace(SMALL, policy=Policy(clip=1e-9))
    made = host(tiny, share, ppo, heat=heat)
    lines = run(tmp_path / "run", made, ppo)
    policies = made[0].learners[0].policies
    assert len(lines) == 3 and len(policies) == {"shared": 1, "turn": 2, "agent": 2, "agent-turn": 4}[share]
    for line in lines:
        for policy in policies:
            # One step an update: what it meets is what was sampled with.
            assert line[f"{policy}/kl"] == 0.0 and line[f"{policy}/clipped"] == 0.0 and line[f"{policy}/steps"] == 1
            assert line[f"{policy}/gap"] < 1e-4, "the engine samples with the weights that are trained"
    assert lines[-1][f"{policies[0]}/base_kl"] != 0.0, "and they move"


@pytest.mark.parametrize("objective", ["ppo", "group", "rloo"])
def test_what_is_rewarded_becomes_more_frequent(tiny: str, tmp_path: Path, objective: Any) -> None:
    fit = Fit(rate=1e-2, epochs=2, batch=64, precision="float32", warmup=0.0, decay="constant")
    values: dict[str, Any] = {"value_rate": 2e-2} if objective == "ppo" else {}
    ppo = Ppo(objective, updates=20, problems=8, takes=2, fit=fit, kl=0.0, **values)
    lines = run(tmp_path / "run", host(tiny, "shared", ppo, turns=1), ppo)
    reward = [sum(line[f"agent-{a}-turn-1/reward"] for a in (1, 2)) / 2 for line in lines]
    # Three updates are 96 answers, whose mean has an error of about 0.015.
    assert sum(reward[-3:]) / 3 > sum(reward[:3]) / 3 + 0.06, reward
    if objective == "ppo":
        assert lines[-1]["agent-value/error"] < lines[0]["agent-value/error"]
    else:
        assert lines[0]["groups"] == 8 and "agent-value/loss" not in lines[0]


@pytest.mark.parametrize("objective", ["group", "rloo"])
def test_answers_are_compared_with_those_of_their_group_whoever_gave_them(objective: Any) -> None:
    """Two agents with adapters of their own, at two turns, and a third who learns nothing."""
    rewards = [
        {"agent": f"agent-{a + 1}", "problem": "p", "take": k, "number": t, "place": a, "reward": float(a + 10 * k * t)}
        for k in (0, 1)
        for t in (1, 2)
        for a in (0, 1, 2)
    ]
    policies = ["agent-1", "agent-2"]
    sizes: list[tuple[Literal["turn", "agent"], int]] = [("turn", 6), ("agent", 2)]
    for group, size in sizes:
        found, told = compared(rewards, policies, Ppo(objective, group=group))
        assert told == {"groups": {"turn": 2, "agent": 4}[group], "degenerate_groups": 0}
        for row in found:
            same = [
                r["reward"]
                for r in rewards
                if r["number"] == row["number"] and (size > 2 or r["place"] == row["place"])
            ]
            if group == "agent" and row["agent"] == "agent-3":
                assert row["better"] == 0.0, "nobody learns in its group"
                continue
            assert len(same) == size
            others = [*same]
            others.remove(row["reward"])
            spread = np.std(same, ddof=1)
            wanted = (
                (row["reward"] - np.mean(same)) / (spread + SPREAD)
                if objective == "group"
                else row["reward"] - np.mean(others)
            )
            assert row["better"] == pytest.approx(wanted)


def test_groups_of_one_answer_and_of_equal_rewards() -> None:
    rewards = [
        {"agent": f"agent-{a + 1}", "problem": "p", "take": 0, "number": 1, "place": a, "reward": 1.0} for a in (0, 1)
    ]
    with pytest.raises(TeamtuneError, match="objective rloo compares answers, and every group of agent has a single"):
        Ppo("rloo", group="agent").check_groups(2)
    alone, told = compared(rewards, ["agent-1", "agent-2"], Ppo("rloo", group="agent", takes=2))
    assert [row["better"] for row in alone] == [0.0, 0.0] and told == {"groups": 2, "degenerate_groups": 2}, (
        "early ends"
    )
    found, told = compared(rewards, ["agent-1", "agent-2"], Ppo("group"))
    assert [row["better"] for row in found] == [0.0, 0.0] and told == {"groups": 1, "degenerate_groups": 1}
    assert compared(rewards, ["agent-1"], Ppo()) == (rewards, {})


def test_an_agents_answers_of_an_update_may_be_its_group() -> None:
    """Normalised agent by agent, with one discussion of a problem."""
    rewards = [
        {"agent": f"agent-{a + 1}", "problem": p, "take": 0, "number": 1, "place": a, "reward": reward + 10 * a}
        for a in (0, 1)
        for p, reward in (("p", 1.0), ("q", 2.0), ("r", 6.0))
    ]
    ppo = Ppo("group", group="update")
    ppo.check_groups(1)
    found, told = compared(rewards, ["agent-1", "agent-2"], ppo)
    whole = [(x - 3) / (np.std([1, 2, 6], ddof=1) + SPREAD) for x in (1, 2, 6)]
    assert [row["better"] for row in found] == pytest.approx(whole * 2) and told["groups"] == 2


@pytest.mark.parametrize("objective", ["group", "rloo"])
def test_the_kl_comes_after_the_comparison(objective: Any) -> None:
    """Equal rewards teach nothing but to stay near the base: of every token, the KL that is still ahead."""
    example = Example([1], [2, 3, 4])
    answers = [Answer("a", n, example, example, [0.0] * 3, 1.0, 1.0, "agent-1-turn-1", 0.0) for n in (0, 1)]
    same = Look([-1.0] * 3, [-1.0] * 3, 0.0, 0.0, [])
    looks = {("a", 0): same, ("a", 1): replace(same, reference=[-3.0, -2.0, -1.0])}
    found = learned(answers, looks, Ppo(objective).estimate(0.1), False)
    first, second = (item.data for item in found.policy)
    assert isinstance(first, Sampled) and isinstance(second, Sampled) and not found.values
    assert first.advantages == [0.0, 0.0, 0.0] and second.advantages == pytest.approx([-0.3, -0.1, 0.0])


@pytest.mark.parametrize(("whiten", "whiten_rewards"), [(False, False), (True, False), (False, True), (True, True)])
def test_whitening_against_a_slow_loop(whiten: bool, whiten_rewards: bool) -> None:
    """Rewards get spread 1 over all tokens of a policy and keep their mean; advantages are centred too."""
    example, rng = Example([1], [2, 3, 4]), np.random.default_rng(0)
    answers = [Answer("a", n, example, example, [0.0] * 3, 1.0, float(n), "agent-1-turn-1") for n in range(4)]
    values = rng.normal(size=(4, 3))
    looks = {("a", n): Look([-1.0] * 3, [-1.0] * 3, 0.0, 0.0, list(values[n])) for n in range(4)}
    how = Ppo(whiten=whiten, whiten_rewards=whiten_rewards, discount=1.0, trace=1.0).estimate(0.0)
    rewards = np.zeros((4, 3))
    rewards[:, -1] = range(4)
    if whiten_rewards:
        rewards = (rewards - rewards.mean()) / math.sqrt(rewards.var(ddof=1) + 1e-8) + rewards.mean()
    # With trace 1 a token's advantage is what is still to come, less its value.
    expected = rewards[:, ::-1].cumsum(1)[:, ::-1] - values
    returns = expected + values
    if whiten:
        expected = (expected - expected.mean()) / math.sqrt(expected.var(ddof=1) + 1e-8)
    made = learned(answers, looks, how, False)
    found = [item.data.advantages for item in made.policy if isinstance(item.data, Sampled)]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(
        [item.data.returns for item in made.values if isinstance(item.data, Valued)], returns, atol=1e-5
    )


def test_whitening_is_an_option_of_a_training(tiny: str, tmp_path: Path) -> None:
    """The same answers, the same values: only what they teach differs."""
    lines = {
        name: run(tmp_path / name, host(tiny, "shared", ppo), ppo)
        for name, ppo in {
            "both": replace(SMALL, whiten_rewards=True),
            "one": SMALL,
            "none": replace(SMALL, whiten=False),
        }.items()
    }
    first = {name: own[0] for name, own in lines.items()}
    assert len({line["agent/loss"] for line in first.values()}) == 3, "the policy's loss is made of advantages"
    assert len({line["generated_tokens"] for line in first.values()}) == 1


def test_all_turns_and_agents_are_told_of(tiny: str, tmp_path: Path) -> None:
    lines = run(tmp_path / "run", host(tiny, "turn"))
    told = ("reward", "base", "incentive", "score", "accuracy", "penalties", "penalty: repetition", "length")
    told += (
        "finish: overflow",
        "base_kl",
        "entropy",
        "value_error",
        "clipped",
        "paid",
        "charged",
        "penalties_of_right",
    )
    for name in told:
        assert all(f"agent-{a}-turn-{t}/{name}" in lines[0] for a in (1, 2) for t in (1, 2)), name
    rows = pq.read_table(tmp_path / "run" / "updates" / "000000.parquet").to_pylist()
    ends = [row["finish"] for row in rows if row["tag"] == "turn-2" and row["turn"] % 2 == 0]  # the first agent's
    assert ends.count("length") > 0, "answers of at most 8 ids are cut off"
    assert lines[0]["agent-1-turn-2/finish: length"] == pytest.approx(ends.count("length") / len(ends))
    assert lines[0]["agent-1-turn-2/discussions"] == len(ends) == 4
    both = [lines[0][f"agent-{a}-turn-1/entropy"] for a in (1, 2)]
    assert min(both) <= lines[0]["turn-1/entropy"] <= max(both), "a policy's mean lies between its agents'"
    assert "agent-1-turn-2/corrected" in lines[0] and "agent-1-turn-1/corrected" not in lines[0]
    assert {key for key in lines[0] if key.startswith("seconds/")} == {
        f"seconds/{name}" for name in ("adapters", "generation", "rewards", "reference", "values", "update")
    }
    rows = pq.read_table(tmp_path / "run" / "updates" / "000002.parquet").to_pylist()
    assert len(rows) == 4 * 2 * 2 and {"text", "reward", "token_ids", "score"} <= rows[0].keys()


def test_a_frozen_first_turn_stays_the_base_to_the_bit(tiny: str, tmp_path: Path) -> None:
    def opened(weights: Any) -> list[Any]:
        made, protocol = weights
        live = Live(PROBLEMS[0], 0, protocol, made.team)
        made.engine.adopt(made.team)
        for _ in waves([live], made.engine, 0):
            pass
        return [(t.text, t.completion.logprobs) for t in live.turns if t.ask.agent == OPENER]

    made = host(tiny, "shared", frozen=True)
    before = opened(made)
    run(tmp_path / "run", made)
    assert opened(made) == before and len(before) == 2
    assert not (tmp_path / "run" / OPENER).exists() and (tmp_path / "run" / "agent").exists()
    base, own = base_of(tiny).state_dict(), made[0].learners[0].model.model.get_base_model().state_dict()
    for name, tensor in own.items():
        if "lora_" not in name:
            assert torch.equal(tensor, base[name.replace(".base_layer", "")]), name


def test_the_trained_policies_are_adapters_like_any_other(tiny: str, tmp_path: Path) -> None:
    made, protocol = host(tiny, "agent")
    run(tmp_path / "run", (made, protocol))
    folders = {name: str(check_adapter(str(tmp_path / "run" / name))) for name in ("agent-1", "agent-2")}
    team = made.team.adopt(folders)
    engine = open_engine(EXACT, team)
    found = []
    for one, seats_ in ((engine, team), (made.engine, made.team)):
        one.adopt(seats_)
        live = Live(PROBLEMS[0], 0, protocol, seats_)
        for _ in waves([live], one, 0):
            pass
        found.append([turn.text for turn in live.turns])
    assert found[0] == found[1]


class Killed(Exception):
    pass


def test_a_killed_training_goes_on_with_the_same_metrics_and_the_same_policies(tiny: str, tmp_path: Path) -> None:
    ppo = replace(SMALL, updates=5, save_every=2, kl_target=0.01)
    whole = run(tmp_path / "whole", host(tiny, "agent", ppo), ppo)
    calls = 0

    def broken(rows: Sequence[Row]) -> list[Row]:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise Killed
        return paid(rows)

    first: list[Any] = []
    made, protocol = host(tiny, "agent", ppo)
    with pytest.raises(Killed):
        for line in train(tmp_path / "run", PROBLEMS, protocol, made, broken, ppo):
            first.append(line)
    assert untimed(first) == untimed(whole[:3])
    again = run(tmp_path / "run", host(tiny, "agent", ppo), ppo)
    assert [line["step"] for line in again] == [2, 3, 4], "from the state after two updates"
    assert untimed(again) == untimed(whole[2:])
    for name in ("agent-1", "agent-2"):
        files = [tmp_path / which / name / "adapter_model.safetensors" for which in ("whole", "run")]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert [path.name for path in (tmp_path / "run" / "state").iterdir()] == ["step-000005"]
    before = files[1].read_bytes()
    files[1].unlink()  # killed while the policies are written
    assert run(tmp_path / "run", host(tiny, "agent", ppo), ppo) == [], "nothing is trained again"
    assert files[1].read_bytes() == before


def rolled(made: Host, protocol: Any, count: int = 4) -> list[Row]:
    made.engine.adopt(made.team)
    lives = [Live(problem, 0, protocol, made.team) for problem in PROBLEMS[:count]]
    for _ in waves(lives, made.engine, 0):
        pass
    return [row for live in lives for row in episode_rows(live.episode())]


def test_policies_learn_together_what_each_learns_alone(tiny: str) -> None:
    ppo = replace(SMALL, fit=replace(SMALL.fit, epochs=2, batch=4))
    made, protocol = host(tiny, "agent", ppo)
    rows = rolled(made, protocol)
    rewards = paid(rows)
    together = improved(made.learners[0], made.team, rows, rewards, ppo, 0.01, 0, 0, Clock())
    for name in ("agent-1", "agent-2"):
        one, _ = host(tiny, "agent", ppo)
        own = [row for row in rewards if row["agent"] == name]
        alone = improved(one.learners[0], one.team, rows, own, ppo, 0.01, 0, 0, Clock())
        assert alone == pytest.approx({k: v for k, v in together.items() if k.startswith(name)}, rel=1e-3, abs=1e-5)
        assert f"{name}-turn-2/clipped" in alone
        for a, b in zip(made.learners[0].model.parameters(name), one.learners[0].model.parameters(name), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


def test_an_engine_apart_is_given_every_updates_policies(tiny: str, tmp_path: Path) -> None:
    """An engine with weights of its own, as vLLM or a server, killed and gone on with: all is as with one model."""
    ppo = replace(SMALL, save_every=2)
    want = run(tmp_path / "one", host(tiny, "agent", ppo), ppo)

    def apart() -> tuple[Host, Any]:
        made, protocol = host(tiny, "agent", ppo)
        team = Team(tiny, made.team.agents).adopt(dict.fromkeys(made.team.names))
        return Host(team, open_engine(EXACT, team), made.learners, apart=True), protocol

    def broken(rows: Sequence[Row]) -> list[Row]:
        assert sorted(path.name for path in (tmp_path / "run/live").iterdir()) == [f"step-{len(first):06d}"]
        if len(first) == 2:
            raise Killed
        return paid(rows)

    first: list[Any] = []
    made, protocol = apart()
    with pytest.raises(Killed):
        for line in train(tmp_path / "run", PROBLEMS, protocol, made, broken, ppo):
            first.append(line)
    found = untimed([*first, *run(tmp_path / "run", apart(), ppo)])
    assert found == untimed(want)
    assert found[2]["agent-1/base_kl"] > 1e-3 > found[2]["agent-1/gap"], "it moved, and was sampled where it is"
    assert [path.name for path in (tmp_path / "run/live").iterdir()] == ["step-000002"], "until the run is sealed"


def test_an_engine_that_ignores_adapters_stops_the_training(tiny: str, tmp_path: Path) -> None:
    class Deaf(TransformersEngine):
        def adopt(self, team: Team) -> None:
            super().adopt(team.adopt(dict.fromkeys(team.names)))

    made, protocol = host(tiny, "agent", SMALL)
    model, tokenizer = load_model(tiny, "float32")
    team = Team(tiny, made.team.agents).adopt(dict.fromkeys(made.team.names))
    apart = Host(team, Deaf(model, tokenizer, tiny), made.learners, apart=True)
    lines = train(tmp_path / "run", PROBLEMS, protocol, apart, paid, replace(SMALL, updates=9))
    assert next(lines)["step"] == 0, "at first all policies are the base"
    with pytest.raises(TeamtuneError, match=r"the engine does not answer agent-1 with adapter .*step-0"):
        list(lines)


def test_engine_and_trainer_must_agree(tiny: str) -> None:
    made, protocol = host(tiny, "shared")
    rows = [{**row, "logprobs": [x - 0.5 for x in row["logprobs"]]} for row in rolled(made, protocol)]
    with pytest.raises(TeamtuneError, match=r"log-probabilities of agent are 0\.500 a token apart"):
        improved(made.learners[0], made.team, rows, paid(rows), SMALL, 0.0, 0, 0, Clock())
    rows = [{**row, "logprobs": [float("nan")] * len(row["logprobs"])} for row in rows]
    with pytest.raises(TeamtuneError, match=r"log-probabilities of agent are nan a token apart"):
        improved(made.learners[0], made.team, rows, paid(rows), SMALL, 0.0, 0, 0, Clock())


def test_a_policy_that_has_moved_far_enough_rests(tiny: str, tmp_path: Path) -> None:
    """It is found too far after its first step, and is not moved further: the same policy as that of one epoch."""
    fit = replace(SMALL.fit, rate=5e-2, epochs=6)
    ppo = replace(SMALL, updates=1, fit=fit, target_kl=1e-4)
    [line] = run(tmp_path / "run", host(tiny, "shared", ppo), ppo)
    assert line["agent/steps"] == 1 and line["agent-value/steps"] == 6
    [once] = run(tmp_path / "once", host(tiny, "shared", ppo), replace(ppo, target_kl=0.0, fit=replace(fit, epochs=1)))
    assert once["agent/targets"] == line["agent/targets"] > 0
    files = [tmp_path / which / "agent" / "adapter_model.safetensors" for which in ("run", "once")]
    one, other = map(load_file, files)
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name])


def test_the_weight_of_the_kl_follows_its_target(tiny: str) -> None:
    made, _ = host(tiny, "shared")
    ppo = replace(SMALL, kl_target=0.1)
    up, down = (adapted(1.0, {"agent/base_kl": kl}, made.learners, ppo) for kl in (0.5, 0.09))
    assert up == pytest.approx(1.02) and down == pytest.approx(0.99)
    assert adapted(1.0, {"agent/base_kl": 9.0}, made.learners, SMALL) == 1.0
    assert adapted(1.0, {}, made.learners, ppo) == 1.0, "an update without answers says nothing"


@pytest.mark.parametrize(("objective", "kl_in"), [("rloo", "reward"), ("rloo", "loss"), ("ppo", "loss")])
def test_a_strong_kl_keeps_policies_at_the_base(tiny: str, tmp_path: Path, objective: Any, kl_in: Any) -> None:
    apart = {}
    for weight in (0.0, 20.0):
        fit = replace(SMALL.fit, epochs=2)
        ppo = replace(SMALL, objective=objective, updates=6, fit=fit, kl=weight, kl_in=kl_in if weight else "reward")
        lines = run(tmp_path / f"{kl_in}-{weight}", host(tiny, "shared", ppo), ppo)
        apart[weight] = abs(lines[-1]["agent/base_kl"])
    assert apart[20.0] < apart[0.0]


def test_values_may_see_all_that_was_shown(tiny: str, tmp_path: Path) -> None:
    made, protocol = host(tiny, "shared")
    rows = rolled(made, protocol)
    brief, full = (
        answers_of(made.learners[0], made.team, rows, paid(rows), replace(SMALL, value_input=which))
        for which in ("answer", "full")
    )
    later = [n for n, answer in enumerate(brief["agent"]) if answer.where.endswith("turn-2")]
    assert later and all(answer.question == answer.example for answer in full["agent"])
    for n in later:
        assert len(brief["agent"][n].question.prompt) < len(full["agent"][n].question.prompt)
    ppo = replace(SMALL, value_input="full")
    both = [run(tmp_path / one.value_input, host(tiny, "shared", one), one) for one in (SMALL, ppo)]
    first, second = ([lines[n]["agent-1-turn-2/value_error"] for lines in both] for n in (0, 1))
    assert first[0] == first[1], "values begin at 0"
    assert second[0] != pytest.approx(second[1], rel=1e-4)


def test_activations_of_an_update_may_be_computed_again(tiny: str, tmp_path: Path) -> None:
    ppo = replace(SMALL, updates=2, fit=replace(SMALL.fit, checkpoint=True))
    lines = [run(tmp_path / str(n), host(tiny, "shared", one), one)[:2] for n, one in enumerate((SMALL, ppo))]
    for kept, again in zip(*map(untimed, lines), strict=True):
        assert again == pytest.approx(kept, rel=1e-4, abs=1e-6)


def test_agents_on_two_bases_learn_in_one_discussion(tiny: str, tmp_path: Path) -> None:
    other = str(make_model(tmp_path / "other", seed=7))
    speakers = by_policy("agent", 2, 2)
    team = Team(tiny, seats(speakers, Sampling(max_tokens=8)))
    team = replace(team, agents=(team.agents[0], replace(team.agents[1], model=other)))
    made = hosted(team, ["agent-1", "agent-2"], Lora(rank=4), SMALL, EXACT)
    assert [one.policies for one in made.learners] == [["agent-1"], ["agent-2"]]
    lines = run(tmp_path / "run", (made, partial(discussion, speakers=speakers)))
    assert all(line[f"agent-{a}/gap"] < 1e-4 for line in lines for a in (1, 2))
    assert all((tmp_path / "run" / f"agent-{a}").exists() for a in (1, 2))


def test_one_agent_learns_beside_a_frozen_partner(tiny: str, tmp_path: Path) -> None:
    speakers = by_policy("agent", 2, 2)
    team = Team(tiny, seats(speakers, Sampling(max_tokens=8)))
    made = hosted(team, ["agent-1"], Lora(rank=4), SMALL, EXACT)
    lines = run(tmp_path / "run", (made, partial(discussion, speakers=speakers)))
    assert "agent-1/loss" in lines[0] and "agent-2/loss" not in lines[0] and "agent-2-turn-1/reward" in lines[0]


def test_passes_over_the_problems() -> None:
    ppo = replace(SMALL, problems=5)
    steps = [[problem.id for problem in batch(PROBLEMS, step, ppo, 0)] for step in range(6)]
    assert all(len(set(one)) == 5 for one in steps)
    assert len({name for one in steps[:3] for name in one}) == 15 and steps[:3] != steps[3:]
    with pytest.raises(TeamtuneError, match="16 problems to train on, and 17 asked for an update"):
        batch(PROBLEMS, 0, replace(SMALL, problems=17), 0)


@pytest.mark.parametrize("sampling", [Sampling(0.0), Sampling(1.0, top_p=0.9), Sampling(1.0, top_k=5)])
def test_sampling_that_is_not_the_whole_distribution_is_refused(tiny: str, sampling: Sampling) -> None:
    team = Team(tiny, seats(by_policy("shared", 1, 1), sampling))
    with pytest.raises(TeamtuneError, match="PPO needs the whole distribution"):
        check_sampling(team, ["agent"])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"updates": 0}, "updates of ppo is 0"),
        ({"kl": -1.0}, "kl of ppo is -1.0"),
        ({"kl": 0.0, "kl_target": 0.1}, "kl_target of ppo has no use with kl 0"),
        ({"kl": 0.0, "kl_in": "loss"}, "kl_in of ppo has no use with kl 0"),
        ({"trace": 2.0}, r"trace of ppo is 2.0; it must lie in \[0, 1\]"),
        ({"objective": "rloo", "whiten_rewards": True}, "whiten_rewards of ppo has no use with objective rloo"),
    ],
)
def test_options_out_of_range(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(TeamtuneError, match=told):
        Ppo(**wrong)
