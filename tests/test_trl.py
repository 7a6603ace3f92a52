"""TRL as the oracle: on the same ids our losses, gradients and optimiser steps equal those of TRL's trainers.

TRL is given the ids themselves (`input_ids` and `labels`, or `prompt_ids`, `chosen_ids` and `rejected_ids`), so that
nothing is tokenised twice. Its DPO trainer has no such way in; there, the step that tokenises is skipped, and its
collator, loss, gradient clipping and optimiser are its own. For a model that comes with an adapter, TRL keeps a copy of
that adapter as the reference, which is what ours does too. In the gradient tests the adapter then moves away from the
reference, since at the reference itself a DPO margin is 0 whatever the reference is.

All is in float32: `precision` "auto" computes in bfloat16 where the machine can, whose noise would hide what is looked
for here.

Not compared: warm-up. TRL's schedule (that of transformers) has rate 0 in its first step, ours has not; all whole fits
here are without warm-up.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from helpers import base_of, random_adapter, tokenizer_of
from teamtune.engines.render import Renderer
from teamtune.train.examples import pair_example, sft_example
from teamtune.train.fit import Fit, autocast, backward, first_epoch, fit, items_of, schedule
from teamtune.train.objective import Objective, Preference, Sft, reference_of
from teamtune.train.team import Lora, TeamModel
from teamtune.types import Agent, Row, Team

AGENTS = ["generator", "verifier"]
COUNTS = {"generator": 6, "verifier": 4}
LORA = Lora(rank=4, alpha=8)
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}

# our objective, and TRL's options that mean the same
PREFERENCES = [
    pytest.param(Preference(beta=0.2), {"beta": 0.2, "loss_type": ["sigmoid"]}, id="dpo"),
    pytest.param(Preference(beta=0.2, loss="ipo"), {"beta": 0.2, "loss_type": ["ipo"]}, id="ipo"),
    pytest.param(
        Preference(beta=0.1, nll=0.7),
        {"beta": 0.1, "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]},
        id="dpo+nll",
    ),
    pytest.param(
        Preference(beta=0.3, loss="ipo", nll=0.4),
        {"beta": 0.3, "loss_type": ["ipo", "sft"], "loss_weights": [1.0, 0.4]},
        id="ipo+nll",
    ),
]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's experimental notices and the progress bars of datasets are of no interest here."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")


def ids_of(rng: random.Random, least: int, most: int) -> list[int]:
    return [rng.randrange(5, 290) for _ in range(rng.randint(least, most))]


def rows_of(kind: type[Sft] | type[Preference], seed: int = 0) -> list[Row]:
    """Rows of uneven lengths with recorded ids, so that our fit tokenises nothing either."""
    rng = random.Random(seed)
    rows: list[Row] = []
    for agent, count in COUNTS.items():
        for _ in range(count):
            row: Row = {"agent": agent, "messages": [], "prompt_ids": ids_of(rng, 3, 20)}
            if kind is Sft:
                row |= {"completion": "", "token_ids": [*ids_of(rng, 1, 25), 1]}
            else:
                row |= {"chosen": "", "chosen_ids": [*ids_of(rng, 1, 25), 1]}
                row |= {"rejected": "", "rejected_ids": ids_of(rng, 1, 40)}
            rows.append(row)
    return rows


def team_of(tiny: str, folder: Path) -> Team:
    """Each agent starts from an adapter of its own that is live already."""
    adapters = {agent: random_adapter(tiny, folder / agent, seed) for seed, agent in enumerate(AGENTS)}
    return Team(tiny, tuple(Agent(agent) for agent in AGENTS)).adopt(adapters)


def moved(tiny: str, folder: Path) -> dict[str, Path]:
    """Other adapters, to be the policy while the team's own stay the reference."""
    return {a: Path(random_adapter(tiny, folder / f"moved-{a}", 10 + i, 0.25)) for i, a in enumerate(AGENTS)}


