"""Answers scored under other agents: equal to what the sampler said, different where adapters differ."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from teamtune import diversity
from teamtune.engines import EngineSpec, open_engine
from teamtune.play import Live, waves
from teamtune.protocols.debate import debate, seats
from teamtune.train import score
from teamtune.train.score import score_turns
from teamtune.train.team import Lora, TeamModel
from teamtune.types import Problem, Row, Sampling, Team, TeamtuneError, turn_row


@pytest.fixture(scope="module")
def talked(brief: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], Team]:
    """A debate of two agents with adapters of their own and one without."""
    folder = tmp_path_factory.mktemp("adapters")
    team = Team(brief, seats(Sampling(max_tokens=12), 3))
    names = ["debater-0", "debater-1"]
    model = TeamModel.open(team, names, Lora(rank=4))
    with torch.no_grad():
        for seed, name in enumerate(names):
            torch.manual_seed(seed)
            for parameter in model.parameters(name):
                parameter.normal_(0, 0.3)
            model.save(name, folder / name)
    team = team.adopt({name: str(folder / name) for name in names})
    engine = open_engine(EngineSpec(dtype="float32"), team)
    engine.adopt(team)
    lives = [Live(Problem(f"p{i}", f"What is {i}?", "1", "End."), 0, debate, team) for i in range(3)]
    for _ in waves(lives, engine, 0):
        pass
    return [turn_row(live.problem.id, 0, turn) for live in lives for turn in live.turns], team


def test_under_its_own_author_an_answer_scores_as_it_was_sampled(talked: tuple[list[Row], Team]) -> None:
    turns, team = talked
    rows = list(score_turns(turns, team, team.names, given="turn").rows)
    assert len(rows) == 3 * len(turns)
    sampled = {(turn["problem"], turn["turn"]): turn["logprobs"] for turn in turns}
    for row in rows:
        said = sampled[row["problem"], row["turn"]]
        if row["under"] == row["agent"]:
            assert row["logprobs"] == pytest.approx(said, abs=1e-4)
            assert diversity.kl_sampled(said, row["logprobs"]) == pytest.approx(0, abs=1e-4)
        else:
            assert row["logprobs"] != pytest.approx(said, abs=1e-3)


def test_given_the_question_alone_first_answers_score_the_same_and_later_ones_do_not(
    talked: tuple[list[Row], Team],
) -> None:
    turns, team = talked
    by_way: dict[Any, list[Row]] = {
        given: list(score_turns(turns, team, ["debater-0"], given=given).rows)  # type: ignore[arg-type]
        for given in ("turn", "question")
    }
    for turn, whole, alone in zip(turns, by_way["turn"], by_way["question"], strict=True):
        same = whole["logprobs"] == pytest.approx(alone["logprobs"], abs=1e-4)
        assert same == (turn["tag"] == "round-1")


def test_turns_without_ids_are_counted(talked: tuple[list[Row], Team]) -> None:
    turns, team = talked
    found = score_turns([turns[0], {**turns[1], "token_ids": None}], team, ["debater-0"])
    assert len(list(found.rows)) == 1
    assert found.counts == {"turns without ids": 1}


def test_divergence_over_the_vocabulary_against_a_loop(talked: tuple[list[Row], Team]) -> None:
    turns, team = talked
    rows = list(score_turns(turns[:2], team, team.names, given="turn").rows)
    model = TeamModel.open(team, team.names, Lora(rank=1, alpha=1))
    for row in rows:
        turn = turns[row["turn"]]
        ids = torch.tensor([[*turn["prompt_ids"], *turn["token_ids"]]])
        with torch.no_grad():
            own, other = (model(ids, [name])[0].log_softmax(-1) for name in (row["agent"], row["under"]))
        slow = [
            float((own[t].exp() * (own[t] - other[t])).sum())
            for t in range(len(turn["prompt_ids"]) - 1, ids.shape[1] - 1)
        ]
        assert row["kl"] == pytest.approx(sum(slow) / len(slow), abs=1e-4)
        at = slice(len(turn["prompt_ids"]) - 1, ids.shape[1] - 1)
        assert row["kl"] == pytest.approx(diversity.kl_full(own[at].numpy(), other[at].numpy()), abs=1e-4)
        assert row["own"] == pytest.approx(turn["logprobs"], abs=1e-4)


def test_where_memory_is_full_fewer_answers_are_scored_at_once(
    talked: tuple[list[Row], Team], monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, team = talked
    whole = list(score_turns(turns, team, team.names, given="turn").rows)
    real, sizes = score._score, []

    def tight(model: TeamModel, micro: Any, judges: Any) -> Any:
        sizes.append(len(micro))
        if len(micro) > 2:
            raise torch.OutOfMemoryError("full")
        return real(model, micro, judges)

    monkeypatch.setattr(score, "_score", tight)
    for one, other in zip(score_turns(turns, team, team.names, given="turn").rows, whole, strict=True):
        told = {name: pytest.approx(v, abs=1e-4) for name, v in other.items() if isinstance(v, float | list)}
        assert one == {**other, **told}
    assert max(sizes) > 2

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(score, "_score", full)
    with pytest.raises(TeamtuneError, match="not enough memory for 1 answers to score"):
        score_turns(turns, team, team.names, given="turn")
