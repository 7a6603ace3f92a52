"""The training of a team of MAPoRL as a stage: discussions, their rewards, PPO, and a warning if scores rise alone."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from teamtune.amiss import amiss
from teamtune.calibration import drift
from teamtune.credit.discussion import Rewards, discussion_rewards, ends, scores_in
from teamtune.engines import EngineSpec
from teamtune.play import ProtocolFn
from teamtune.rollout import Rollout, driver_of, run_of
from teamtune.tasks import TaskSpec, grade_turns, problems_in
from teamtune.train.fit import Metrics
from teamtune.train.policies import Ppo
from teamtune.train.team import Lora
from teamtune.types import SCORER, Row, Team, place_of
from teamtune.warn import warn


def learn(
    folder: Path,
    problems: Sequence[Row],
    task: TaskSpec,
    team: Team,
    policies: Sequence[str],
    protocol: ProtocolFn,
    spec: EngineSpec,
    lora: Lora,
    rewards: Rewards,
    ppo: Ppo,
    how: Rollout,
) -> Generator[Metrics, None, None]:
    """Train the policies, and say when their scores rise and their accuracy does not."""
    from teamtune.train.host import hosted
    from teamtune.train.ppo import train

    host = hosted(team, policies, lora, ppo, spec, how.seed, run_of(folder))
    rewarded = partial(rewards_in, problems=problems, task=task, rewards=rewards)
    history: list[tuple[float, float]] = []
    warned = ""
    with closing(host.engine):
        driver = driver_of(how.driver, spec.kind)
        for line in train(folder, problems_in(problems), protocol, host, rewarded, ppo, how.seed, driver):
            for told in amiss(line) if line["step"] == 0 else ():
                warn(told)
            history = history or before(folder, int(line["step"]))
            history.append((float(line["last/score"]), float(line["last/graded"])))
            found = drift(history) if SCORER in team.names else ""
            if found and not warned:
                told = f"update {line['step']}: {found}"
                warn(told)
            warned = found
            yield line | {"alarm": float(bool(found))}


def rewards_in(turns: Sequence[Row], problems: Sequence[Row], task: TaskSpec, rewards: Rewards) -> list[Row]:
    """What every answer of a Turn table earned: by its scores where a scorer took part, else by its grades."""
    mine = {turn["problem"] for turn in turns}
    grades = list(grade_turns(turns, [row for row in problems if row["id"] in mine], task, "train").rows)
    scores = scores_in(turns) or {place_of(row): row["score"] for row in grades}
    return list(discussion_rewards(turns, grades, scores, rewards).rows)


def before(folder: Path, step: int) -> list[tuple[float, float]]:
    """Mean score and accuracy of the answers that discussions ended with, in the updates before a resumed one, from
    what they left behind."""
    found = []
    for number in range(step):
        file = folder / "updates" / f"{number:06d}.parquet"
        rows = pq.read_table(file, columns=["problem", "take", "tag", "score", "graded"]).to_pylist()
        answers = ({**row, "number": int(row["tag"].rpartition("-")[2])} for row in rows if row["score"] is not None)
        own = [row for one in ends(answers) for row in one]
        found.append((sum(row["score"] for row in own) / len(own), sum(row["graded"] for row in own) / len(own)))
    return found
