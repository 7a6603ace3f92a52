"""The nouns of the library, as frozen rows. No torch, no files, no engine.

One Turn as it is stored (one row of the Turn table):

    {"problem": "arithmetic/train/0/17", "take": 0, "turn": 4, "agent": "verifier", "tag": "verify",
     "parents": [0], "messages": [{"role": "system", "content": "You are the verifier. ..."}, ...],
     "text": "7 * 23: 7 * 20 = 140, ...", "finish": "stop", "prompt_ids": [1, 90, ...],
     "token_ids": [33, 12, ...], "logprobs": [-0.02, -1.3, ...], "usage": None}
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "overflow", "withheld"]
"""How a turn ended: by itself, at the token limit, not begun, since its prompt fills the model's context, or kept back
by a server's filter."""

UNFIT: Mapping[Finish, str] = {
    "length": "cut off at the token limit",
    "overflow": "prompt over the model's context",
    "withheld": "withheld by the server's filter",
}
"""How the turns that did not end by themselves are counted."""
UNSAID: tuple[Finish, ...] = ("overflow", "withheld")
"""how turns end that say nothing of their agent's"""


class TeamtuneError(ValueError):
    """Something the user can mend. The message names the thing, the value and the fix; the CLI exits with 2."""


BESIDE: Mapping[str, bool] = {"beside": True}
"""Metadata of an option's field that decides nothing of what a run finds, only how fast: it may change on the way."""


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


def user(content: str) -> Message:
    return Message("user", content)


def assistant(content: str) -> Message:
    return Message("assistant", content)


@dataclass(frozen=True, slots=True)
class Problem:
    """One row of a task. Protocols read `question` and `ending`; `answer` is for graders alone."""

    id: str
    question: str
    answer: str
    ending: str = ""
    """How to close the answer, for example "End with: Answer: <number>"."""
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an agent samples. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 filter nothing."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise TeamtuneError(f"temperature is {self.temperature}; it must be 0 (greedy) or above, and finite")
        if not 0 < self.top_p <= 1:
            raise TeamtuneError(f"top_p is {self.top_p}; it must lie in (0, 1]")
        if self.top_k < 0:
            raise TeamtuneError(f"top_k is {self.top_k}; it must be 0 (off) or above")
        if self.max_tokens < 1:
            raise TeamtuneError(f"max_tokens is {self.max_tokens}; it must be 1 or above")


@dataclass(frozen=True, slots=True)
class Agent:
    """A seat in a team. `adapter` None means that the frozen base answers."""

    name: str
    system: str = ""
    sampling: Sampling = Sampling()
    adapter: str | None = None
    """An immutable LoRA folder in PEFT's layout; new weights always have a new path."""
    trainable: bool = True
    model: str = ""
    """Its own base model, where that is another one than the team's."""

    def __post_init__(self) -> None:
        # Names are those of folders, of adapters inside the model (PEFT), and of models at servers.
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.name):
            raise TeamtuneError(f"agent name {self.name!r} cannot name a folder; take letters, digits, - and _")


SCORER = "scorer"
"""The seat of a learned scorer: its turns are numbers that say how likely an answer is right, and no answers."""


@dataclass(frozen=True, slots=True)
class Team:
    """One base model and its seats, in order."""

    model: str
    agents: tuple[Agent, ...]
    weights: str = ""
    """Identity of the base's weights (`models.identity`), so that a run notices when they are replaced in place."""
    bits: Literal[16, 4] = 16
    """In how many the base is held where it is trained on, and by the embedded engine."""

    def __post_init__(self) -> None:
        names = self.names
        if not names:
            raise TeamtuneError("a team needs at least one agent")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise TeamtuneError(f"agent names must differ; given twice: {', '.join(twice)}")

    @property
    def names(self) -> list[str]:
        return [agent.name for agent in self.agents]

    @property
    def trainable(self) -> list[str]:
        """The names of the seats that learn."""
        return [agent.name for agent in self.agents if agent.trainable]

    @property
    def models(self) -> list[str]:
        """All base models of its seats, in their order."""
        return list(dict.fromkeys(self.model_of(agent) for agent in self.agents))

    def model_of(self, agent: Agent) -> str:
        """The base model of a seat."""
        return agent.model or self.model

    def part(self, model: str) -> Team:
        """The seats of one base model."""
        return replace(self, model=model, agents=tuple(a for a in self.agents if self.model_of(a) == model))

    def __getitem__(self, name: str) -> Agent:
        for agent in self.agents:
            if agent.name == name:
                return agent
        raise TeamtuneError(f"no agent named {name!r} in the team; its seats are {', '.join(self.names)}")

    def adopt(self, adapters: Mapping[str, str | None]) -> Team:
        """The same team with the adapters of the named agents replaced."""
        for name in adapters:
            self[name]
        seats = (replace(a, adapter=adapters[a.name]) if a.name in adapters else a for a in self.agents)
        return replace(self, agents=tuple(seats))


