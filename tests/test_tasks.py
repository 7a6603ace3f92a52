"""The tasks that ship: right answers, levels, splits without a common question; and the grader of numbers."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import surroundings
from teamtune.grading.number import canonical, extract, grade
from teamtune.tasks import (
    TaskSpec,
    arithmetic,
    check_apart,
    find,
    grade_turns,
    held_out_split,
    parted,
    plain,
    splits,
    stories,
)
from teamtune.tasks.plan import Ref, Step, distinct, draw, results, split_of
from teamtune.tasks.stages import problem_row
from teamtune.tasks.story_events import NAMES
from teamtune.types import Problem, TeamtuneError

SPLITS = ("train", "dev", "test", "corpus")
LEVELS = [("arithmetic", level) for level in arithmetic.LEVELS] + [("stories", level) for level in stories.LEVELS]


def expression_of(problem: Problem) -> str:
    found = re.fullmatch(r"What is the result of (.+)\?", problem.question)
    assert found, problem.question
    return found[1]


# Arithmetic


def test_the_default_form_is_that_of_the_papers() -> None:
    """a + b * c + d - e * f with whole numbers 0 to 29, each of which turns up, in every place."""
    seen: list[set[int]] = [set() for _ in range(6)]
    for problem in arithmetic.load("train", 1500):
        found = re.fullmatch(r"(\d+) \+ (\d+) \* (\d+) \+ (\d+) - (\d+) \* (\d+)", expression_of(problem))
        assert found, problem.question
        a, b, c, d, e, f = numbers = [int(x) for x in found.groups()]
        assert problem.answer == str(a + b * c + d - e * f)
        for place, number in zip(seen, numbers, strict=True):
            place.add(number)
    assert seen == [set(range(30))] * 6


@pytest.mark.parametrize("level", list(arithmetic.LEVELS))
def test_every_level_of_arithmetic_has_its_size_and_the_right_answers(level: str) -> None:
    count, products, top = arithmetic.LEVELS[level]
    for problem in arithmetic.load("test", 300, seed=2, level=level):
        text = expression_of(problem)
        assert problem.answer == str(eval(text)), text
        terms = re.split(r" [+-] ", text)
        assert len(terms) == count and sum(" * " in term for term in terms) == products
        assert all(0 <= int(number) <= top for number in re.findall(r"\d+", text))
        assert problem.meta["level"] == level


@pytest.mark.parametrize("order", ["products", "running", "grouping"])
def test_every_order_of_the_steps_gives_the_same_result(order: Any) -> None:
    for level in arithmetic.LEVELS:
        for index in range(100):
            terms = arithmetic.terms_at("train", 0, index, level)
            assert results(arithmetic.plan(terms, order))[-1] == eval(arithmetic.expression(terms))


# Both tasks


@pytest.mark.parametrize(("task", "level"), LEVELS)
def test_problems_are_deterministic_and_a_longer_list_begins_like_a_shorter_one(task: str, level: str) -> None:
    load = find(task).load
    first = load("train", 40, 3, level=level)
    assert load("train", 40, 3, level=level) == first
    assert load("train", 15, 3, level=level) == first[:15]
    assert load("train", 40, 4, level=level) != first
    assert len({problem.id for problem in first}) == 40
    assert all(problem.ending == "End with a line: Answer: <number>" for problem in first)


def test_another_process_makes_the_same_problems() -> None:
    """Nothing may hang on Python's own hash, which changes from process to process."""
    program = (
        "from teamtune.tasks import arithmetic, stories\n"
        "for p in [*arithmetic.load('train', 5), *stories.load('test', 5, 0, '6')]: print(p.question, p.answer)"
    )
    settings = {**surroundings(), "PYTHONHASHSEED": "123"}
    done = subprocess.run([sys.executable, "-c", program], env=settings, capture_output=True, text=True, check=True)
    here = [*arithmetic.load("train", 5), *stories.load("test", 5, 0, "6")]
    assert done.stdout.splitlines() == [f"{p.question} {p.answer}" for p in here]
    assert here[0].question == "What is the result of 20 + 8 * 23 + 17 - 4 * 21?", "published runs rest on this"


@pytest.mark.parametrize("task", ["arithmetic", "stories"])
def test_splits_have_no_common_question_whatever_the_seeds(task: str) -> None:
    load = find(task).load
    for level in ("1", "3"):
        questions = {
            split: {plain(p.question) for seed in range(4) for p in load(split, 150, seed, level=level)}
            for split in SPLITS
        }
        assert all(len(found) > 40 for found in questions.values())
        for one, other in combinations(SPLITS, 2):
            assert not questions[one] & questions[other], f"{one} and {other}"


