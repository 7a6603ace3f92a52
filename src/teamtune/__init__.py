"""Teamtune post-trains teams of language-model agents to reason together.

Importing it loads no torch: engines and trainers are imported where they are used.
"""

from importlib.metadata import PackageNotFoundError, version

from teamtune.engines.scripted import Scripted
from teamtune.play import Engine, Play, ask, by_hand
from teamtune.store import Counted, Run, Table, read_table
from teamtune.types import (
    Agent,
    Ask,
    Completion,
    Episode,
    Grade,
    Message,
    Problem,
    Sampling,
    Team,
    TeamtuneError,
    Turn,
)

try:
    __version__ = version("teamtune")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"

__all__ = [
    "Agent",
    "Ask",
    "Completion",
    "Counted",
    "Engine",
    "Episode",
    "Grade",
    "Message",
    "Play",
    "Problem",
    "Run",
    "Sampling",
    "Scripted",
    "Table",
    "Team",
    "TeamtuneError",
    "Turn",
    "ask",
    "by_hand",
    "read_table",
]