@dataclass(frozen=True, slots=True)
class Ask:
    """A request for one generation, addressed to an agent."""

    agent: str
    messages: tuple[Message, ...]
    tag: str
    """Where in the protocol: "generate", "verify", "round-1"."""
    parents: tuple[int, ...] = ()
    """Indices of the turns whose text this ask shows."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine sampled. Servers that hide tokens leave ids and log-probabilities None."""

    text: str
    finish: Finish = "stop"
    prompt_ids: tuple[int, ...] | None = None
    token_ids: tuple[int, ...] | None = None
    """The sampled ids, the stop token included where the turn ended by itself."""
    logprobs: tuple[float, ...] | None = None
    """Log-probability of each sampled id under the agent's model at temperature 1, unfiltered."""
    usage: tuple[int, int] | None = None
    """Tokens of (prompt, answer) as a server counts them, where it hides the ids."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An answered ask; `index` counts the turns of its episode from 0."""

    index: int
    ask: Ask
    completion: Completion

    @property
    def text(self) -> str:
        return self.completion.text


@dataclass(frozen=True, slots=True)
class Episode:
    problem: str
    take: int
    turns: tuple[Turn, ...]
    answer: int
    """Index of the turn that answers."""


@dataclass(frozen=True, slots=True)
class Grade:
    """What a grader read in one turn and how it judged it."""

    parsed: str | None
    """The extracted answer in canonical form; None where none was found (which scores 0)."""
    score: float
    """1 right, 0 wrong."""
    rule: str = ""
    """Which rule found the answer in the text: "boxed", "marked", "last number", ..."""
    reason: str = ""
    """Why it was judged so."""


Row = dict[str, Any]


def turn_row(problem: str, take: int, turn: Turn) -> Row:
    """The stored form of a turn: plain JSON values, one column a field."""
    ask, done = turn.ask, turn.completion
    listed = lambda ids: None if ids is None else list(ids)  # noqa: E731
    return {
        "problem": problem,
        "take": take,
        "turn": turn.index,
        "agent": ask.agent,
        "tag": ask.tag,
        "parents": list(ask.parents),
        "messages": [asdict(message) for message in ask.messages],
        "text": done.text,
        "finish": done.finish,
        "prompt_ids": listed(done.prompt_ids),
        "token_ids": listed(done.token_ids),
        "logprobs": listed(done.logprobs),
        "usage": listed(done.usage),
    }


def tokens_of(row: Row, column: Literal["prompt_ids", "token_ids"]) -> int | None:
    """Tokens of a stored turn's prompt or answer, by ids or as a server counted them; None where neither is known."""
    if row[column] is not None:
        return len(row[column])
    usage = row.get("usage")
    return None if usage is None else usage[column == "token_ids"]


def turn_of(row: Row) -> Turn:
    """The inverse of `turn_row`."""
    tupled = lambda ids: None if ids is None else tuple(ids)  # noqa: E731
    messages = tuple(Message(m["role"], m["content"]) for m in row["messages"])
    ask = Ask(row["agent"], messages, row["tag"], tuple(row["parents"]))
    done = Completion(
        row["text"],
        row["finish"],
        tupled(row["prompt_ids"]),
        tupled(row["token_ids"]),
        tupled(row["logprobs"]),
        tupled(row.get("usage")),
    )
    return Turn(row["turn"], ask, done)


Key = tuple[str, int]
"""An episode's name: (problem id, take)."""
Place = tuple[str, int, int]
"""A turn's name: (problem id, take, turn)."""


def place_of(row: Row) -> Place:
    """The turn that a row of any table of turns is about."""
    return row["problem"], row["take"], row["turn"]


def answering(turns: Sequence[Row]) -> list[Row]:
    """The turns that are answers: all but a scorer's."""
    return [turn for turn in turns if turn["agent"] != SCORER]


def by_episode(rows: Sequence[Row]) -> dict[Key, list[Row]]:
    """Rows of a Turn table grouped by episode, turns in order; episodes in order of first appearance."""
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault((row["problem"], row["take"]), []).append(row)
    return {key: sorted(group, key=lambda row: row["turn"]) for key, group in groups.items()}
