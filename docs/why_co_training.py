"""Why train agents together: the game of MAPoRL's section 2 and appendices C and D, as a program.

    python docs/why_co_training.py                  # the tables of both observations and of the toy experiment
    python docs/why_co_training.py --write          # and the pictures docs/concepts/why-co-training*.svg

Two agents play T turns. Whoever works alone earns `alone` a turn, whoever collaborates earns `together` < `alone`,
until both have collaborated in C of the turns: from then on each earns 1 a turn, whatever it does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Game:
    """Payoffs of many games at once; the payoff after synergy is 1."""

    alone: Array
    together: Array


# ---- two turns, synergy after one joint turn -------------------------------------------------------------------------


def learns_beside(game: Game, chance: float) -> NDArray[np.bool_]:
    """Observation 1: whether an agent that learns beside a fixed partner, which collaborates with a chance, comes to
    collaborate: (1 - alone) chance >= alone - together."""
    return (1 - game.alone) * chance >= game.alone - game.together


def learn_together(game: Game) -> NDArray[np.bool_]:
    """Observation 2: whether two agents that both learn come to collaborate, as exploration fades.

    1 > max(3 alone - 2 together, 2 alone - together): collaboration is an equilibrium and the safer one. (The paper's
    main text has the symbols of the first term exchanged; this is the form of its proof.)
    """
    return np.maximum(3 * game.alone - 2 * game.together, 2 * game.alone - game.together) < 1


def followed(game: Game, start: float = 4.0, end: float = 0.002, steps: int = 600) -> Array:
    """The chance to collaborate of two agents that both learn, followed from high to low temperature."""
    chance = np.full(game.alone.shape, 0.5)
    for heat in np.geomspace(start, end, steps):
        for _ in range(20):
            gain = game.together + chance + (1 - chance) * game.alone - 2 * game.alone
            chance = 0.5 * chance + 0.5 * sigmoid(gain / heat)
    return chance


def dearest(gain: Array, learns: Callable[[Game], NDArray[np.bool_]], steps: int = 30) -> Array:
    """What collaboration may cost a turn, alone - together, for agents to come to it, found by halving.

    gain: of synergy over working alone, 1 - alone.
    """
    low, high = np.zeros(gain.shape), np.ones(gain.shape)
    for _ in range(steps):
        cost = (low + high) / 2
        found = learns(Game(1 - gain, 1 - gain - cost))
        low, high = np.where(found, cost, low), np.where(found, high, cost)
    return low


def observations(points: int = 9) -> dict[str, Array]:
    """Both observations over the gain of synergy, from 0 to 0.8: the dearest collaboration that is learned, by partner.

    Where both learn, it is where the learners' chances go, not what the formula says of them.
    """
    gain = np.linspace(0, 0.8, points)
    lines = {named(None): dearest(gain, lambda game: followed(game) > 0.5, steps=12)}
    for chance in PARTNERS:
        if chance is not None:
            lines[named(chance)] = dearest(gain, lambda game, chance=chance: learns_beside(game, chance))
    return {"gain": gain, **lines}


def sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(x / 2))


# ---- many turns ------------------------------------------------------------------------------------------------------


def synergy(game: Game, turns: int, needed: int, chance: float | None, heat: float = 0.1) -> Array:
    """The chance that synergy comes about, of agents with entropy-regularised strategies found from the last turn back.

    chance: with which the partner collaborates; None is a partner that learns too.
    """
    later = [np.full(game.alone.shape, 0.0) for _ in range(needed + 1)]  # value from here on, by joint turns so far
    reached = [np.zeros(game.alone.shape) for _ in range(needed)] + [np.ones(game.alone.shape)]
    for turn in range(turns - 1, -1, -1):
        values, ahead = [], []
        for done in range(needed):
            own = settled(game, later[done], later[done + 1], chance, heat)
            partner = own if chance is None else np.full(own.shape, chance)
            both = own * partner
            q_own, q_alone = actions(game, later[done], later[done + 1], partner)
            values.append(heat * np.logaddexp(q_own / heat, q_alone / heat))
            ahead.append(both * reached[done + 1] + (1 - both) * reached[done])
        values.append(np.full(game.alone.shape, float(turns - turn)) + heat * np.log(2) * (turns - turn))
        ahead.append(np.ones(game.alone.shape))
        later, reached = values, ahead
    return reached[0]


def actions(game: Game, here: Array, further: Array, partner: Array) -> tuple[Array, Array]:
    """What collaborating and working alone are worth. here, further: values with as many joint turns, and one more."""
    return game.together + partner * further + (1 - partner) * here, game.alone + here


def settled(game: Game, here: Array, further: Array, chance: float | None, heat: float) -> Array:
    """The chance to collaborate; where both learn, the fixed point that one comes to from an even chance."""
    own = np.full(here.shape, 0.5)
    for _ in range(1 if chance is not None else 60):
        partner = own if chance is None else np.full(here.shape, chance)
        q_own, q_alone = actions(game, here, further, partner)
        found = sigmoid((q_own - q_alone) / heat)
        own = found if chance is not None else 0.5 * own + 0.5 * found
    return own


def drawn(count: int, seed: int = 0) -> Game:
    """Games with alone ~ U(0, 1) and together ~ U(0, alone)."""
    rng = np.random.default_rng(seed)
    alone = rng.random(count)
    return Game(alone, alone * rng.random(count))


PARTNERS: tuple[float | None, ...] = (None, 0.7, 0.6, 0.5)


def experiment(turns: int, draws: int = 5000) -> list[dict[str, float]]:
    """One row for each number of joint turns that synergy needs: the mean chance that it comes about, by partner."""
    game = drawn(draws)
    rows = []
    for needed in range(turns - 1, (turns - 1) // 2 - 1, -1):
        row = {"needed": float(needed)}
        for partner in PARTNERS:
            row[named(partner)] = float(synergy(game, turns, needed, partner).mean())
        rows.append(row)
    return rows


def named(partner: float | None) -> str:
    return "both learn" if partner is None else f"partner {partner:.1f}"


def main(argv: Sequence[str]) -> None:
    names = [named(partner) for partner in PARTNERS]
    two = drawn(4000)
    beside = ", ".join(f"{chance} {100 * learns_beside(two, chance).mean():.0f} %" for chance in (0.5, 0.6, 0.7))
    together = f"{100 * learn_together(two).mean():.0f} %"
    print(f"Two turns, 4,000 games: both learn {together}; beside a fixed partner {beside}")
    both = observations()
    print("The most that collaboration may cost and be learned, by what synergy gains over working alone")
    show("gain", both, "12.1f")
    drawn_once = {name: line for name, line in both.items() if name != named(0.5)}  # it lies on that of both learners
    pictures = [("two", "Dearest collaboration that is learned", "gain, %", 100 * both["gain"], drawn_once)]
    for turns in (10, 20):
        rows = experiment(turns)
        columns = {name: np.array([row[name] for row in rows]) for name in ["needed", *names]}
        print(f"T = {turns}: chance of synergy, mean over 5,000 games, by the joint turns that it needs")
        show("needed", columns, "12.0f")
        title = f"Chance of synergy over the joint turns that it needs, T = {turns}"
        pictures.append((str(turns), title, "joint turns", columns["needed"], columns))
    if "--write" in argv:
        for which, title, below, across, columns in pictures:
            draw(which, title, below, across, {name: columns[name] for name in names if name in columns})


def show(first: str, columns: Mapping[str, Array], form: str) -> None:
    """Print a table: the column `first`, and one for each partner."""
    names = [named(partner) for partner in PARTNERS]
    print(" ".join(f"{name:>12}" for name in [first, *names]))
    for row, value in enumerate(columns[first]):
        print(format(value, form), *(f"{columns[name][row]:12.3f}" for name in names))


def draw(which: str, title: str, below: str, across: Array, columns: Mapping[str, Array]) -> None:
    """Write a picture beside the page that shows it."""
    from teamtune.reporting import svg

    lines = [(name, sorted(zip(across.tolist(), column.tolist(), strict=True))) for name, column in columns.items()]
    picture = svg.lines_over(lines, list(columns), title, below)
    file = Path(__file__).with_name("concepts") / f"why-co-training-{which}.svg"
    file.write_text(svg.standalone(picture))


if __name__ == "__main__":
    main(sys.argv[1:])
