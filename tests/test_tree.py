"""MALT's back-up: the paper's example, both poolings, and a slow recursion over random trees."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teamtune.credit.tree import Pooling, backup, hoeffding
from teamtune.types import Row, TeamtuneError

ROLES = ("generator", "verifier", "refiner", "judge")


def turn_row(turn: int, parents: list[int], depth: int, problem: str = "p", take: int = 0) -> Row:
    agent = ROLES[depth]
    return {"problem": problem, "take": take, "turn": turn, "agent": agent, "tag": agent, "parents": parents}


def grade_row(turn: int, score: float, problem: str = "p", take: int = 0) -> Row:
    return {"problem": problem, "take": take, "turn": turn, "parsed": None, "score": score}


def malt_tree(leaves: list[list[list[int]]]) -> tuple[list[Row], list[Row]]:
    """Turns in waves, as the pipeline asks them; leaves[g][v] are the scores under verifier v of g."""
    turns: list[Row] = [turn_row(g, [], 0) for g in range(len(leaves))]
    grades: list[Row] = []
    for g, group in enumerate(leaves):
        turns += [turn_row(len(turns) + v, [g], 1) for v in range(len(group))]
    verifiers = [row for row in turns if row["agent"] == "verifier"]
    for verifier, scores in zip(verifiers, [scores for group in leaves for scores in group], strict=True):
        for score in scores:
            grades.append(grade_row(len(turns), score))
            turns.append(turn_row(len(turns), [*verifier["parents"], verifier["turn"]], 2))
    return turns, grades


def of(rows: list[Row], agent: str, column: str) -> list[float | bool]:
    return [row[column] for row in rows if row["agent"] == agent]


def right(*counts: int, of: int = 3) -> list[list[int]]:
    return [[1] * count + [0] * (of - count) for count in counts]


def test_figure_1() -> None:
    values = backup(*malt_tree([right(3, 1, 1), right(2, 1, 2), right(2, 0, 0)]))
    assert of(values, "generator", "value") == [5 / 9, 5 / 9, 2 / 9]
    assert of(values, "generator", "positive") == [True, True, False]
    assert of(values, "verifier", "value") == [n / 3 for n in (3, 1, 1, 2, 1, 2, 2, 0, 0)]
    assert of(values, "verifier", "positive") == [n > 1 for n in (3, 1, 1, 2, 1, 2, 2, 0, 0)]
    assert sum(of(values, "refiner", "positive")) == 12


def test_one_half_is_negative() -> None:
    values = backup(*malt_tree([right(1, 1, of=2), right(2, 1, of=2)]))
    assert of(values, "generator", "value") == [0.5, 0.75]
    assert of(values, "generator", "positive") == [False, True]
    assert of(values, "verifier", "positive") == [False, False, True, False]


def test_local_pooling_takes_the_majority_of_the_children() -> None:
    tree = malt_tree([right(3, 1, 1)])
    one_global, one_local = backup(*tree)[0], backup(*tree, pooling="local")[0]
    assert (one_global["value"], one_global["positive"]) == (5 / 9, True)
    assert (one_local["value"], one_local["positive"]) == (1 / 3, False)


def test_a_row_names_its_turn_and_the_input_order_stays() -> None:
    turns, grades = malt_tree([right(2)])
    mixed = random.Random(0).sample(turns, len(turns))
    values = backup(mixed, grades)
    assert [row["turn"] for row in values] == [row["turn"] for row in mixed]
    columns = ("problem", "take", "turn", "agent", "tag", "parents")
    assert [{name: row[name] for name in columns} for row in values] == mixed
    assert sorted(values, key=lambda row: row["turn"]) == backup(turns, grades)


def test_only_leaves_count_in_uneven_trees_and_episodes_stay_apart() -> None:
    turns = [turn_row(0, [], 0), turn_row(1, [0], 1), turn_row(2, [0], 1), turn_row(3, [0, 1], 2)]
    turns += [turn_row(0, [], 0, take=1), turn_row(0, [], 0, problem="q")]
    grades = [grade_row(0, 0.0), grade_row(1, 0.0), grade_row(2, 1.0), grade_row(3, 1.0)]
    grades += [grade_row(0, 0.0, take=1), grade_row(0, 1.0, problem="q")]
    assert [row["value"] for row in backup(turns, grades)] == [1.0, 1.0, 1.0, 1.0, 0.0, 1.0]


def test_the_threshold_moves() -> None:
    tree = malt_tree([right(3, 1, 1)])
    assert backup(*tree, threshold=5 / 9)[0]["positive"] is False
    assert backup(*tree, threshold=0.0)[1]["positive"] is True


@st.composite
def forests(draw: st.DrawFn) -> tuple[list[Row], list[Row]]:
    """Uneven trees of up to four levels, scores of any size, two episodes."""
    turns: list[Row] = []
    grades: list[Row] = []
    for take in range(draw(st.integers(1, 2))):
        paths: list[list[int]] = []
        for turn in range(draw(st.integers(1, 14))):
            open_paths = [path for path in paths if len(path) < len(ROLES)]
            above = draw(st.sampled_from([[], *open_paths]))
            paths.append([*above, turn])
            turns.append(turn_row(turn, above, len(above), take=take))
            grades.append(grade_row(turn, draw(st.sampled_from([0.0, 0.1, 0.2, 0.7, 1.0])), take=take))
    return turns, grades


def slow(turn: Row, turns: list[Row], grades: list[Row], pooling: Pooling) -> float:
    """The value by recursion over the definition."""
    place = (turn["take"], turn["turn"])
    children = [row for row in turns if row["parents"] and (row["take"], row["parents"][-1]) == place]
    if not children:
        return next(row["score"] for row in grades if (row["take"], row["turn"]) == place)
    if pooling == "local":
        return sum(slow(child, turns, grades, pooling) > 0.5 for child in children) / len(children)
    below = [leaf["score"] for leaf in slow_leaves(turn, turns, grades)]
    return sum(below) / len(below)


def slow_leaves(turn: Row, turns: list[Row], grades: list[Row]) -> list[Row]:
    place = (turn["take"], turn["turn"])
    children = [row for row in turns if row["parents"] and (row["take"], row["parents"][-1]) == place]
    if children:
        return [leaf for child in children for leaf in slow_leaves(child, turns, grades)]
    return [row for row in grades if (row["take"], row["turn"]) == place]


@pytest.mark.parametrize("pooling", ["global", "local"])
@given(forest=forests())
def test_equals_the_recursion(pooling: Pooling, forest: tuple[list[Row], list[Row]]) -> None:
    turns, grades = forest
    got = [row["value"] for row in backup(turns, grades, pooling)]
    assert got == pytest.approx([slow(turn, turns, grades, pooling) for turn in turns])


@pytest.mark.parametrize("pooling", ["global", "local"])
@given(forest=forests(), data=st.data())
def test_permuting_siblings_permutes_outputs_only(
    pooling: Pooling, forest: tuple[list[Row], list[Row]], data: st.DataObject
) -> None:
    turns, grades = forest
    name: dict[tuple[int, int], int] = {}
    for take in {row["take"] for row in turns}:
        # level by level, so that a parent still comes before its children
        for depth in range(len(ROLES)):
            level = [row["turn"] for row in turns if row["take"] == take and len(row["parents"]) == depth]
            for turn in data.draw(st.permutations(level)):
                name[take, turn] = sum(one == take for one, _ in name)

    def relabelled(row: Row) -> Row:
        take = row["take"]
        parents = {"parents": [name[take, one] for one in row["parents"]]} if "parents" in row else {}
        return {**row, "turn": name[take, row["turn"]], **parents}

    again = backup([relabelled(row) for row in turns], [relabelled(row) for row in grades], pooling)
    assert again == [relabelled(row) for row in backup(turns, grades, pooling)]


@given(branch=st.integers(1, 3), scores=st.lists(st.integers(0, 1), min_size=27, max_size=27))
def test_the_mean_of_leaves_is_the_mean_of_children_where_branching_is_uniform(branch: int, scores: list[int]) -> None:
    drawn = iter(scores)
    leaves = [[[next(drawn) for _ in range(branch)] for _ in range(branch)] for _ in range(branch)]
    values = backup(*malt_tree(leaves))
    for row in values:
        below = [child["value"] for child in values if child["parents"][-1:] == [row["turn"]]]
        assert not below or row["value"] == pytest.approx(sum(below) / len(below))


def test_hoeffding_is_vacuous_at_the_published_setting() -> None:
    assert round(hoeffding(9, nodes=7500 * 3), 2) == 0.87
    assert round(hoeffding(9, nodes=3), 2) == 0.52
    assert round(hoeffding(64, nodes=7500 * 8), 2) == 0.34


def test_errors_name_the_thing_and_the_fix() -> None:
    turns, grades = malt_tree([right(2)])
    with pytest.raises(TeamtuneError, match="problem 'p' take 0 turn 4 is a leaf without a grade"):
        backup(turns, grades[:-1])
    with pytest.raises(TeamtuneError, match="names parent 0, which is no earlier turn of its episode"):
        backup(turns[1:], grades)
    with pytest.raises(TeamtuneError, match="names parent 0, which is no earlier turn of its episode"):
        backup([turn_row(0, [0], 1)], [grade_row(0, 1.0)])
    with pytest.raises(TeamtuneError, match="has a turn twice"):
        backup(turns + turns[:1], grades)
    with pytest.raises(TeamtuneError, match="threshold is 1"):
        backup(turns, grades, threshold=1)
    with pytest.raises(TeamtuneError, match="pooling is 'mean'"):
        backup(turns, grades, pooling="mean")  # type: ignore[arg-type]
    with pytest.raises(TeamtuneError, match="delta is 0"):
        hoeffding(9, delta=0)
    with pytest.raises(TeamtuneError, match="m = 0 leaves"):
        hoeffding(0)
