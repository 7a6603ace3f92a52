"""An engine that answers from a function: for tests, docs and trying a protocol by hand.

def answer(ask, seed):
    return "Answer: 4" if ask.tag == "generate" else "Verdict: right."

engine = Scripted(answer)
by_hand(problem, pipeline, team, engine)
engine.batches        # what the driver sent, batch by batch
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from teamtune.types import Ask, Completion, Team, TeamtuneError

Script = Callable[[Ask, int], str]


class Scripted:
    """Answers asks from `script(ask, seed)`, or from a table {tag: answers} that is read by seed.

    `fail_at` makes the call that holds the n-th ask (from 0) raise RuntimeError, to try out what survives a crash.
    """

    def __init__(self, script: Script | Mapping[str, Sequence[str]], fail_at: int | None = None):
        self._script = script if callable(script) else table(script)
        self.fail_at = fail_at
        self.team: Team | None = None
        self.batches: list[list[Ask]] = []
        self._pending: list[tuple[int, Ask, int]] = []
        self._asked = 0

    def adopt(self, team: Team) -> None:
        self.team = team

    def generate(self, asks: Sequence[Ask], seeds: Sequence[int]) -> list[Completion]:
        self._asked += len(asks)
        if self.fail_at is not None and self._asked > self.fail_at:
            raise RuntimeError(f"scripted failure at ask {self.fail_at}")
        self.batches.append(list(asks))
        return [Completion(self._script(ask, seed)) for ask, seed in zip(asks, seeds, strict=True)]

    def close(self) -> None:
        pass

    def submit(self, ticket: int, ask: Ask, seed: int) -> None:
        self._pending.append((ticket, ask, seed))

    def poll(self) -> list[tuple[int, Completion]]:
        """Answers one ask at a time, the newest first, so that a rolling driver is tried out of order."""
        ticket, ask, seed = self._pending.pop()
        return [(ticket, self.generate([ask], [seed])[0])]


def table(answers: Mapping[str, Sequence[str]]) -> Script:
    """A script that reads the answers of a tag by seed."""

    def script(ask: Ask, seed: int) -> str:
        if ask.tag not in answers:
            raise TeamtuneError(f"the scripted engine has no answers for tag {ask.tag!r}; it has {', '.join(answers)}")
        options = answers[ask.tag]
        return options[seed % len(options)]

    return script
