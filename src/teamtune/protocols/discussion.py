"""MAPoRL's discussion (Park et al., 2025): everybody answers, reads the others and a scorer's verdict, answers again.

The wording is ours; the content of the messages follows the paper's appendix G. Who answers is a matter of names, which
say who shares an adapter with whom, as in `exchange`; two agents over three turns:

    by_policy("turn", 2, 3)                  [["turn-1", "turn-1"], ["turn-2", "turn-2"], ["turn-3", "turn-3"]]
    by_policy("agent", 2, 3)                 [["agent-1", "agent-2"]] * 3
    by_policy("agent-turn", 2, 3)            [["agent-1-turn-1", "agent-2-turn-1"], ["agent-1-turn-2", ...], ...]
    by_policy("shared", 2, 3)                [["agent", "agent"]] * 3
    by_policy("shared", 2, 3, frozen=True)   [["opener", "opener"], ["agent", "agent"], ["agent", "agent"]]
    by_policy("agent", 2, 2, True, apart=True)    [["agent-1-opener", "agent-2-opener"], ["agent-1", "agent-2"]]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from teamtune.grading.blind import settled
from teamtune.play import Play, ask
from teamtune.protocols.debate import DEBATER, first, heard, listed
from teamtune.types import SCORER, Agent, Ask, Message, Problem, Sampling, TeamtuneError, Turn, assistant, user
from teamtune.vote import majority

Share = Literal["turn", "agent", "agent-turn", "shared"]
"""Who has an adapter of its own: every turn, every agent, every agent at every turn, or nobody."""
OPENER = "opener"
"""who answers first where the first turn is not trained: the base"""


def policy(share: Share, agent: int, turn: int, frozen: bool = False, apart: bool = False) -> str:
    """The seat of an agent at a turn, both counted from 0. apart: agents have bases of their own, and so openers."""
    by_turn, by_agent = f"turn-{turn + 1}", f"agent-{agent + 1}"
    if frozen and turn == 0:
        return f"{by_agent}-{OPENER}" if apart else OPENER
    return {"turn": by_turn, "agent": by_agent, "agent-turn": f"{by_agent}-{by_turn}", "shared": "agent"}[share]


def opens(seat: str) -> bool:
    """Whether a seat is the base's, that answers first."""
    return seat.endswith(OPENER)


def by_policy(
    share: Share,
    agents: int,
    turns: int,
    frozen: bool = False,
    trained: tuple[int, int] | None = None,
    apart: bool = False,
) -> list[list[str]]:
    """Of every turn, the seats of those who answer.

    trained: (agents, turns) that there are seats for, where the discussion is of another size: a later turn is played
        by the last turn's seat, and a further agent by that of an agent before it, in order.
    apart: agents have bases of their own, and so openers.
    """
    most_agents, most_turns = trained or (agents, turns)
    return [
        [policy(share, a % most_agents, min(t, most_turns - 1), frozen, apart) for a in range(agents)]
        for t in range(turns)
    ]


def seats(speakers: Sequence[Sequence[str]], sampling: Sampling, scorer: str | None = None) -> tuple[Agent, ...]:
    """A seat for every name, and the scorer's. scorer: the folder of a learned one; None where there is none."""
    names = dict.fromkeys(name for one in speakers for name in one)
    answering = tuple(Agent(name, DEBATER, sampling, trainable=not opens(name)) for name in names)
    return (*answering, scorer_seat(scorer)) if scorer else answering


def scorer_seat(folder: str | None) -> Agent:
    """The seat of a learned scorer, with the words of those who answer: its base reads answers as its own."""
    return Agent(SCORER, DEBATER, Sampling(0.0), folder, trainable=False)


def in_words(score: float) -> str:
    """The four verbal grades of MAPoRL's score message."""
    if score < 0.3:
        return "very likely wrong"
    if score < 0.6:
        return "maybe wrong or weakly argued"
    if score < 0.8:
        return "seems right, check again"
    return "likely right"


def graded(score: float) -> str:
    """A score as it is shown: "score 0.873, likely right"."""
    return f"score {score:.3f}, {in_words(score)}"


