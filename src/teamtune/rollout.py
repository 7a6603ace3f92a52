"""Task x team x protocol x engine -> the Turn table.

While it runs, every answered batch is appended to `log.jsonl` in the stage's folder as one line,

    {"turns": [{"problem": "arithmetic/train/0/17", "take": 0, "turn": 4, "agent": "verifier", ...}, ...]}

After a kill the logged turns are fed back into their plays, and only what is missing is generated; since every ask's
seed depends on its place alone, the table is the same as that of an unbroken run, byte by byte: a line is whole or
dropped, so that the batches after a kill hold the same asks. (Not with the rolling driver, where an engine may meet
the asks in other batches; log-probabilities may then differ in the last digits, as between any two batchings.)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from teamtune.engines import EngineSpec, open_engine
from teamtune.jsonl import Log
from teamtune.play import Answered, Engine, Live, ProtocolFn, rolling, waves
from teamtune.proofs import check_adapters
from teamtune.store import Counted
from teamtune.tasks import problems_in
from teamtune.types import (
    BESIDE,
    UNFIT,
    Completion,
    Episode,
    Problem,
    Row,
    Team,
    TeamtuneError,
    by_episode,
    turn_of,
    turn_row,
)
from teamtune.warn import warn

Driver = Literal["auto", "waves", "rolling"]
"""waves: one batch of all asks that are owed; rolling: an ask goes out once what it waits for is there. auto: rolling
with servers and vLLM, which batch by themselves. All give the same episodes."""
ROLLING = ("vllm", "openai")
ENOUGH_TO_TELL = 10
"""answers of an agent; fewer may all be cut off by chance"""


@dataclass(frozen=True, slots=True)
class Rollout:
    """How to roll out: takes are repeated episodes on the same problem."""

    takes: int = 1
    seed: int = 0
    driver: Driver = field(default="auto", metadata=BESIDE)
    at_once: int = field(default=2048, metadata=BESIDE)
    """asks that the waves driver sends as one batch"""


def rollout(
    folder: Path,
    problems: Iterable[Row],
    team: Team,
    protocol: ProtocolFn,
    spec: EngineSpec,
    how: Rollout = Rollout(),
) -> Counted:
    """Play the protocol on the problems of a table and give the rows of the Turn table, in order of problem and take.

    Turns that did not end by themselves are counted, agent by agent. How far the engine's log-probabilities are from
    training's is left in the folder, {"generator": 0.0004} (nats a token), for the seats that could be held to that.
    """
    how = replace(how, driver=driver_of(how.driver, spec.kind))
    with closing(open_engine(spec, team, run_of(folder))) as engine:
        exact, warns = team.bits == 16 or spec.kind == "transformers", spec.kind != "scripted"
        gaps = check_adapters(engine, team, spec.elsewhere, exact, warns)
        if gaps:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "gaps.json").write_text(json.dumps(gaps))
        rows = play_out(folder, problems_in(problems), team, protocol, engine, how)
    return Counted(rows, Counter(f"{r['agent']}: {UNFIT[r['finish']]}" for r in rows if r["finish"] in UNFIT))


def watched(stream: Iterator[list[Answered]]) -> Iterator[list[Answered]]:
    """Pass the stream through, and say so once none of an agent's first answers has ended by itself: the stop token may
    be wrong, or the limit far too low, and the rollout can still be stopped."""
    answers: Counter[str] = Counter()
    ending: set[str] = set()
    for answered in stream:
        yield answered
        ending |= {new.turn.ask.agent for new in answered if new.turn.completion.finish != "length"}
        before = dict(answers)
        answers.update(new.turn.ask.agent for new in answered)
        for agent, count in answers.items():
            if before.get(agent, 0) < ENOUGH_TO_TELL <= count and agent not in ending:
                told = f"none of the first {count} answers of {agent} ended by itself; raise "
                told += "sampling.max_tokens, or see with teamtune doctor whether the model's stop token is produced"
                warn(told)


def run_of(folder: Path) -> Path:
    """The run that a stage's folder lies in, or the folder itself."""
    return next((above for above in folder.parents if (above / "config.json").exists()), folder)


def play_out(
    folder: Path,
    problems: Sequence[Problem],
    team: Team,
    protocol: ProtocolFn,
    engine: Engine,
    how: Rollout = Rollout(),
) -> list[Row]:
    """`rollout` with problems and an engine that are there already."""
    engine.adopt(team)
    folder.mkdir(parents=True, exist_ok=True)
    log = Log(folder / "log.jsonl")
    known = by_episode(logged_turns(log))
    lives = [
        Live(problem, take, protocol, team, [turn_of(row) for row in known.get((problem.id, take), [])])
        for problem in problems
        for take in range(how.takes)
    ]
    stage = folder.name if (folder.parent / "config.json").exists() else f"{folder.parent.name}/{folder.name}"
    for answered in with_progress(stage, lives, watched(drive(lives, engine, how))):
        turns = [turn_row(new.live.problem.id, new.live.take, new.turn) for new in answered]
        log.append([{"turns": turns}])
    return [row for live in lives for row in episode_rows(live.episode())]


def logged_turns(log: Log) -> list[Row]:
    """The turns in a rollout's log. Raises TeamtuneError for a line that holds anything else."""
    rows: list[Row] = []
    for number, line in enumerate(log.read(), start=1):
        try:
            for row in line["turns"]:
                turn_of(row)
            rows += line["turns"]
        except (KeyError, TypeError) as error:
            raise TeamtuneError(f"{log.path} line {number} holds no turns; mend or delete it") from error
    return rows


def episode_rows(episode: Episode) -> list[Row]:
    """The stored turns of a finished episode. Column `final`: has the tag of the turn that answers, so it may vote."""
    tag = episode.turns[episode.answer].ask.tag
    return [{**turn_row(episode.problem, episode.take, turn), "final": turn.ask.tag == tag} for turn in episode.turns]


def driver_of(asked: Driver, kind: str) -> Driver:
    """The driver with an engine. Raises TeamtuneError where it would lose what was paid for."""
    if asked == "waves" and kind == "openai":
        raise TeamtuneError(
            "driver waves keeps nothing of a batch until all of it is answered, so that a cap, or a server that is "
            "lost, would cost answers that are paid for; leave --driver out with engine.kind openai"
        )
    return asked if asked != "auto" else "rolling" if kind in ROLLING else "waves"


def drive(lives: Sequence[Live], engine: Engine, how: Rollout) -> Iterator[list[Answered]]:
    """The answered turns of all episodes, batch by batch, by the chosen driver."""
    if how.driver == "rolling":
        return rolling(lives, engine, how.seed)  # type: ignore[arg-type]
    return waves(lives, engine, how.seed, how.at_once)


def generated(done: Completion) -> int:
    """Tokens of an answer, 0 where they are not known."""
    return len(done.token_ids) if done.token_ids is not None else (done.usage or (0, 0))[1]


def with_progress(name: str, lives: Sequence[Live], stream: Iterator[list[Answered]]) -> Iterator[list[Answered]]:
    """Pass the stream through, showing how many episodes are done and how many turns and tokens they took."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[turns]} turns, {task.fields[tokens]} tokens"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    turns = tokens = 0
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(name, total=len(lives), turns=0, tokens=0)
        for answered in stream:
            turns += len(answered)
            tokens += sum(generated(new.turn.completion) for new in answered)
            yield answered
            done = sum(live.answer is not None for live in lives)
            progress.update(bar, completed=done, turns=turns, tokens=tokens)
