"""The joint fit: equals separate fits, touches nobody else's weights, resumes, starts DPO at ln 2."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from teamtune.cli import main as command
from teamtune.train import fit as train_fit
from teamtune.train import losses
from teamtune.train.fit import fit
from teamtune.train.objective import Objective, Policy, Preference, Sft
from teamtune.train.team import Lora, TeamModel
from teamtune.types import Agent, Row, Sampling, Team, TeamtuneError

# Equalities are checked in float32, whatever this machine would choose.
Fit = partial(train_fit.Fit, precision="float32")
AGENTS = ["generator", "verifier", "refiner"]
LORA = Lora(rank=4, alpha=8)


def team(tiny: str) -> Team:
    return Team(tiny, tuple(Agent(name, f"You are the {name}.", Sampling()) for name in AGENTS))


def sft_rows(counts: dict[str, int]) -> list[Row]:
    return [
        {
            "agent": agent,
            "messages": [{"role": "user", "content": f"{i} + {i}?" * (1 + i % 3)}],
            "completion": f"{agent[0]} Answer: {2 * i}",
            "prompt_ids": None,
            "token_ids": None,
        }
        for agent, count in counts.items()
        for i in range(count)
    ]


def pair_rows(counts: dict[str, int]) -> list[Row]:
    return [
        {
            "agent": agent,
            "messages": [{"role": "user", "content": f"{i} + {i}?" * (1 + i % 3)}],
            "chosen": f"Answer: {2 * i}",
            "rejected": f"I say {3 * i + 1} is it",
            "prompt_ids": None,
            "chosen_ids": None,
            "rejected_ids": None,
        }
        for agent, count in counts.items()
        for i in range(count)
    ]


def policy_rows(counts: dict[str, int]) -> list[Row]:
    """Answers with made-up ids, sampled at about the probability that the untrained base gives them, and advantages."""
    return [
        {
            **{"agent": agent, "messages": [], "completion": "", "prompt_ids": [40 + i, 41, 42]},
            **{"token_ids": [50 + i, 60, 1], "logprobs": [-5.0 - 0.1 * i, -5.5, -5.2], "advantage": (-1.0) ** i * 0.5},
        }
        for agent, count in counts.items()
        for i in range(count)
    ]


def rows_for(objective: Objective, counts: dict[str, int]) -> list[Row]:
    if isinstance(objective, Policy):
        return policy_rows(counts)
    return sft_rows(counts) if isinstance(objective, Sft) else pair_rows(counts)


def weights(folder: Path, agent: str) -> dict[str, torch.Tensor]:
    return load_file(folder / agent / "adapter_model.safetensors")


def mixing(rows: list[Row], tiny: str, objective: Objective, options: train_fit.Fit) -> int:
    """Micro-batches of the first epoch that hold rows of several agents."""
    model = TeamModel.open(team(tiny), AGENTS, LORA)
    items = train_fit.items_of(rows, model, objective)
    schedules = {agent: train_fit.schedule(len(own), options, 0, agent) for agent, own in items.items()}
    made = train_fit.first_epoch(items, schedules, options, model)
    return sum(len({item.agent for item in micro}) > 1 for micro in made)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_adapters_do_not_take_the_output_layer(tiny: str) -> None:
    with pytest.raises(TeamtuneError, match="the output layer among its targets"):
        TeamModel.open(team(tiny), AGENTS, Lora(targets="q_proj,lm_head"))


@pytest.mark.parametrize("objective", [Sft(), Preference()])
def test_bfloat16_is_near_float32_and_joint_near_separate(tiny: str, tmp_path: Path, objective: Objective) -> None:
    counts = {"generator": 6, "verifier": 6, "refiner": 6}
    rows = rows_for(objective, counts)
    options = Fit(rate=1e-2, batch=3, epochs=2, micro_tokens=2000, precision="bfloat16")
    low = list(fit(tmp_path / "low", rows, team(tiny), AGENTS, LORA, objective, options))
    exact = replace(options, precision="float32")
    full = list(fit(tmp_path / "full", rows, team(tiny), AGENTS, LORA, objective, exact))
    for agent in AGENTS:
        alone = list(fit(tmp_path / agent, rows, team(tiny), [agent], LORA, objective, options))
        losses = [[float(line[f"{agent}/loss"]) for line in lines] for lines in (low, full, alone)]
        assert losses[0] == pytest.approx(losses[1], rel=0.05) and losses[0] != losses[1], "the precision is in use"
        assert losses[0] == pytest.approx(losses[2], rel=0.03)
        assert all(tensor.dtype == torch.float32 for tensor in weights(tmp_path / "low", agent).values())


@pytest.mark.parametrize(
    "objective", [Sft(), Preference(beta=0.2), Preference(loss="ipo"), Preference(nll=0.5), Policy(kl=0.1)]
)
def test_joint_equals_separate(tiny: str, tmp_path: Path, objective: Objective) -> None:
    counts = {"generator": 7, "verifier": 12, "refiner": 5}
    rows = rows_for(objective, counts)
    options = Fit(rate=1e-2, batch=3, epochs=2, micro_tokens=200 if isinstance(objective, Sft) else 2000)
    assert mixing(rows, tiny, objective, options) > 2
    list(fit(tmp_path / "joint", rows, team(tiny), AGENTS, LORA, objective, options))
    for agent in AGENTS:
        list(fit(tmp_path / agent, rows, team(tiny), [agent], LORA, objective, options))
        joint, alone = weights(tmp_path / "joint", agent), weights(tmp_path / agent, agent)
        assert joint.keys() == alone.keys()
        for name in joint:
            torch.testing.assert_close(joint[name], alone[name], rtol=1e-3, atol=1e-5)


@given(
    moved=st.lists(st.floats(-2, 2), min_size=1, max_size=6),
    advantage=st.floats(-2, 2),
    clip=st.floats(0.05, 0.9),
    kl=st.floats(0, 1),
)
def test_the_clipped_surrogate_against_a_loop(moved: list[float], advantage: float, clip: float, kl: float) -> None:
    slow = []
    for d in moved:
        ratio = math.exp(d)
        kept = min(max(ratio, 1 - clip), 1 + clip)
        slow.append(-min(ratio * advantage, kept * advantage) + kl * (math.exp(d) - 1 - d))
    sampled = torch.full((1, len(moved) + 1), -3.0)
    logprobs = sampled + torch.tensor([[0.7, *moved]])
    mask = torch.tensor([[False] + [True] * len(moved)])
    fast = losses.policy(logprobs, sampled, mask, torch.full_like(logprobs, advantage), clip, kl)
    assert fast[0, 0] == 0
    assert fast[0, 1:].tolist() == pytest.approx(slow, abs=1e-4, rel=1e-4)


def test_the_clip_acts_where_the_ratio_left_the_range_on_the_side_that_pays() -> None:
    sampled = torch.zeros(1, 6)
    logprobs = torch.tensor([[0.5, 0.5, -0.5, -0.5, 0.1, 0.5]])
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0, 1.0, 1.0]])
    mask = torch.tensor([[True] * 5 + [False]])
    found = losses.clipped(logprobs, sampled, mask, advantages, 0.2)
    assert found.tolist() == [[True, False, False, True, False, False]]
    logprobs.requires_grad_()
    losses.policy(logprobs, sampled, mask, advantages, 0.2).sum().backward()
    assert logprobs.grad is not None
    assert ((logprobs.grad == 0) == (found | ~mask)).all(), "no gradient comes from there, and from all the others"


def test_the_estimated_kl_of_what_a_policy_sampled_is_the_exact_one_on_average() -> None:
    """Also far from 0, where the estimate with both policies exchanged is many times too large."""
    torch.manual_seed(0)
    own, other = (torch.log_softmax(2.0 * torch.randn(50), -1)[None] for _ in range(2))
    every = torch.ones(1, 50, dtype=torch.bool)
    exact = (own.exp() * (own - other)).sum().item()
    assert exact > 1
    assert (own.exp() * losses.k3(own, other, every)).sum().item() == pytest.approx(exact, rel=1e-4)
    assert (own.exp() * losses.k3(other, own, every)).sum().item() > 2 * exact
    assert losses.k3(own, other, ~every).abs().sum() == 0


def test_policy_gradients_raise_what_was_better_and_lower_what_was_worse(tiny: str, tmp_path: Path) -> None:
    from teamtune.train.score import score_turns

    named = [{"problem": str(i), "take": 0, "turn": 0, **row} for i, row in enumerate(policy_rows({"generator": 6}))]
    before = list(score_turns(named, team(tiny), ["generator"], given="turn").rows)
    sampled = [{**row, "logprobs": old["logprobs"]} for row, old in zip(named, before, strict=True)]
    lines = list(fit(tmp_path, sampled, team(tiny), ["generator"], LORA, Policy(), Fit(rate=1e-2, batch=6, epochs=4)))
    # At the first step nothing has moved: every ratio is 1, so the loss is minus the mean advantage, which is 0 here.
    assert lines[0]["generator/clipped"] == 0 and lines[0]["generator/kl"] == pytest.approx(0, abs=1e-6)
    assert lines[0]["generator/loss"] == pytest.approx(0, abs=1e-6)
    after_team = team(tiny).adopt({"generator": str(tmp_path / "generator")})
    after = list(score_turns(named, after_team, ["generator"], given="turn").rows)
    gains = [sum(new["logprobs"]) - sum(old["logprobs"]) for new, old in zip(after, before, strict=True)]
    better, worse = (
        [g for g, row in zip(gains, named, strict=True) if (row["advantage"] > 0) == up] for up in (True, False)
    )
    assert min(better) > max(worse)


@pytest.mark.parametrize(("options", "said"), [({"clip": 0.0}, "clip is 0.0"), ({"kl": -1.0}, "kl is -1.0")])
def test_policy_options_out_of_range(options: dict[str, float], said: str) -> None:
    with pytest.raises(TeamtuneError, match=said):
        Policy(**options)


def test_every_trained_tensor_moves_and_the_base_does_not(tiny: str, tmp_path: Path) -> None:
    from teamtune.train.team import TeamModel

    model = TeamModel.open(team(tiny), AGENTS, LORA)
    before = {name: p.detach().clone() for name, p in model.model.named_parameters()}
    from teamtune.train.fit import fit_model

    list(fit_model(tmp_path, model, sft_rows(dict.fromkeys(AGENTS, 8)), Sft(), Fit(rate=1e-2, batch=4, epochs=2)))
    for name, p in model.model.named_parameters():
        moved = not torch.equal(before[name], p.detach())
        assert moved == ("lora_" in name), name


def test_other_agents_bytes_are_untouched(tiny: str, tmp_path: Path) -> None:
    """An agent with fewer rows stays as its own last step left it, to the bit, while the others go on."""
    names = ["one", "short"]
    model = TeamModel.open(Team(tiny, tuple(map(Agent, names))), names, LORA, dtype="float32")
    snapshots = [{name: {k: v.clone() for k, v in model.weights(name).items()} for name in names}]
    rows, options = sft_rows({"one": 8, "short": 4}), Fit(1e-2, 1, batch=2)
    for step, line in enumerate(train_fit.fit_model(tmp_path, model, rows, Sft(), options)):
        assert ("short/loss" in line) == (step < 2)
        snapshots.append({name: {k: v.clone() for k, v in model.weights(name).items()} for name in names})
    moved = lambda name, step: any(  # noqa: E731
        not torch.equal(tensor, snapshots[step][name][key]) for key, tensor in snapshots[step + 1][name].items()
    )
    assert [moved("one", step) for step in range(4)] == [True] * 4
    assert [moved("short", step) for step in range(4)] == [True, True, False, False]


def test_dpo_starts_at_ln_2_exactly(tiny: str, tmp_path: Path) -> None:
    list(fit(tmp_path / "sft", sft_rows({"verifier": 8}), team(tiny), ["verifier"], LORA, Sft(), Fit(rate=1e-2)))
    trained = team(tiny).adopt({"verifier": str(tmp_path / "sft" / "verifier")})
    rows = pair_rows({"verifier": 11})
    lines = list(fit(tmp_path / "dpo", rows, trained, ["verifier"], LORA, Preference(), Fit(rate=1e-2, batch=4)))
    assert lines[0]["verifier/loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert lines[0]["verifier/margin"] == 0
    assert lines[-1]["verifier/loss"] != pytest.approx(math.log(2), abs=1e-3)


@pytest.mark.parametrize("objective", [Sft(), Preference(), Policy()])
def test_a_fit_that_breaks_off_ends_the_same(tiny: str, tmp_path: Path, objective: Objective) -> None:
    counts = {"generator": 9, "verifier": 4}
    rows = rows_for(objective, counts)
    options = Fit(rate=1e-2, batch=2, epochs=2, save_every=2)
    names = list(counts)
    whole = list(fit(tmp_path / "whole", rows, team(tiny), names, LORA, objective, options))
    broken = fit(tmp_path / "broken", rows, team(tiny), names, LORA, objective, options)
    for _ in range(6):
        next(broken)
    broken.close()
    rest = list(fit(tmp_path / "broken", rows, team(tiny), names, LORA, objective, options))
    assert rest[0]["step"] == 4, "it goes on from the last state"
    for got, want in zip(rest, whole[4:], strict=True):
        assert got == pytest.approx(want, rel=1e-4, abs=1e-5)
    for agent in names:
        for name, tensor in weights(tmp_path / "whole", agent).items():
            torch.testing.assert_close(weights(tmp_path / "broken", agent)[name], tensor, rtol=1e-4, atol=1e-6)


def test_accumulation_is_exact(tiny: str, tmp_path: Path) -> None:
    rows = sft_rows({"generator": 8})
    for name, tokens in (("one", 100_000), ("eight", 1)):
        list(
            fit(
                tmp_path / name,
                rows,
                team(tiny),
                ["generator"],
                LORA,
                Sft(),
                Fit(rate=1e-2, micro_tokens=tokens),
            )
        )
    for name, tensor in weights(tmp_path / "one", "generator").items():
        torch.testing.assert_close(weights(tmp_path / "eight", "generator")[name], tensor, rtol=1e-3, atol=1e-5)


def test_an_agent_without_rows_stops_the_fit(tiny: str, tmp_path: Path) -> None:
    with pytest.raises(TeamtuneError, match="no rows to train refiner"):
        list(fit(tmp_path, sft_rows({"verifier": 3}), team(tiny), ["verifier", "refiner"], LORA, Sft(), Fit()))


def test_a_missing_adapter_is_named(tiny: str, tmp_path: Path) -> None:
    gone = team(tiny).adopt({"verifier": str(tmp_path / "gone")})
    with pytest.raises(TeamtuneError, match=r"no adapter in .*gone"):
        list(fit(tmp_path, sft_rows({"verifier": 3}), gone, ["verifier"], LORA, Sft(), Fit()))


@pytest.mark.parametrize("objective", [Sft(), Preference(), Policy()])
def test_a_fit_that_diverges_stops_and_names_agent_step_and_rate(
    tiny: str, tmp_path: Path, objective: Objective
) -> None:
    rows = rows_for(objective, {"verifier": 12})
    steps = fit(tmp_path, rows, team(tiny), ["verifier"], LORA, objective, Fit(rate=1e30, batch=2))
    with pytest.raises(TeamtuneError, match=r"of verifier is (nan|inf) at step \d+; the rate 1e\+30 is too high"):
        list(steps)
    assert not list(tmp_path.rglob("adapter_model.safetensors"))


# What decides how much memory a fit takes, and nothing else


def trained(tiny: str, folder: Path, objective: Objective, options: train_fit.Fit, lora: Lora = LORA) -> list[Row]:
    rows = rows_for(objective, {"generator": 8, "verifier": 8, "refiner": 8})
    return list(fit(folder, rows, team(tiny), AGENTS, lora, objective, options))


def same(one: Path, other: Path, rtol: float = 1e-3, atol: float = 1e-5) -> None:
    for agent in AGENTS:
        found = weights(other, agent)
        assert found
        for name, tensor in weights(one, agent).items():
            torch.testing.assert_close(found[name], tensor, rtol=rtol, atol=atol)


OBJECTIVES = [Sft(), Preference(beta=0.2, nll=0.1), Policy(kl=0.1)]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["sft", "dpo", "ppo"])
def test_one_batch_of_eight_is_eight_of_one(
    tiny: str, tmp_path: Path, objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Micro-batches of single rows (a row that is longer than their limit stands alone) beside one of all rows. In
    float64, for Adam takes whole steps where a gradient is next to 0, and there float32 leaves its sign to rounding."""
    gradients: dict[str, list[torch.Tensor]] = {}
    update = train_fit.update

    def seen(model: Any, agent: str, *how: Any) -> Any:
        own = [parameter.grad.flatten() for parameter in model.parameters(agent)]
        gradients.setdefault(agent, []).append(torch.cat(own).clone())
        return update(model, agent, *how)

    monkeypatch.setattr(train_fit, "update", seen)
    monkeypatch.setattr(TeamModel, "open", partial(TeamModel.open, dtype="float64"))
    options = Fit(rate=1e-2, batch=8, epochs=3)
    whole = trained(tiny, tmp_path / "whole", objective, replace(options, micro_tokens=100_000))
    ones = trained(tiny, tmp_path / "ones", objective, replace(options, micro_tokens=1))
    same(tmp_path / "whole", tmp_path / "ones")
    for first, _, _, again, _, _ in gradients.values():  # Adam would hide a gradient of another length
        assert (first - again).norm() < 1e-12 * first.norm()
    for a, b in zip(whole, ones, strict=True):
        assert a.keys() == b.keys() and all(b[name] == pytest.approx(a[name], rel=1e-3, abs=1e-5) for name in a)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["sft", "dpo", "ppo"])