def trl_options(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder / "trl"),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "max_length": None,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "per_device_train_batch_size": 8,
        "weight_decay": 0.0,
        "dataloader_pin_memory": False,
        **more,
    }


def sft_trainer(tiny: str, rows: list[Row], adapter: str, folder: Path, **more: Any) -> SFTTrainer:
    prompts, answers = [row["prompt_ids"] for row in rows], [row["token_ids"] for row in rows]
    data = {
        "input_ids": [p + a for p, a in zip(prompts, answers, strict=True)],
        "labels": [[-100] * len(p) + a for p, a in zip(prompts, answers, strict=True)],
    }
    return SFTTrainer(
        model=PeftModel.from_pretrained(base_of(tiny), adapter, is_trainable=True),
        args=SFTConfig(**trl_options(folder, **more)),
        train_dataset=Dataset.from_dict(data),
        processing_class=tokenizer_of(tiny),
    )


def dpo_trainer(
    tiny: str, rows: list[Row], adapter: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Any
) -> DPOTrainer:
    monkeypatch.setattr(DPOTrainer, "_prepare_dataset", lambda self, dataset, *rest: dataset)
    data = {name: [row[name] for row in rows] for name in ("prompt_ids", "chosen_ids", "rejected_ids")}
    return DPOTrainer(
        model=PeftModel.from_pretrained(base_of(tiny), adapter, is_trainable=True),
        args=DPOConfig(**trl_options(folder, **more)),
        train_dataset=Dataset.from_dict(data),
        processing_class=tokenizer_of(tiny),
    )


def trl_gradients(trainer: Any) -> tuple[float, dict[str, Tensor]]:
    """TRL's loss on all rows as one batch, and the gradient of every LoRA tensor by its name in the adapter's file."""
    trainer.model.train()
    batch = trainer.data_collator(list(trainer.train_dataset))
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    found = {
        name.replace(".default", ""): parameter.grad
        for name, parameter in trainer.model.named_parameters()
        if ".default." in name
    }
    return loss.item(), found


def our_gradients(
    team: Team,
    rows: list[Row],
    objective: Objective,
    policy: dict[str, Path],
    folder: Path,
    micro_tokens: int,
) -> tuple[dict[str, float], dict[str, dict[str, Tensor]]]:
    """Our loss and gradients of one step of both agents together; the reference is the team's own adapters."""
    options = Fit(batch=8, micro_tokens=micro_tokens, precision="float32")
    model = TeamModel.open(team, AGENTS, LORA)
    items = items_of(rows, model, objective)
    reference = None
    if isinstance(objective, Preference):
        plan = {agent: schedule(len(items[agent]), options, 0, agent) for agent in AGENTS}
        micros = first_epoch(items, plan, options, model)
        reference = reference_of(folder / "ours", model, micros, objective, autocast(model, options))
    for agent, where in policy.items():
        model.restore(agent, where / "adapter_model.safetensors")
    sums = backward(model, items, objective, options, reference)
    gradients = {
        agent: {
            name.replace(f".{agent}", ""): parameter.grad
            for name, parameter in model.model.named_parameters()
            if f".{agent}." in name and parameter.grad is not None
        }
        for agent in AGENTS
    }
    return {agent: sums[agent]["loss"] for agent in AGENTS}, gradients


def of(rows: list[Row], agent: str) -> list[Row]:
    return [row for row in rows if row["agent"] == agent]