def test_each_split_owns_its_share_of_all_questions() -> None:
    owners = [split_of(f"question {i}") for i in range(8000)]
    assert [round(owners.count(split) / 1000) for split in SPLITS] == [1, 1, 1, 5]


@pytest.mark.parametrize("task", ["arithmetic", "stories"])
def test_unknown_levels_and_splits_are_errors(task: str) -> None:
    with pytest.raises(TeamtuneError, match=f"{task} has no level '9'; choose one of .*1, 2"):
        find(task).load("train", 1, 0, level="9")
    with pytest.raises(TeamtuneError, match="no split 'validation'; choose train, dev or test"):
        find(task).load("validation", 1, 0)


@pytest.mark.parametrize(("task", "level"), LEVELS)
def test_a_worked_solution_is_right_step_by_step_and_grades_right(task: str, level: str) -> None:
    problems = find(task).load("train", 120, 1, level=level)
    other = {problem.answer: problem for problem in problems}
    for problem in problems:
        solution = problem.meta["solution"]
        for left, op, right, result in re.findall(r"(-?\d+) ([-+*/]) (-?\d+) = (-?\d+)", solution):
            assert Fraction(result) == eval(f"Fraction({left}) {op} Fraction({right})"), solution
        assert re.findall(r"-?\d+", solution)[-1] == problem.answer
        done = find(task).grade(problem, solution)
        assert (done.parsed, done.score) == (problem.answer, 1.0)
        for answer in list(other)[:10]:
            right = find(task).grade(problem, other[answer].meta["solution"]).score
            assert right == float(answer == problem.answer)


# Stories


def recomputed(steps: tuple[Step, ...]) -> list[int]:
    """What the steps give, by other means than the code under test."""
    found: list[int] = []
    for step in steps:
        left, right = (found[x.step] if isinstance(x, Ref) else x for x in (step.left, step.right))
        exact = {"+": left + right, "-": left - right, "*": left * right}.get(step.op)
        if exact is None:
            assert left % right == 0, "a division comes out even"
            exact = left // right
        found.append(exact)
    return found


@pytest.mark.parametrize("level", stories.LEVELS)
def test_story_answers_are_what_their_steps_give(level: str) -> None:
    for index, problem in enumerate(stories.load("test", 200, 5, level=level)):
        story = stories.story_at("test", 5, index, level)
        assert problem.question == story.question
        assert len(story.plan) == int(level), "the level is the number of steps"
        found = recomputed(story.plan)
        assert problem.answer == str(found[-1])
        assert all(0 < number <= 999 for number in found)


def numbers_used(steps: tuple[Step, ...]) -> Iterator[int]:
    for step in steps:
        yield from (x for x in (step.left, step.right) if isinstance(x, int))


@pytest.mark.parametrize("level", stories.LEVELS)
def test_stories_read_as_sentences_and_tell_their_numbers(level: str) -> None:
    words = {2: "twice|double|half|two|both|pair", 3: "three|triple|third", 4: "four|quarter"}
    distracted = 0
    for index in range(200):
        story = stories.story_at("train", 0, index, level)
        text = story.question
        assert text.endswith("?") and "{" not in text and "}" not in text and "  " not in text
        shown = [int(x) for x in re.findall(r"\d+", text)]
        for number in numbers_used(story.plan):
            assert number in shown or re.search(words.get(number, "^$"), text, re.IGNORECASE), (number, text)
        if story.distraction is not None:
            distracted += 1
            assert story.distraction in shown
        solution = stories.worked(story.plan)
        assert "{" not in solution and solution.endswith(f"Answer: {recomputed(story.plan)[-1]}")
        assert solution.count(" = ") == int(level), "every calculation is spelled out"
    assert 30 < distracted < 120


def test_five_hundred_stories_are_five_hundred_questions() -> None:
    for split in ("train", "test"):
        assert len({plain(problem.question) for problem in stories.load(split, 500)}) == 500


# The list of a task's problems


@pytest.mark.parametrize("task", ["arithmetic", "stories"])
def test_no_level_asks_a_question_twice(task: str) -> None:
    module = find(task)
    for level in module.LEVELS:
        questions = [problem.question for problem in module.load("test", 1000, level=level)]
        assert len(set(questions)) == 1000, level