def test_activations_may_be_computed_again(
    tiny: str, tmp_path: Path, objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same adapters, agent by agent, though each layer runs twice."""
    from transformers.models.llama.modeling_llama import LlamaMLP

    runs = 0
    forward = LlamaMLP.forward

    def counted(self: LlamaMLP, *given: torch.Tensor) -> torch.Tensor:
        nonlocal runs
        runs += torch.is_grad_enabled()
        return forward(self, *given)

    monkeypatch.setattr(LlamaMLP, "forward", counted)
    options = Fit(rate=1e-2, batch=4, epochs=2)
    trained(tiny, tmp_path / "once", objective, options)
    once, runs = runs, 0
    trained(tiny, tmp_path / "again", objective, replace(options, checkpoint=True))
    assert runs >= 2 * once
    same(tmp_path / "once", tmp_path / "again")


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["sft", "dpo", "ppo"])
def test_the_logits_of_all_tokens_need_never_be_there(
    tiny: str, tmp_path: Path, objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five tokens' logits at a time, and never a prompt's, beside all of them at once."""
    from teamtune.train import team as team_module
    from teamtune.train.team import TeamModel

    most: list[int] = []
    logits = TeamModel.logits

    def watched(self: TeamModel, states: torch.Tensor) -> torch.Tensor:
        most.append(states.shape[0])
        return logits(self, states)

    monkeypatch.setattr(TeamModel, "logits", watched)
    options = Fit(rate=1e-2, batch=4, epochs=2, micro_tokens=100_000)
    trained(tiny, tmp_path / "whole", objective, options)
    assert max(most) > 30
    most.clear()
    monkeypatch.setattr(team_module, "MOST_LOGITS", 5 * 300)
    trained(tiny, tmp_path / "parts", objective, options)
    assert max(most) <= 5
    same(tmp_path / "whole", tmp_path / "parts")


def test_a_model_that_makes_its_logits_in_its_own_way_keeps_them_whole(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from teamtune.train import team as team_module

    trained(tiny, tmp_path / "apart", Sft(), Fit(rate=1e-2))
    tried: list[int] = []

    def others(_: Any, states: torch.Tensor) -> torch.Tensor:
        tried.append(states.shape[-2])
        return states.new_zeros(1, 4, 3)

    monkeypatch.setattr(team_module, "projected", others)
    trained(tiny, tmp_path / "whole", Sft(), Fit(rate=1e-2))
    assert tried == [4], "tried as the model is opened, and not used after"
    same(tmp_path / "apart", tmp_path / "whole")


# Other adapters, another base


def test_rank_stabilised_adapters_say_so_and_learn(tiny: str, tmp_path: Path) -> None:
    options = Fit(rate=1e-2, batch=4, epochs=2)
    lines = trained(tiny, tmp_path, Sft(), options, Lora(rank=16, alpha=16, rslora=True))
    assert lines[-1]["verifier/loss"] < lines[0]["verifier/loss"]
    config = json.loads((tmp_path / "verifier" / "adapter_config.json").read_text())
    assert config["use_rslora"] is True


def test_a_base_in_four_bits_trains_adapters(wide: str, tmp_path: Path) -> None:
    """QLoRA: the base's linear layers are in NF4; the first loss is near that of the whole base, and falls."""
    bits = pytest.importorskip("bitsandbytes")
    options = Fit(rate=1e-2, batch=4, epochs=3)
    model = TeamModel.open(team(wide), AGENTS, Lora(rank=4, alpha=8, bits=4))
    packed = [m for m in model.model.modules() if isinstance(m, bits.nn.Linear4bit)]
    assert len(packed) == 14 and packed[0].weight.dtype == torch.uint8
    four = trained(wide, tmp_path / "four", Sft(), options, Lora(rank=4, alpha=8, bits=4))
    whole = trained(wide, tmp_path / "whole", Sft(), options)
    assert four[0]["verifier/loss"] == pytest.approx(whole[0]["verifier/loss"], rel=0.2)
    assert four[0]["verifier/loss"] != whole[0]["verifier/loss"]
    assert four[-1]["verifier/loss"] < four[0]["verifier/loss"]


def test_weights_that_four_bits_would_lose_are_not_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """bitsandbytes 0.50.2 mixes up scales on a CPU where a layer's width is no multiple of 64, as the house model's."""
    pytest.importorskip("bitsandbytes")
    with pytest.raises(SystemExit):
        command(["malt", "--task", "arithmetic", "--lora.bits", "4", "--out", str(tmp_path / "run")])
    told = " ".join(capsys.readouterr().err.split())
    assert "of weights of width 160 in 4 bits on cpu, where 1 % is usual; take lora.bits 16" in told
    assert not (tmp_path / "run").exists()


def test_agents_are_not_named_after_parts_of_the_model(tiny: str) -> None:
    with pytest.raises(TeamtuneError, match="agent name 'model' is that of a part of the model"):
        TeamModel.open(Team(tiny, (Agent("one"), Agent("model"))), ["one", "model"], LORA)
    with pytest.raises(TeamtuneError, match=r"agent name 'a\.b' cannot name a folder"):
        Agent("a.b")
