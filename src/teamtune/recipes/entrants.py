"""Who takes part in a comparison: played on any test problems, compared, and measured for how its members differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from teamtune.engines import EngineSpec
from teamtune.play import ProtocolFn
from teamtune.recipes.systems import Played, System, compare, play_test
from teamtune.rollout import Driver, Rollout
from teamtune.store import Run, Table
from teamtune.tasks import Split
from teamtune.types import Team
from teamtune.vote import Unparsed


@dataclass(frozen=True, slots=True)
class Entrant:
    """A team at a protocol, `takes` times a problem, of which the first `votes` vote; 0 scores each take by itself."""

    name: str
    place: str
    """of its test stages; entrants of one place share what was played"""
    team: Team
    protocol: ProtocolFn
    trained: Mapping[str, int] = field(default_factory=dict)
    """target tokens that each of its agents was trained on"""
    takes: int = 1
    votes: int = 1
    transfers: bool = True
    """plays on further tasks too"""
    debates: bool = False
    """several answer beside each other in one episode, so that their differences can be measured"""


@dataclass(frozen=True, slots=True)
class Arena:
    """Where entrants play: the run, the engine, the seed of all test-time draws."""

    run: Run
    engine: EngineSpec
    seed: int
    driver: Driver = "auto"
    unparsed: Unparsed = "drop"
    """what becomes of answers in a vote that could not be read"""

    def play(self, entrant: Entrant, split: Split, root: str = "test") -> Played:
        """The entrant's turns on the problems and their grades."""
        how = Rollout(entrant.takes, self.seed, self.driver)
        name = f"{root}/{entrant.place}"
        return play_test(self.run, name, split, entrant.team, entrant.protocol, self.engine, how)

    def compare(self, entrants: Sequence[Entrant], split: Split, root: str = "test", name: str = "comparison") -> Table:
        """All entrants on the same problems; the last one is what the others are compared with."""
        systems = [
            System(one.name, self.play(one, split, root), one.votes, one.trained, self.unparsed) for one in entrants
        ]
        return self.run.stage(name, compare, systems, against=systems[-1].name)