def discuss(problem: Problem, own: float, peers: Sequence[tuple[str, float]]) -> Message:
    """The message of one turn: the own score, then the peers' answers with theirs."""
    shown = "\n\n".join(f"Agent {i} ({graded(score)}):\n{text}" for i, (text, score) in enumerate(peers, 1))
    others = f"The other agents say:\n\n{shown}\n\n" if peers else ""
    return user(
        f"Your last answer: {graded(own)}.\n\n{others}"
        "Scores come from a good but imperfect scorer. Weigh all answers, correct yours if it is wrong, "
        f"and give your reasons in short.\n{problem.question}\n{problem.ending}"
    )


def unscored(problem: Problem, peers: Sequence[str]) -> Message:
    """The message of one turn where no score is shown."""
    others = f"The other agents say:\n\n{listed(peers)}\n\nWeigh all answers, c" if peers else "C"
    return user(
        f"{others}orrect yours if it is wrong, and give your reasons in short.\n{problem.question}\n{problem.ending}"
    )


def score(problem: Problem, answer: Turn, number: int) -> Ask:
    """The ask for an answer's score: the question, and the answer as if it had been given to it at once."""
    return ask(SCORER, (*first(problem), assistant(answer.text)), f"score-{number}", answer)


def score_of(turn: Turn) -> float:
    """The number in a scorer's turn. Raises TeamtuneError where it is none in [0, 1]."""
    try:
        found = float(turn.text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise TeamtuneError(f"the scorer answered {turn.text!r:.60}; a score is a number from 0 to 1")
    return found


@dataclass(frozen=True, slots=True)
class Early:
    """When a discussion ends before its last turn: in agreement, and with a good score where there are scores."""

    share: float = 1.1
    """of the agents who give the same answer, two at least and more than give any other; above 1 never (as the
    published code has it)"""
    score: float = 0.0
    """least mean score of those answers"""

    def __post_init__(self) -> None:
        if self.share <= 0:
            raise TeamtuneError(f"early.share is {self.share}; it must be above 0, and above 1 for never")
        if not 0 <= self.score <= 1:
            raise TeamtuneError(f"early.score is {self.score}; scores lie in [0, 1]")
        if self.score and self.share > 1:
            raise TeamtuneError(f"early.score has no use with early.share {self.share}, which ends nothing; lower that")

    def reached(self, problem: Problem, said: Sequence[Turn], scores: Sequence[float]) -> bool:
        """Whether the answers of a turn end it. Equal are answers that a grader takes for equal; where as many agree on
        one answer as on another, nothing is agreed."""
        if self.share > 1:
            return False
        answers = settled(problem, [turn.text for turn in said])
        vote = majority(answers)
        if len(vote.tied) != 1 or answers.count(vote.answer) < 2 or vote.share < self.share:
            return False
        own = [value for value, one in zip(scores, answers, strict=True) if one == vote.answer] if scores else [1.0]
        return sum(own) / len(own) >= self.score


def discussion(
    problem: Problem,
    speakers: Sequence[Sequence[str]],
    scored: bool = False,
    feedback: bool = True,
    early: Early = Early(),
) -> Play:
    """The play. Every agent keeps its own conversation, whole; of the others it is shown what they said at the turn
    before. The last turn's answers are for the vote. What was not said, since its prompt did not fit the context or a
    server kept it back, is not shown.

    scored: the team's scorer gives every answer a number, in turns "score-1" to "score-T".
    feedback: scores, where there are any, are shown.
    """
    count = len(speakers[0])
    if any(len(names) != count for names in speakers):
        raise TeamtuneError(f"turns have {[len(names) for names in speakers]} speakers; give each the same number")
    talks: list[tuple[Message, ...]] = [first(problem)] * count
    said: list[Turn] = []
    for number, names in enumerate(speakers, start=1):
        read = [[said[n], *said[:n], *said[n + 1 :]] if said else [] for n in range(count)]
        said = yield [ask(name, talks[n], f"turn-{number}", *read[n]) for n, name in enumerate(names)]
        judged = (yield [score(problem, turn, number) for turn in said]) if scored else []
        scores = [score_of(turn) for turn in judged]
        if number == len(speakers) or early.reached(problem, said, scores):
            break
        for n in range(count):
            peers = [k for k in range(count) if k != n and heard([said[k]])]
            if scores and feedback:
                message = discuss(problem, scores[n], [(said[k].text, scores[k]) for k in peers])
            else:
                message = unscored(problem, [said[k].text for k in peers])
            talks[n] = (*talks[n], assistant(said[n].text), message)
    return said[0].index
