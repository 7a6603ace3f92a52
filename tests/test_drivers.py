"""Every driver plays the same episodes, and a broken-off one goes on as if nothing had happened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from helpers import base_of, random_adapter, tokenizer_of
from teamtune.engines import EngineSpec
from teamtune.engines.scripted import Scripted
from teamtune.engines.transformers import TransformersEngine
from teamtune.jsonl import Log
from teamtune.play import After, Answered, Live, Play, ProtocolFn, ask, by_hand, rolling, seed_of, waves
from teamtune.protocols import debate as debating
from teamtune.protocols import pipeline as piping
from teamtune.protocols.debate import debate
from teamtune.protocols.pipeline import pipeline
from teamtune.rollout import Driver, Rollout, logged_turns, play_out, rollout, watched
from teamtune.store import Run
from teamtune.tasks import TaskSpec, splits
from teamtune.types import (
    Agent,
    Ask,
    Completion,
    Episode,
    Finish,
    Problem,
    Row,
    Sampling,
    Team,
    TeamtuneError,
    Turn,
    turn_of,
    turn_row,
    user,
)

PROBLEMS = [Problem(f"sums/{i}", f"What is {i} + {i}?" * (1 + i % 3), str(2 * i), "End with: Answer") for i in range(5)]
SEED = 11
TREE: ProtocolFn = partial(pipeline, width=2)
TALK: ProtocolFn = partial(debate, agents=3, rounds=3)


def team_for(protocol: ProtocolFn, model: str = "none", adapters: Sequence[str] = ()) -> Team:
    sampling = Sampling(max_tokens=12)
    seats = piping.seats(sampling) if protocol is TREE else debating.seats(sampling, 3)
    team = Team(model, seats)
    return team.adopt(dict(zip(team.names[1:], adapters, strict=False)))


def answer(asked: Ask, seed: int) -> str:
    """Different for every ask and seed, so that no two turns can be taken for one another."""
    return f"{asked.agent} {asked.tag} {seed % 1000} after {len(asked.messages[-1].content)}"


def scripted(protocol: ProtocolFn, fail_at: int | None = None) -> Scripted:
    engine = Scripted(answer, fail_at)
    engine.adopt(team_for(protocol))
    return engine


def lives_of(protocol: ProtocolFn, team: Team, takes: int = 2) -> list[Live]:
    return [Live(problem, take, protocol, team) for problem in PROBLEMS for take in range(takes)]


def played(driver: str, protocol: ProtocolFn, team: Team, engine: Any) -> list[Episode]:
    if driver == "alone":
        return [by_hand(problem, protocol, team, engine, SEED, take) for problem in PROBLEMS for take in range(2)]
    lives = lives_of(protocol, team)
    if driver == "rolling":
        steps = list(rolling(lives, engine, SEED))
    else:
        steps = list(waves(lives, engine, SEED, at_once=4096 if driver == "waves" else 3))
    told = [(new.live.problem.id, new.live.take, new.turn.index) for step in steps for new in step]
    assert len(told) == len(set(told)) == sum(len(live.turns) for live in lives), "each turn is reported once"
    return [live.episode() for live in lives]


@pytest.mark.parametrize("driver", ["rolling", "alone", "small waves"])
@pytest.mark.parametrize("protocol", [TREE, TALK], ids=["tree", "debate"])
def test_every_driver_plays_the_same_episodes(protocol: ProtocolFn, driver: str) -> None:
    team = team_for(protocol)
    want = played("waves", protocol, team, scripted(protocol))
    assert played(driver, protocol, team, scripted(protocol)) == want
    assert all(len(episode.turns) == (14 if protocol is TREE else 9) for episode in want)
    assert len({turn.text for episode in want for turn in episode.turns}) > 60, "takes and problems differ"


@pytest.mark.parametrize("driver", ["rolling", "alone"])
@pytest.mark.parametrize("protocol", [TREE, TALK], ids=["tree", "debate"])
def test_every_driver_plays_the_same_episodes_with_a_model(
    brief: str, tmp_path: Path, protocol: ProtocolFn, driver: str
) -> None:
    """The same ids, bit by bit; log-probabilities may differ in their last digits, for batches differ."""
    adapters = [random_adapter(brief, tmp_path / str(seed), seed) for seed in range(2)]
    team = team_for(protocol, brief, adapters)

    def engine(rows: int) -> TransformersEngine:
        made = TransformersEngine(base_of(brief), tokenizer_of(brief), brief, rows)
        made.adopt(team)
        return made

    want = played("waves", protocol, team, engine(256))
    got = played(driver, protocol, team, engine(4))
    for one, other in zip(got, want, strict=True):
        assert (one.problem, one.take, one.answer) == (other.problem, other.take, other.answer)
        for a, b in zip(one.turns, other.turns, strict=True):
            assert a.ask == b.ask
            assert a.completion.token_ids == b.completion.token_ids
            assert a.completion.logprobs == pytest.approx(b.completion.logprobs, abs=1e-4)


def test_waves_send_what_all_episodes_wait_for_as_one_batch() -> None:
    engine = scripted(TREE)
    list(waves(lives_of(TREE, team_for(TREE)), engine, SEED))
    assert [len(batch) for batch in engine.batches] == [10 * 2, 10 * 4, 10 * 8]


def test_rolling_lets_an_episode_go_on_without_waiting_for_others() -> None:
    """The scripted engine answers the newest ask first, so that the last episode ends before the first begins."""
    lives = lives_of(TREE, team_for(TREE), takes=1)
    answered = [new for step in rolling(lives, scripted(TREE), SEED) for new in step]
    order = [new.live.problem.id for new in answered]
    assert order[:14] == ["sums/4"] * 14 and order[-14:] == ["sums/0"] * 14


class OldestFirst(Scripted):
    """Answers the ask that waits longest, one at a time."""

    def poll(self) -> list[tuple[int, Completion]]:
        ticket, asked, seed = self._pending.pop(0)
        return [(ticket, self.generate([asked], [seed])[0])]


def test_rolling_asks_for_a_verifier_before_the_other_generators_have_ended() -> None:
    engine = OldestFirst(answer)
    engine.adopt(team_for(TREE))
    [live] = lives_of(TREE, team_for(TREE), takes=1)[:1]
    seen: list[tuple[list[str], list[str]]] = []
    for _ in rolling([live], engine, SEED):
        seen.append(([turns[-1].tag for turns in engine.batches], [asked.tag for _, asked, _ in engine._pending]))
    answered, pending = seen[0]
    assert answered == ["generate"] and pending == ["generate", "verify", "verify"], "its own verifiers, at once"
    assert [asked.tag for [asked] in engine.batches] == ["generate"] * 2 + ["verify"] * 4 + ["refine"] * 8


def test_an_ask_waits_for_earlier_ones_of_its_list_alone() -> None:
    def broken(problem: Problem) -> Play:
        turns = yield [After((1,), lambda turn: ask("solver", [], "solve", turn)), ask("solver", [], "solve")]
        return turns[0].index

    with pytest.raises(TeamtuneError, match=r"ask 0 of the protocol's list waits for places \(1,\), on problem sums/0"):
        Live(PROBLEMS[0], 0, broken, Team("none", (Agent("solver"),)))


def test_seeds_come_from_the_place_alone() -> None:
    places = [(s, p, t, i) for s in range(3) for p in ("a", "b", "a/1") for t in range(3) for i in range(20)]
    seeds = [seed_of(*place) for place in places]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(0, "sums/1", 2, 3) == 5109717169776456749, "another seed would change every published run"


def test_the_system_message_of_the_seat_goes_in_front() -> None:
    team = team_for(TREE)
    episode = by_hand(PROBLEMS[0], TREE, team, scripted(TREE))
    for turn in episode.turns:
        first, *rest = turn.ask.messages
        assert (first.role, first.content) == ("system", team[turn.ask.agent].system)
        assert [message.role for message in rest] == ["user"]


def test_no_ask_holds_the_reference_answer() -> None:
    secret = Problem("p", "What is 1 + 1?", "SECRET", "End", {"solution": "SECRET"})
    for protocol in (TREE, TALK):
        episode = by_hand(secret, protocol, team_for(protocol), scripted(protocol))
        assert "SECRET" not in repr(episode)


# Replay


def turns_of(rows: Sequence[Row]) -> list[Turn]:
    return [turn_of(row) for row in rows]


@pytest.mark.parametrize("order", ["waves", "rolling"])
@pytest.mark.parametrize("protocol", [TREE, TALK], ids=["tree", "debate"])
def test_replay_from_every_cut_of_the_log_gives_the_same_episode(protocol: ProtocolFn, order: str) -> None:
    team = team_for(protocol)
    live = Live(PROBLEMS[0], 0, protocol, team)
    engine = scripted(protocol)
    steps = waves([live], engine, SEED) if order == "waves" else rolling([live], engine, SEED)
    log = [turn_row(live.problem.id, 0, new.turn) for step in steps for new in step]
    want = live.episode()
    for cut in range(len(log) + 1):
        stored = [json.loads(json.dumps(row)) for row in log[:cut]]
        again = Live(PROBLEMS[0], 0, protocol, team, turns_of(stored))
        engine = scripted(protocol)
        list(waves([again], engine, SEED))
        assert again.episode() == want
        asked = sum(map(len, engine.batches))
        assert asked == len(log) - cut, "nothing that is logged is asked again"


def test_any_part_of_the_log_will_do() -> None:
    """Turns lost from the middle are owed again, and later ones are kept."""
    team = team_for(TREE)
    want = by_hand(PROBLEMS[0], TREE, team, scripted(TREE), SEED)
    for lost in range(14):
        again = Live(PROBLEMS[0], 0, TREE, team, [turn for turn in want.turns if turn.index != lost])
        engine = scripted(TREE)
        list(waves([again], engine, SEED))
        assert again.episode() == want
        assert sum(map(len, engine.batches)) == 1


def changed(problem: Problem, width: int = 2) -> Play:
    """The pipeline with another verifier prompt."""
    gens = yield [ask("generator", piping.generate(problem), "generate")] * width
    vers = yield [ask("verifier", (user(f"Check: {g.text}"),), "verify", g) for g in gens for _ in range(width)]
    refs = yield [ask("refiner", piping.refine(problem, v.text), "refine", v) for v in vers for _ in range(width)]
    return refs[0].index


def test_a_protocol_whose_prompts_changed_is_refused_on_replay() -> None:
    team = team_for(TREE)
    want = by_hand(PROBLEMS[3], TREE, team, scripted(TREE), SEED, take=1)
    Live(PROBLEMS[3], 1, changed, team, want.turns[:2])  # so far both are the same
    with pytest.raises(TeamtuneError, match=r"turn 2 of problem sums/3, take 1 was asked differently before"):
        Live(PROBLEMS[3], 1, changed, team, want.turns[:3])


def test_a_team_with_another_system_message_is_refused_on_replay() -> None:
    want = by_hand(PROBLEMS[0], TREE, team_for(TREE), scripted(TREE), SEED)
    other = Team("none", tuple(piping.Agent(name, f"You, {name}, are new.") for name in piping.ROLES))
    with pytest.raises(TeamtuneError, match="turn 0 of problem sums/0, take 0 was asked differently before"):
        Live(PROBLEMS[0], 0, TREE, other, want.turns)


# Protocols that are wrong


def yields_nothing(problem: Problem) -> Play:
    yield [ask("generator", piping.generate(problem), "generate")]
    yield []
    return 0


def returns(value: Any, problem: Problem) -> Play:
    yield [ask("generator", piping.generate(problem), "generate")] * 3
    return value


def asks_a_stranger(problem: Problem) -> Play:
    yield [ask("nobody", piping.generate(problem), "generate")]
    return 0


def test_a_protocol_that_yields_no_asks_is_an_error_that_names_the_problem() -> None:
    with pytest.raises(TeamtuneError, match="yielded no asks on problem sums/2, take 1"):
        by_hand(PROBLEMS[2], yields_nothing, team_for(TREE), scripted(TREE), take=1)


@pytest.mark.parametrize("value", [3, -1, None, "0", 1.0, 99])
def test_a_protocol_that_returns_no_index_of_a_turn_is_an_error_that_names_the_problem(value: Any) -> None:
    protocol: ProtocolFn = partial(returns, value)
    with pytest.raises(TeamtuneError, match=f"returned {value!r} on problem sums/2.*0 to 2"):
        by_hand(PROBLEMS[2], protocol, team_for(TREE), scripted(TREE))


def test_a_protocol_that_asks_a_seat_that_is_not_there_is_an_error() -> None:
    with pytest.raises(TeamtuneError, match="no agent named 'nobody' in the team; its seats are generator"):
        by_hand(PROBLEMS[0], asks_a_stranger, team_for(TREE), scripted(TREE))


# Rollouts that break

EASY = TaskSpec("tests.easy_task", train=5, test=1)


def rolled(monkeypatch: pytest.MonkeyPatch, path: Path, how: Rollout, engine: Scripted) -> tuple[bytes, int]:
    """The bytes of the sealed Turn table, and how many asks it took in this attempt."""
    monkeypatch.setattr("teamtune.rollout.open_engine", lambda spec, team, run: engine)
    with Run(path, {}) as run:
        table = run.work(
            "turns", rollout, splits(EASY)[0].sealed(run), team_for(TREE), TREE, EngineSpec("scripted"), how
        )
        return (table.path / "rows.parquet").read_bytes(), sum(map(len, engine.batches))


@pytest.mark.parametrize("driver", ["waves", "rolling"])
def test_a_rollout_that_fails_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: Driver
) -> None:
    how = Rollout(takes=2, seed=SEED, driver=driver, at_once=7)
    want, asks = rolled(monkeypatch, tmp_path / "whole", how, Scripted(answer))
    assert asks == 5 * 2 * 14
    for fail_at in (0, 1, 6, 30, 77, 139):
        path = tmp_path / str(fail_at)
        with pytest.raises(RuntimeError, match="scripted failure"):
            rolled(monkeypatch, path, how, Scripted(answer, fail_at))
        assert not (path / "turns" / "DONE.json").exists()
        logged = len(logged_turns(Log(path / "turns" / "log.jsonl")))
        assert fail_at - 14 < logged <= fail_at, "what was answered before the failure is on the disk"
        got, asked = rolled(monkeypatch, path, how, Scripted(answer))
        assert got == want
        assert asked == asks - logged, "and is not asked again"


def test_a_rollout_that_fails_many_times_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = Rollout(takes=2, seed=SEED, at_once=9)
    want, _ = rolled(monkeypatch, tmp_path / "whole", how, Scripted(answer))
    failures = 0
    # a batch holds at most 8 + 8 asks: every attempt logs two or more of them, and one is torn
    for _ in range(140):
        try:
            got, _ = rolled(monkeypatch, tmp_path / "broken", how, Scripted(answer, 32))
            break
        except RuntimeError:
            failures += 1
            log = tmp_path / "broken" / "turns" / "log.jsonl"
            log.write_bytes(log.read_bytes()[:-40])  # and the last line is torn each time
    else:
        pytest.fail("no attempt came to the end")
    assert got == want
    assert failures > 5


def test_both_drivers_give_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways: list[tuple[Driver, int]] = [("waves", 4096), ("waves", 1), ("rolling", 1)]
    tables = [
        rolled(monkeypatch, tmp_path / f"{driver}-{at_once}", Rollout(2, SEED, driver, at_once), Scripted(answer))[0]
        for driver, at_once in ways
    ]
    assert tables[0] == tables[1] == tables[2]


@pytest.mark.parametrize("finish", ["length", "stop"])
def test_answers_that_never_end_are_told_of(finish: Finish, capsys: pytest.CaptureFixture[str]) -> None:
    live = lives_of(TALK, team_for(TALK))[0]

    def turn(who: str, how: Finish) -> Answered:
        return Answered(live, Turn(0, Ask(who, (), "t"), Completion("", how)))

    turns = [turn("one", "length")] * 9 + [turn("two", "length")] * 9 + [turn("two", finish)] * 40
    batches = iter([turns[:9], turns[9:18], *([one] for one in turns[18:])])
    seen: list[str] = []
    for _ in watched(batches):
        seen.append(" ".join(capsys.readouterr().err.split()))
    assert ("none of the first 10 answers of two ended by itself" in seen[3]) == (finish == "length"), "and at once"
    assert not "".join([*seen[:3], *seen[4:]]) and not capsys.readouterr().err


def test_a_log_of_another_protocol_stops_the_rollout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how = Rollout(seed=SEED)
    team, problems = team_for(TREE), EASY.load("train")
    play_out(tmp_path, problems, team, TREE, Scripted(answer), how)
    with pytest.raises(TeamtuneError, match="start a new run folder"):
        play_out(tmp_path, problems, team, changed, Scripted(answer), how)


def test_a_finished_log_is_read_and_nothing_is_asked(tmp_path: Path) -> None:
    team, problems = team_for(TREE), EASY.load("train")
    first = play_out(tmp_path, problems, team, TREE, Scripted(answer), Rollout(seed=SEED))
    silent = Scripted(answer, fail_at=0)
    assert play_out(tmp_path, problems, team, TREE, silent, Rollout(seed=SEED)) == first
    assert [row["final"] for row in first[:14]] == [False] * 6 + [True] * 8


def test_an_engine_that_leaves_asks_out_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = scripted(TREE)
    generate = engine.generate
    monkeypatch.setattr(engine, "generate", lambda asks, seeds: generate(asks[1:], seeds[1:]))
    with pytest.raises(TeamtuneError, match="answered 1 of 2 asks"):
        by_hand(PROBLEMS[0], TREE, team_for(TREE), engine)