def test_a_level_with_too_few_questions_is_an_error() -> None:
    with pytest.raises(TeamtuneError, match="toy has only about 3 different questions; ask for fewer than 4"):
        list(distinct("toy", 4, lambda i: i % 3, str))
    assert list(distinct("toy", 3, lambda i: i // 2, str)) == [(0, 0), (2, 1), (4, 2)]


def test_a_story_leaves_no_doubt_about_whose_things_are_counted() -> None:
    """The question names the owner, and everybody else is of the other sex, so that "she" and "he" are clear."""
    female = dict(NAMES)
    for problem in stories.load("train", 400, level="4"):
        owner = re.search(r"does (\w+) have|left with (\w+)\?$", problem.question)
        assert owner is not None, problem.question
        name = owner[1] or owner[2]
        others = {word for word in re.findall(r"\w+", problem.question) if word in female} - {name}
        assert all(female[other] != female[name] for other in others), problem.question


def test_a_spec_loads_its_split() -> None:
    spec = TaskSpec("arithmetic", "2", train=3, test=5, data_seed=7)
    assert spec.load("train") == arithmetic.load("train", 3, 7, "2")
    assert spec.load("test") == arithmetic.load("test", 5, 7, "2")
    chosen_by = replace(spec, held_out="dev")
    assert chosen_by.load("test") == arithmetic.load("dev", 5, 7, "2")
    assert chosen_by.load("train") == spec.load("train")
    with pytest.raises(TeamtuneError, match="no split 'corpus'; choose train or test"):
        spec.load("corpus")
    with pytest.raises(TeamtuneError, match="0 test problems asked for; take at least 1"):
        TaskSpec(test=0).load("test")


@pytest.mark.parametrize("name", ["", "no-such-task", "no.such.task", "teamtune.no_such", ".arithmetic", "stories."])
def test_an_unknown_task_is_an_error_that_lists_those_there_are(name: str) -> None:
    with pytest.raises(TeamtuneError, match=f"unknown task {re.escape(repr(name))}; built in are arithmetic, stories"):
        find(name)


def test_a_module_without_load_or_grade_is_no_task() -> None:
    with pytest.raises(TeamtuneError, match=r"task 'os\.path' has no function 'load'"):
        find("os.path")


def test_a_task_whose_own_imports_fail_says_so_and_is_not_called_unknown(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_tasks").mkdir()
    (tmp_path / "my_tasks" / "broken.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Exception, match="no_such_package"):
        find("my_tasks.broken")


def test_problems_that_are_the_same_but_for_their_looks_are_not_apart() -> None:
    train = [Problem("a", "Tom has 3 apples.", "3"), Problem("b", "What is 1 + 2?", "3")]
    check_apart(train, [Problem("c", "Tom has 4 apples.", "3"), Problem("d", "What is 1 - 2?", "3")])
    for question in ("tom HAS  3 apples", "Tom has 3 apples.", "what is 1 + 2"):
        with pytest.raises(TeamtuneError, match="1 of 1 test problems are in the training set too"):
            check_apart(train, [Problem("c", question, "3")])
    with pytest.raises(TeamtuneError, match="1 of 1 test problems are in the training set too, problem 'b'"):
        check_apart(train, [Problem("b", "Another?", "3")])


def place(row: dict[str, Any]) -> tuple[str, int, int]:
    return row["problem"], row["take"], row["turn"]


def test_every_turn_is_graded_in_order() -> None:
    spec = TaskSpec("arithmetic", train=2)
    problems = spec.load("train")
    turns = [
        {"problem": problem.id, "take": take, "turn": turn, "agent": "a", "tag": "t", "parents": [], "messages": []}
        | {"text": text, "finish": "stop", "prompt_ids": None, "token_ids": None, "logprobs": None}
        for problem in problems
        for take in range(2)
        for turn, text in enumerate([f"Answer: {problem.answer}", "Answer: 123456", "I do not know"])
    ]
    graded = list(grade_turns(turns, [problem_row(problem) for problem in problems], spec, "train").rows)
    assert [(g["problem"], g["take"], g["turn"]) for g in graded] == [
        (t["problem"], t["take"], t["turn"]) for t in turns
    ]
    assert [g["score"] for g in graded] == [1.0, 0.0, 0.0] * 4
    assert [g["parsed"] for g in graded[:3]] == [problems[0].answer, "123456", None]


def test_draws_end_in_the_split_that_was_asked_for() -> None:
    for split in SPLITS:
        found = draw("n", split, 0, 0, lambda rng: rng.random(), str)
        assert split_of(str(found)) == split


# Numbers

CASES: list[tuple[str, str | None]] = [
    ("Answer: 42", "42"),
    ("7 * 23 = 161\n161 - 109 = 52\nAnswer: 52.", "52"),
    ("answer: 42", "42"),
    ("Final answer: 42", "42"),
    ("The answer is 42", "42"),
    ("The answer is $1,200", "1200"),
    ("The answer is $ 1,200.", "1200"),
    ("Answer: 1,234,567", "1234567"),
    ("Answer: -17", "-17"),
    ("Answer: -$5", "-5"),
    ("Answer: 0.50", "1/2"),
    ("Answer: .5", "1/2"),
    ("Answer: 3.0", "3"),
    ("Answer: 007", "7"),
    ("Answer: -0", "0"),
    ("12 + 30 = 42", "42"),
    ("It is 42 apples.", "42"),
    ("It costs $3.", "3"),
    ("minus: -4", "-4"),
    ("Answer: 1\nNo, wait. Answer: 2", "2"),
    ("Answer: 5, as 2 + 3 = 5 and not 6", "5"),
    ("Answer: 52 (checked by 3 other agents)", "52"),
    ("Answer = 9", "9"),
    ("Answer:42", "42"),
    ("Answer: 12 apples", "12"),
    ("Answer: 12.", "12"),
    ("10 - 3", "3"),
    ("10-3", "3"),
    ("What I found:\n- 42 apples", "42"),
    ("**Answer: 42**", "42"),
    ("Answer: **42**", "42"),
    ("Answer: \\boxed{42}", "42"),
    ("The answer is: 42", "42"),
    ("I do not know", None),
    ("", None),
    ("Answer: none", None),
    ("...", None),
    ("-", None),
    ("$", None),
    ("v2 of x1", None),
]


@pytest.mark.parametrize(("text", "number"), CASES, ids=[repr(text)[:30] for text, _ in CASES])
def test_the_number_that_an_answer_settles_on(text: str, number: str | None) -> None:
    assert extract(text)[0] == number


@pytest.mark.parametrize(
    ("gold", "text", "right"),
    [
        ("1200", "Answer: $1,200", 1.0),
        ("1,200", "Answer: 1200", 1.0),
        ("0.5", "Answer: .50", 1.0),
        ("-3", "Answer: 3", 0.0),
        ("3", "Answer: -3", 0.0),
        ("3", "3 + 1 = 4", 0.0),
        ("3", "none", 0.0),
    ],
)
def test_a_grade_compares_values_and_not_texts(gold: str, text: str, right: float) -> None:
    assert grade(Problem("p", "?", gold), text).score == right


@given(st.text())
def test_the_grader_takes_any_text(text: str) -> None:
    done = grade(Problem("p", "?", "1"), text)
    assert done.score in (0.0, 1.0)
    assert done.parsed is None or canonical(done.parsed) == done.parsed


@given(st.text(alphabet="0123456789.,-$ \nAnswer:is"))
def test_the_grader_takes_any_text_of_digits_and_signs(text: str) -> None:
    done = grade(Problem("p", "?", "1"), text)
    assert done.parsed is None or ":" in done.parsed or isinstance(Fraction(done.parsed), Fraction)


def test_the_grader_takes_numbers_of_any_length() -> None:
    for text in ("9" * 5000, "Answer: " + "1" * 401, "Answer: 0." + "3" * 5000, "1," * 9000, "-" * 10_000):
        assert grade(Problem("p", "?", "1"), text).score == 0.0


@given(st.integers(-(10**12), 10**12), st.sampled_from(["Answer: {}", "So {:,} it is: the answer is {:,}.", "{}"]))
def test_a_written_integer_is_read_again(number: int, form: str) -> None:
    assert extract(form.format(number, number))[0] == str(number)


@given(st.decimals(-10_000, 10_000, places=3))
def test_a_written_decimal_is_read_as_a_fraction(number: Any) -> None:
    assert extract(f"Answer: {number:f}")[0] == str(Fraction(str(number)))


# Graders, before a run begins


BLIND = """
from tests.easy_task import load
from teamtune.types import Grade

def grade(problem, text):
    return Grade(None, 0.0, reason="blind")
"""


@pytest.mark.parametrize("blind", ["train", "test"])
def test_the_grader_of_either_split_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], blind: str
) -> None:
    """What grades the training problems says what there is to learn."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "blind_task.py").write_text(BLIND)
    own, other = ("blind_task", "arithmetic") if blind == "train" else ("arithmetic", "blind_task")
    spec = TaskSpec(own, test_task=other, train=4, test=4)
    said = f"task 'blind_task', {blind} problems: the grader does not take the answer '1' for right (blind)"
    looks = [partial(splits, spec), partial(parted, spec, 2)]
    looks += [partial(held_out_split, spec)] if blind == "test" else []
    for look in looks:
        look()
        told = " ".join(capsys.readouterr().err.split())
        assert told.count(said) == 1 and told.count("warning: ") == 1, look
    splits(TaskSpec("arithmetic", test=4), spec)
    assert not capsys.readouterr().err, "its own run has looked at it"


def test_an_evaluation_that_trains_nothing_looks_at_its_grader(capsys: pytest.CaptureFixture[str]) -> None:
    held_out_split(TaskSpec("arithmetic", test=4))
    assert not capsys.readouterr().err