def assert_same_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert len(ours) == 2 * 7 * 2, "A and B of seven matrices in two layers"
    for name, gradient in theirs.items():
        assert float(gradient.norm()) > 1e-3, f"{name}: a gradient of about nothing would compare nothing"
        torch.testing.assert_close(ours[name], gradient, **CLOSE, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("micro_tokens", [100_000, 120])
def test_sft_loss_and_gradients_equal_trl(tiny: str, tmp_path: Path, micro_tokens: int) -> None:
    rows, team = rows_of(Sft), team_of(tiny, tmp_path)
    losses, gradients = our_gradients(team, rows, Sft(), {}, tmp_path, micro_tokens)
    for agent in AGENTS:
        adapter = team[agent].adapter
        assert adapter is not None
        loss, theirs = trl_gradients(sft_trainer(tiny, of(rows, agent), adapter, tmp_path))
        assert losses[agent] == pytest.approx(loss, rel=1e-5)
        assert_same_gradients(gradients[agent], theirs)


@pytest.mark.parametrize("micro_tokens", [100_000, 200])
@pytest.mark.parametrize(("objective", "options"), PREFERENCES)
def test_preference_loss_and_gradients_equal_trl(
    tiny: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objective: Preference,
    options: dict[str, Any],
    micro_tokens: int,
) -> None:
    rows, team, policy = rows_of(Preference), team_of(tiny, tmp_path), moved(tiny, tmp_path)
    losses, gradients = our_gradients(team, rows, objective, policy, tmp_path, micro_tokens)
    for agent in AGENTS:
        adapter = team[agent].adapter
        assert adapter is not None
        trainer = dpo_trainer(tiny, of(rows, agent), adapter, tmp_path, monkeypatch, **options)
        model: Any = trainer.model
        set_peft_model_state_dict(model, load_file(policy[agent] / "adapter_model.safetensors"))
        loss, theirs = trl_gradients(trainer)
        assert losses[agent] == pytest.approx(loss, rel=1e-5)
        assert_same_gradients(gradients[agent], theirs)


def trl_fit(trainer: Any) -> dict[str, Tensor]:
    trainer.train()
    return get_peft_model_state_dict(trainer.model, adapter_name="default")


def assert_same_weights(folder: Path, agent: str, theirs: dict[str, Tensor], before: str) -> None:
    """Both fits moved every tensor, and to the same place."""
    ours = load_file(folder / agent / "adapter_model.safetensors")
    start = load_file(Path(before) / "adapter_model.safetensors")
    assert ours.keys() == theirs.keys() == start.keys()
    for name, tensor in theirs.items():
        assert float((tensor - start[name]).abs().max()) > 1e-4, f"{name} did not move"
        torch.testing.assert_close(ours[name], tensor.detach(), **CLOSE)


# AdamW divides by the gradient's size, so where a gradient is about 0 its sign, and with it a whole step, is noise:
# epsilon 1e-8 makes no difference between +1e-9 and -1e-9. The rows are such that no gradient is that small.
@pytest.mark.parametrize("decay", ["linear", "constant"])
def test_three_steps_of_sft_end_where_trl_does(tiny: str, tmp_path: Path, decay: Any) -> None:
    rows, team = rows_of(Sft), team_of(tiny, tmp_path)
    how = Fit(rate=1e-3, batch=8, epochs=3, warmup=0.0, decay=decay, precision="float32")
    lines = list(fit(tmp_path / "fit", rows, team, AGENTS, LORA, Sft(), how))
    for agent in AGENTS:
        adapter = team[agent].adapter
        assert adapter is not None
        more = {"learning_rate": 1e-3, "num_train_epochs": 3, "lr_scheduler_type": decay, "logging_steps": 1}
        trainer = sft_trainer(tiny, of(rows, agent), adapter, tmp_path, **more)
        assert_same_weights(tmp_path / "fit", agent, trl_fit(trainer), adapter)
        logged = [line for line in trainer.state.log_history if "loss" in line]
        assert [line[f"{agent}/loss"] for line in lines] == pytest.approx([x["loss"] for x in logged], rel=1e-4)
        assert [line[f"{agent}/norm"] for line in lines] == pytest.approx([x["grad_norm"] for x in logged], rel=1e-4)
        assert max(x["grad_norm"] for x in logged) > 1, "the gradient is clipped in at least one step"


@pytest.mark.parametrize(("objective", "options"), PREFERENCES[:3])
def test_three_steps_of_preference_end_where_trl_does(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: Preference, options: dict[str, Any]
) -> None:
    rows, team = rows_of(Preference), team_of(tiny, tmp_path)
    how = Fit(rate=1e-3, batch=8, epochs=3, warmup=0.0, precision="float32")
    lines = list(fit(tmp_path / "fit", rows, team, AGENTS, LORA, objective, how))
    for agent in AGENTS:
        adapter = team[agent].adapter
        assert adapter is not None
        more = {
            "learning_rate": 1e-3,
            "num_train_epochs": 3,
            "lr_scheduler_type": "linear",
            "logging_steps": 1,
        }
        trainer = dpo_trainer(tiny, of(rows, agent), adapter, tmp_path, monkeypatch, **options, **more)
        assert_same_weights(tmp_path / "fit", agent, trl_fit(trainer), adapter)
        logged = [line for line in trainer.state.log_history if "loss" in line]
        assert [line[f"{agent}/loss"] for line in lines] == pytest.approx([x["loss"] for x in logged], rel=1e-4)
        if objective.loss == "dpo":
            margins = [x["rewards/margins"] for x in logged]
            assert [line[f"{agent}/margin"] for line in lines] == pytest.approx(margins, rel=1e-3, abs=1e-5)
            accuracies = [x["rewards/accuracies"] for x in logged]
            assert [line[f"{agent}/accuracy"] for line in lines] == pytest.approx(accuracies)


def texts_of(kind: type[Sft] | type[Preference]) -> list[Row]:
    """Rows as a server without ids leaves them: messages and text."""
    messages = [{"role": "system", "content": "You check."}, {"role": "user", "content": "Is 3 * 4 = 12? Say it."}]
    row: Row = {"agent": "verifier", "messages": messages, "prompt_ids": None}
    if kind is Sft:
        return [row | {"completion": f"Yes: {i} times. Answer: {i}", "token_ids": None} for i in range(3)]
    gone = {"chosen_ids": None, "rejected_ids": None}
    return [row | {"chosen": f"Yes, {i}", "rejected": f"No, never {i * 7}", **gone} for i in range(3)]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_rows_without_ids_are_tokenised_as_trl_does(tiny: str, tmp_path: Path) -> None:
    """By the chat template, with the loss on the answer and its stop alone."""
    renderer = Renderer(tokenizer_of(tiny), tiny)
    adapter = random_adapter(tiny, tmp_path / "a", 0)
    rows = texts_of(Sft)
    data = {"prompt": [row["messages"] for row in rows], "completion": [said(row["completion"]) for row in rows]}
    sft: Any = SFTTrainer(
        model=PeftModel.from_pretrained(base_of(tiny), adapter, is_trainable=True),
        args=SFTConfig(**trl_options(tmp_path)),
        train_dataset=Dataset.from_dict(data),
        processing_class=tokenizer_of(tiny),
    )
    for row, theirs in zip(rows, sft.train_dataset, strict=True):
        ours = sft_example(row, renderer)
        assert [*ours.prompt, *ours.answer] == theirs["input_ids"]
        assert [-100] * len(ours.prompt) + ours.answer == theirs["labels"]
    rows = texts_of(Preference)
    data = {"prompt": [row["messages"] for row in rows]}
    data |= {side: [said(row[side]) for row in rows] for side in ("chosen", "rejected")}
    dpo: Any = DPOTrainer(
        model=PeftModel.from_pretrained(base_of(tiny), adapter, is_trainable=True),
        args=DPOConfig(**trl_options(tmp_path)),
        train_dataset=Dataset.from_dict(data),
        processing_class=tokenizer_of(tiny),
    )
    for row, theirs in zip(rows, dpo.train_dataset, strict=True):
        pair = pair_example(row, renderer)
        assert pair.chosen.prompt == pair.rejected.prompt == theirs["prompt_ids"]
        assert (pair.chosen.answer, pair.rejected.answer) == (theirs["chosen_ids"], theirs["rejected_ids"])
