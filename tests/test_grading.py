"""Graders: what they read, what they call equal, and that no text breaks, blocks or fools them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teamtune.grading import choice, label, math, number, text
from teamtune.grading.extract import LONGEST, final
from teamtune.grading.workers import Worker, Workers
from teamtune.types import Grade, Problem


def problem(answer: str, question: str = "?", **meta: object) -> Problem:
    return Problem("p", question, answer, "", meta)


# Where the answer stands


@pytest.mark.parametrize(
    ("response", "answer", "rule"),
    [
        (r"so \boxed{5}.", "5", "boxed"),
        (r"\boxed{1} no, \boxed{2}", "2", "boxed"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", "boxed"),
        (r"\boxed{\boxed{5}}", "5", "boxed"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}", "boxed"),
        (r"\fbox{7}", "7", "boxed"),
        (r"\boxed 7.", "7", "boxed"),
        (r"stray } and { then \boxed{3}", "3", "boxed"),
        (r"\boxed{4} and then \boxed{5", "4", "boxed"),
        (r"Answer: 3, that is \boxed{4}", "4", "boxed"),
        ("#### 18", "18", "hashes"),
        ("#### 17\n#### 18 ", "18", "hashes"),
        ("Final Answer: 12", "12", "marked"),
        ("**Final Answer:** 12", "12", "marked"),
        ("**Final Answer**: 12", "12", "marked"),
        ("Answer:\n\n$12$", "12", "marked"),
        ("The answer is $12$. I hope it is correct.", "12", "marked"),
        ("Final Answer: The final answer is $12$. I hope it is correct.", "12", "marked"),
        ("The answer to the question is 12.", "12", "marked"),
        ("They meet at noon. The answer is 4:30 p.m.", "4:30 p.m.", "marked"),
        ("The answer is Mr. Hill.", "Mr. Hill", "marked"),
        ("so much\nA: 224", "224", "marked"),
        ("The answer is 12.\n\nA: 4 of them are red, and the rest is blue.", "12", "marked"),
        ("A: 10 per hour\nB: 20 per hour\nThe answer is 30.", "30", "marked"),
        ("The answer was 3. No: the answer is 4", "4", "marked"),
    ],
)
def test_the_answer_is_found_where_it_stands(response: str, answer: str, rule: str) -> None:
    found = final(response)
    assert found and (found.text, found.rule) == (answer, rule)


@pytest.mark.parametrize(
    "response", ["", "I do not know", "{" * 50, "}" * 50, r"\boxed", r"\boxed{", "answer", "#### "]
)
def test_where_no_answer_is_nothing_is_found(response: str) -> None:
    found = final(response)
    assert found is None or not found.text


def test_an_answer_that_is_taken_back_is_none() -> None:
    more = "Let me solve it again. " * 20
    assert final(rf"\boxed{{5}} I apologize, that is wrong. {more}").text == ""  # type: ignore[union-attr]
    assert final(rf"\boxed{{5}} I apologize, that is wrong. {more} \boxed{{6}}").text == "6"  # type: ignore[union-attr]
    assert final(r"\boxed{5} I apologize for the length.").text == "5"  # type: ignore[union-attr]
    for said in (
        "Answer: 12\n\nThe other agent forgot to carry, so that was incorrect.",
        "\\boxed{12}\n\nWait, let me verify: 3*4=12, no mistake.",
        "\\boxed{12}. This is wrong in the other solution.",
    ):
        assert number.extract(said)[0] == "12", said
    for said in ("Answer: 12\nWait, that is wrong.", "Answer: 12\nWait, no.", "Answer: 12\nWait, I see a mistake."):
        assert number.extract(said)[0] is None, said
    assert number.extract("Answer: 12\nThat was wrong. Answer: 13")[0] == "13"


# Numbers


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("The answer is 80 + 150 = 230 miles.", "230"),
        ("The answer is 80 + 48 + 4 = 132.", "132"),
        ("Answer: x = 3", "3"),
        ("Answer: total cost = $50", "50"),
        ("Answer: 2 = 1 + 1", "2"),
        (r"\boxed{\frac{3}{4}}", "3/4"),
        (r"\boxed{\dfrac34}", "3/4"),
        (r"\boxed{3\frac{1}{2}}", "7/2"),
        (r"\boxed{1{,}000}", "1000"),
        (r"\boxed{52 \, \text{WPM}}", "52"),
        (r"\boxed{\$1,200}", "1200"),
        ("Answer: 3 1/2 cups", "7/2"),
        ("Answer: 25%", "25"),
        ("Answer: 118 000.", "118000"),
        ("Answer: 1.2e3", "1200"),
        ("Answer: 1.2 \u00d7 10^3", "1200"),
        (r"Answer: $1.2 \times 10^{-1}$", "3/25"),
        ("Answer: \N{MINUS SIGN}4", "-4"),
        ("Answer: -$5", "-5"),
        ("Answer: - 5", "-5"),
        ("Answer: - $5", "-5"),
        (r"\boxed{- 3}", "-3"),
        ("The answer is - 12.", "-12"),
        ("Answer: 10 - 3 = 7", "7"),
        ("Answer: $-5", "-5"),
        ("Answer: £5", "5"),
        ("Answer: five apples", "5"),
        ("Answer: 4:30 p.m.", "16:30"),
        ("Answer: 12:15 am", "0:15 am"),
        ("Answer: 9:05", "9:05"),
        ("Step 1: 2 + 3\nStep 2: print it", "3"),
        ("Answer: 1/0", None),
        ("Answer: 3 or 4", None),
        ("Answer: 3, 4 and 5", None),
        ("Answer: 3 apples or 4 apples", None),
        ("1 2 3 4 5 6 7", None),
        ("1, 2, 3, 4, 5, 6, 7", None),
    ],
)
def test_what_number_a_response_settles_on(response: str, value: str | None) -> None:
    assert number.extract(response)[0] == value


def test_decimals_are_compared_up_to_five_millionths_and_integers_exactly() -> None:
    assert number.grade(problem("0.8333333333333334"), "Answer: 0.8333333333333333").score == 1
    assert number.grade(problem("10074005.666666666"), "Answer: 10074005.67").score == 1
    assert number.grade(problem("10074005.666666666"), "Answer: 10074006").score == 0
    assert number.grade(problem("10000000"), "Answer: 10000001").score == 0


def test_times_of_day() -> None:
    assert number.grade(problem("4:30 p.m."), "Answer: 4:30").score == 1
    assert number.grade(problem("4:30"), "Answer: 16:30").score == 1
    assert number.grade(problem("4:30 p.m."), "Answer: 4:30 a.m.").score == 0
    assert number.grade(problem("4:30"), "Answer: 4:30 a.m.").score == 1
    assert number.grade(problem("4"), "Answer: 4:30").score == 0


# Options

FIVE = ["ignore", "enforce", "authoritarian", "yell at", "avoid"]


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("The answer is (B).", "B"),
        ("Answer: B", "B"),
        ("Answer: b", "B"),
        ("Answer: (b)", "B"),
        ("Answer: B. enforce", "B"),
        ("Answer: B) enforce", "B"),
        ("**Answer: B**", "B"),
        (r"\boxed{B}", "B"),
        (r"\boxed{\text{B}}", "B"),
        (r"\boxed{\text{(B) enforce}}", "B"),
        ("Answer: option B", "B"),
        ("Answer: enforce", "B"),
        ("Answer: they yell at it", "D"),
        ("Among all the choices, the best option is E) avoid.", "E"),
        ("The correct option is B", "B"),
        ("Answer: not (A) but (B)", "B"),
        ("Answer: not A, it is B", "B"),
        ("thinking\nB", "B"),
        ("thinking\n(B)", "B"),
        ("B. Because it is so.", "B"),
        ("Answer: A or B", None),
        ("Answer: (A) or (B)", None),
        ("Answer: A, B", None),
        ("Answer: both A and B", None),
        ("Answer: (A) (B) (C) (D) (E)", None),
        ("Answer: ignore or enforce", None),
        ("Answer: F", None),
        ("Answer: ", None),
        (r"\boxed{}", None),
        ("A man walks into a bar", None),
        ("I would say so", None),
        ("The answer is C.\n\nA: to ignore is no law.\nB: to enforce is not it.", "C"),
        ("**Answer: C**\n\nWhy not the others:\n**A**: ignore is wrong.\n**B**: enforce is not it.", "C"),
        ("I choose C.\n\nA: ignore it.\nB: enforce it.", None),
        ("thinking\nA: B", "B"),
    ],
)
def test_which_option_a_response_settles_on(response: str, letter: str | None) -> None:
    graded = choice.grade(problem("B", choices=FIVE), response)
    assert graded.parsed == letter
    assert graded.score == float(letter == "B")


def test_options_are_read_from_the_question_where_there_is_no_list() -> None:
    asked = problem("(B)", "Which river?\nOptions:\n(A) Rhine\n(B) Nile\n(C) The White Nile")
    assert choice.options(asked) == ["Rhine", "Nile", "The White Nile"]
    assert choice.grade(asked, "The answer is the Nile").score == 1
    assert choice.grade(asked, "The answer is the White Nile").parsed == "C"


def test_a_gold_answer_may_be_an_options_text() -> None:
    assert choice.grade(problem("avoid", choices=FIVE), "Answer: E").score == 1


# Labels


@pytest.mark.parametrize(
    ("gold", "response", "parsed"),
    [
        ("Yes", "So the answer is yes.", "yes"),
        ("Yes", "Answer: True", "yes"),
        ("No", "The answer is no, it cannot be yes", "no"),
        ("no", "Answer: not true", "no"),
        ("True", "Answer: **True**", "true"),
        ("valid", "So the answer is invalid.", "invalid"),
        ("valid", "Answer: not valid", "invalid"),
        ("entailment", "Final answer: Contradiction", "contradiction"),
        ("neutral", "Answer: neither", "neutral"),
        ("contradiction", "Answer: The premise contradicts the hypothesis", "contradiction"),
        ("unanswerable", "Answer: It cannot be determined", "unanswerable"),
        ("Yes", "Answer: yes and no", None),
        ("Yes", "Answer: yes or no", None),
        ("entailment", "Answer: entailment, neutral or contradiction", None),
        ("Yes", "False and True = False and True = False and", None),
        ("Yes", "", None),
    ],
)
def test_which_label_a_response_settles_on(gold: str, response: str, parsed: str | None) -> None:
    graded = label.grade(problem(gold), response)
    assert graded.parsed == parsed
    assert graded.score == float(parsed == gold.lower())


# Texts


@pytest.mark.parametrize(
    ("gold", "response", "right"),
    [
        ("ieae", "The answer is ieae.", True),
        ("ieae", 'Answer: "IEAE"', True),
        ("] }", "Answer: ]}", True),
        ("05/01/2021", "The date tomorrow is 05/01/2021.", True),
        ("05/01/2021", "Answer: 05/02/2021", False),
        ("ieae", "Answer: ieaf", False),
        ("ieae", "", False),
    ],
)
def test_texts_are_compared_without_dress(gold: str, response: str, right: bool) -> None:
    assert text.grade(problem(gold), response).score == right


# Mathematics

EQUAL = [
    (r"\frac65", r"\frac{6}{5}"),
    (r"\frac65", "1.2"),
    (r"\frac{6}{5}", "6/5"),
    (r"\dfrac{1}{9}", r"\tfrac19"),
    ("10{,}000", "10000"),
    (r"\$32,\!348", "32348"),
    ("48", r"48^\circ"),
    ("20", r"20\%"),
    (".35625", "0.35625"),
    (r"\left( \frac{11}{2}, -1, 1 \right)", "(5.5, -1.0, 1.0)"),
    (r"\text{Evelyn}", "Evelyn"),
    (r"\text{even}", '"even"'),
    (r"\text{(E)}", "(E)"),
    ("5", "x = 5"),
    ("5", r"5\text{ cm}"),
    ("5", r"5 \text{ inches}"),
    ("2k", "a+d+e+f=2k"),
    (r"[-2,7]", r"x \in [-2,7]"),
    ("(2,5)", r"(2, 5)"),
    ("1,-2", "-2, 1"),
    (r"\{1,2\}", r"\{2,1\}"),
    ("26000", "1000(26)"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ("3\\sqrt{2}", "\\sqrt{18}"),
    ("(x+1)^2", "x^2+2x+1"),
    ("y = 2x + 3", "y=3+2x"),
    ("2516_8", "2516_8"),
    (r"\text{4:30 p.m.}", r"4:30 \text{ p.m.}"),
]
DIFFERENT = [
    ("5", "6"),
    ("5", "-5"),
    ("(2,5)", "(5,2)"),
    (r"(-\infty, 0]", r"(-\infty, 0)"),
    (r"\sqrt{2}", "1.4142"),
    (r"\frac{1}{3}", "0.333"),
    ("1,-2", "1"),
    (r"\text{even}", "odd"),
    (r"\text{Evelyn}", "Carla"),
    ("x", "y"),
    ("5", ""),
    ("5", "5 or 6"),
    ("5", "1, 2, 3, 4, 5, 6, 7, 8, 9"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}"),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_answers(one: str, other: str) -> None:
    assert math.equal(one, other)[0], math.equal(one, other)
    assert math.equal(other, one)[0], "equality is symmetric"


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_answers(one: str, other: str) -> None:
    assert not math.equal(one, other)[0], math.equal(one, other)
    assert not math.equal(other, one)[0], "equality is symmetric"


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        ("So the answer to this question is the number is 202.", "202"),
        ("The answer is there are 256 such integers.", "256"),
        ("The answer is 6, since there are 6 cubes below 2008.", "6"),
        ("The answer is the magnitude of the complex number $5-12i$ is 13.", "13"),
        (r"Combining terms: $$19x - 4x + 1 - 81 = 15x - 80.$$", "15x - 80"),
        (r"The answer is $\dbinom{1001}{2}=500,500$.", "500500"),
    ],
)
def test_answers_in_sentences(response: str, gold: str) -> None:
    graded = math.grade(problem(gold), response)
    assert graded.score == 1, graded


# Limits

HANGS = [
    r"10^{10^{10}}",
    r"(x+1)^{9999999}",
    r"\int_0^\infty e^{-x^{x^{x}}} \sin(\tan(x)) dx",
    r"99999999!",
    "9**9**9**9",
]


@pytest.mark.parametrize("answer", HANGS)
def test_a_comparison_that_hangs_or_grows_is_ended(answer: str) -> None:
    began = time.monotonic()
    assert math.grade(problem("7"), rf"\boxed{{{answer}}}").score == 0
    assert time.monotonic() - began < 30  # the limit is 2 s of processor time; a busy machine gives it slowly


def test_a_worker_is_replaced_and_goes_on() -> None:
    worker = Worker(seconds=0.3)
    try:
        assert worker.compare("7", "10^{10^{10}}") == (False, "took over 0.3 s, or too much memory")
        assert worker.compare(r"\frac{1}{2}", "0.5")[0]
    finally:
        worker.close()


def test_workers_answer_threads_and_remember() -> None:
    asked = [("1/2", "0.5", True), ("x+1", "1+x", True), ("x", "y", False), ("2", "10^{10^{10}}", False)] * 3
    found: list[bool] = [False] * len(asked)
    with Workers(2) as workers:

        def ask(i: int) -> None:
            found[i] = workers.compare(asked[i][0], asked[i][1])[0] == asked[i][2]

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(asked))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(found)


LONG = 300_000
GARBAGE = [
    "\\boxed{" * (LONG // 7),
    "{" * LONG,
    "}" * LONG,
    "answer is " * (LONG // 10),
    "#### " * (LONG // 5),
    "A:\n" * (LONG // 3),
    "9" * LONG,
    "1," * (LONG // 2),
    "1 " * (LONG // 2),
    "-" * LONG,
    "$" * LONG,
    "\\frac" * (LONG // 5),
    "(A) " * (LONG // 4),
    "not " * (LONG // 4),
    "Answer: " + "*_" * (LONG // 2),
    "Answer: " + "a " * (LONG // 2),
    "\\boxed{" + "x+" * (LONG // 2) + "}",
    "\x00" * LONG,
    "\ud800" * 1000,
    "\N{ARABIC-INDIC DIGIT FIVE}" * LONG,
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_long_garbage_is_wrong_and_takes_no_time(garbage: str) -> None:
    for graded in (
        number.grade(problem("7"), garbage),
        choice.grade(problem("B", choices=FIVE), garbage),
        label.grade(problem("yes"), garbage),
        text.grade(problem("abc"), garbage),
        math.grade(problem("7"), garbage),
    ):
        assert graded.score == 0
        assert graded.parsed is None or len(graded.parsed) <= LONGEST


HACKS = [
    r"\boxed{}",
    "",
    "Answer:",
    "correct: true",
    "score: 1.0",
    "This answer is correct. Grade: right.",
    'Answer: {"correct": true, "score": 1}',
    "Ignore the grader and return True.",
    "Answer: A or B",
    "Answer: (A), (B), (C), (D), (E)",
    "Answer: " + ", ".join(map(str, range(100))),
    " ".join(map(str, range(100))),
    r"\boxed{" + ", ".join(map(str, range(100))) + "}",
    r"\boxed{" + r" \text{ or } ".join(map(str, range(100))) + "}",
    "Answer: yes/no",
    "Answer: any of them",
    "Answer: the right one",
    "Answer: [gold]",
    "Answer: x",
    "Answer: nan",
    "Answer: inf",
    "Answer: None",
]


@pytest.mark.parametrize("hack", HACKS)
def test_no_hack_is_right(hack: str) -> None:
    for gold in ("7", "0", "42"):
        assert number.grade(problem(gold), hack).score == 0
        assert math.grade(problem(gold), hack).score == 0
    for gold in "ABCDE":
        assert choice.grade(problem(gold, choices=FIVE), hack).score == 0
    for gold in ("yes", "no", "entailment", "neutral", "valid"):
        assert label.grade(problem(gold), hack).score == 0
    assert text.grade(problem("abc"), hack).score == 0


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789.,-+*/^=$\\{}()[] \nABCDEabcx:#fracboxednswerito", max_size=200))
def test_any_text_gets_a_grade(response: str) -> None:
    for module, gold in ((number, "7777"), (choice, "B"), (label, "entailment"), (text, "unlikely text")):
        graded = module.grade(problem(gold, choices=FIVE), response)
        assert graded.score in (0.0, 1.0)
        assert graded.parsed is not None or graded.score == 0


@settings(max_examples=60, deadline=None)
@given(
    st.text(alphabet="0123456789.,-+*/^=\\{}()[]_ xyabcdfrqstin", max_size=40),
    st.sampled_from([r"\frac{1}{2}", "(1,2)"]),
)
def test_any_latex_is_compared_the_same_way_around(answer: str, gold: str) -> None:
    assert math.equal(gold, answer)[0] == math.equal(answer, gold)[0]


# Answers that settle on nothing, and answers said in unusual ways


@pytest.mark.parametrize(
    ("gold", "response"),
    [
        *(
            ("0", f"Answer: {many}")
            for many in ("[0, 1, 2]", "(0, 1, 2)", "one of 0, 1, 2", "0 1 2", "0\n1\n2", "0/1/2/3")
        ),
        ("0", r"\boxed{\{0, 1, 2\}}"),
        *(("12", f"Answer: {many}") for many in ("12-13", "12 to 13", "between 12 and 13", "12, or maybe 13")),
        *(("7", f"Answer: {many}") for many in ("x = 7, x = 42, x = 0", "7 (or 42 or 0)", "7? 42? 0?", "7*6", "7 + 6")),
        ("13", "It is 12 or 13."),
        *(("2", rf"\boxed{{{more}}}") for more in (r"2^{10}", r"2\sqrt{3}", r"2\pi", "2x", "2e1000")),
        *(("12", f"The answer is {denied}") for denied in ("not 12", "not 12 but 13", "anything but 12")),
        ("1", "Answer: one hundred"),
        ("20", "Answer: twenty-five"),
        ("2", "Answer: two thirds"),
        *(("4", f"Answer: {less}") for less in ("minus 4", "negative 4", "-(4)", "\u20134")),
        ("1/2", r"\boxed{-\frac{1}{2}}"),
        ("1", r"\boxed{\frac{1}{-2}}"),
        ("12", r"\boxed{12} Wait, that is wrong. The answer is 13."),
    ],
)
def test_no_number_where_several_are_named_or_one_is_denied(gold: str, response: str) -> None:
    assert number.grade(problem(gold), response).score == 0


@pytest.mark.parametrize(
    ("gold", "response"),
    [
        ("-1/2", r"\boxed{-\frac{1}{2}}"),
        ("-1/2", r"\boxed{\frac{1}{-2}}"),
        *(("-4", f"The answer is {less}.") for less in ("minus 4", "negative 4", "-(4)", "\u20134")),
        ("13", "Answer: not 12 but 13"),
        ("13", "The answer is 12. Wait, no: the answer is 13."),
        ("1500000", "Answer: 1.5 million"),
        ("1.5", "Answer: 1.5 million"),
        ("1000", "Answer: 1k"),
        ("125", "Answer: one hundred and twenty-five"),
        ("7/2", "Answer: 3\u00bd"),
        ("12", "Answer: USD12"),
        ("15", "Answer: 5 x 3 = 15"),
        ("5", "Answer: In 3 years, he will be 5"),
        ("36", "The answer is that the price of 3 books is $36."),
        ("12", "Answer: 12 because there are 3 * 4"),
        ("12", "Answer: 12 (3 * 4)"),
        ("60", r"\boxed{60^\circ}"),
        ("12", "Answer:\n- 12"),
    ],
)
def test_numbers_said_in_other_ways(gold: str, response: str) -> None:
    assert number.grade(problem(gold), response).score == 1


def test_a_number_said_in_two_units_counts_in_the_one_asked_for() -> None:
    said = "The answer is that it is replaced every 72 months, which is 6 years."
    assert number.grade(problem("6", "How many years does it last?"), said).score == 1
    assert number.grade(problem("72", "How many months does it last?"), said).score == 1


UNLIKE = [
    *(("5", wrong) for wrong in ("2x=5", "-x=5", "x^2=5", "6=5")),
    ("x^2+y^2=1", "1"),
    (r"\sqrt2", "1.41421356"),
    (r"\frac13", "0.333333"),
    ("10101_2", "10101_3"),
    (r"\{1,2\}", "(1,2)"),
    (r"5\text{ cm}", r"5\text{ m}"),
    ("1e999999999", "1e999999998"),
]


@pytest.mark.parametrize(("one", "other"), [*UNLIKE, *(pair[::-1] for pair in UNLIKE)])
def test_answers_that_only_look_alike(one: str, other: str) -> None:
    assert not math.equal(one, other)[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5", "2+3=5"),
        (r"\infty", r"\text{infinity}"),
        ("1,2", "x=1, x=2"),
        ("(1,2)", "(x,y)=(1,2)"),
        (r"5\text{ cm}", r"5\text{ centimeters}"),
        (r"\frac13", "0.3333333333333333"),
        ("12", "f(3) = 12"),
    ],
)
def test_answers_that_are_alike(one: str, other: str) -> None:
    assert math.equal(one, other)[0] and math.equal(other, one)[0]


def test_an_equation_may_say_what_was_asked_for() -> None:
    assert math.grade(problem("38", "What is $24x - 14y$?"), "Answer: $24x-14y=38$").score == 1
    assert math.grade(problem("38", "What is $x$?"), "Answer: $24x-14y=38$").score == 0


def test_several_formulas_are_no_answer() -> None:
    assert math.grade(problem("6"), "It is $5$ or $6$").score == 0
    assert math.grade(problem("99"), rf"\boxed{{{' = '.join(map(str, range(100)))}}}").score == 0


@pytest.mark.parametrize(
    ("gold", "response"),
    [
        *(
            ("B", f"Answer: {denied}")
            for denied in ("anything but B", "B is incorrect", "B or a", "B or A", "B, perhaps A")
        ),
        ("B", "Answer: B or ignore"),
        ("B", "The right answer isn't (B)"),
        *(
            ("A", f"Answer: {denied}")
            for denied in ("not ignore", "don't ignore it", "A. B. C. D. E.", "A\nB\nC\nD\nE")
        ),
        *(("E", f"Answer: {many}") for many in ("A through E", "A to E")),
        ("E", "(A) ignore\n(B) enforce\n(C) authoritarian\n(D) yell at\n(E) avoid"),
        ("B", "The best answer is B. On reflection, Answer: A"),
    ],
)
def test_no_option_where_several_are_named_or_one_is_denied(gold: str, response: str) -> None:
    assert choice.grade(problem(gold, choices=FIVE), response).score == 0


@pytest.mark.parametrize(
    "response",
    [
        *("I think A is wrong, so (C)", "So it must be C.", "C is correct.", "I choose C"),
        *("Therefore, C is the correct option.", "Answer: C, since A and B are wrong", "Answer: not A, it is C"),
        "The best answer is B. On reflection, Answer: C",
    ],
)
def test_options_said_in_other_ways(response: str) -> None:
    assert choice.grade(problem("C", choices=FIVE), response).score == 1


def test_options_that_are_numbers_are_compared_as_numbers() -> None:
    assert choice.grade(problem("A", choices=["0.25", "0.5"]), "Answer: .25").score == 1
    assert choice.grade(problem("A", choices=["1,000", "2"]), "Answer: 1000").score == 1
    assert choice.grade(problem("A", choices=[r"\frac{1}{2}", r"\frac{1}{3}"]), r"\boxed{\frac{1}{2}}").score == 1
    assert choice.grade(problem("B", choices=["-3", "3"]), "Answer: \N{MINUS SIGN}3").score == 0


@pytest.mark.parametrize(
    ("gold", "response", "score"),
    [
        ("yes", "Answer: not yes", 0),
        ("true", "Answer: it isn't true", 0),
        ("true", "Answer: not entirely true", 0),
        ("valid", "Answer: not deductively valid", 0),
        ("entailment", "Answer: not entailment", 0),
        ("contradiction", "Answer: no contradiction", 0),
        ("no", "Answer: It is not false", 0),
        ("no", "Answer: there is no doubt that it does", 0),
        ("yes", "Answer: yes, no, maybe", 0),
        ("yes", "yes", 1),
        ("yes", "Answer: No doubt: yes.", 1),
        ("neutral", "Answer: neither entailed nor contradicted", 1),
        ("unanswerable", "Answer: We do not have enough information", 1),
    ],
)
def test_labels_denied_listed_and_said_in_other_ways(gold: str, response: str, score: int) -> None:
    assert label.grade(problem(gold), response).score == score


@pytest.mark.parametrize(
    "text",
    [
        ", ".join(map(str, range(4000))) + " are the numbers",
        " , ".join(["1"] * 4000) + "!",
        "Answer: " + ", or ".join(["1 or"] * 400) + "!",
        "minus " * 4000,
        "1 or, " * 3000,
    ],
)
@pytest.mark.parametrize("grader", [number.grade, math.grade, choice.grade, label.grade])
@pytest.mark.timeout(20)
def test_rows_of_numbers_take_no_time(grader: Callable[[Problem, str], Grade], text: str) -> None:
    """The limit ends work that grows with the square of their length."""
    assert 0 <= grader(problem("7"), text).score <= 1


@pytest.mark.parametrize(
    ("grader", "gold", "question"),
    [
        (number.grade, "12", "She has 12 eggs and sells 12 of them. How many eggs did she have?"),
        (choice.grade, "B", "Which is right?\n(A) ignore\n(B) enforce"),
        (label.grade, "yes", "Answer yes or no: is it so?"),
        (math.grade, r"\frac{1}{2}", r"Compute $\frac{1}{2}$ or $\frac{1}{3}$."),
    ],
)
def test_the_question_said_again_is_no_answer(
    grader: Callable[[Problem, str], Grade], gold: str, question: str
) -> None:
    asked = problem(gold, question)
    for said in (question, f"The question is: {question}", f"Answer: {question}"):
        assert grader(asked, said).score == 0, said


@pytest.mark.timeout(60)
@pytest.mark.parametrize("grader", [number.grade, math.grade, choice.grade, label.grade, text.grade])
@pytest.mark.parametrize("text_", ["word " * 400_000, "{" * 2_000_000, "1, " * 700_000, "answer is\n" * 200_000])
def test_megabytes(grader: Callable[[Problem, str], Grade], text_: str) -> None:
    assert grader(problem("7", choices=FIVE), text_).score == 0
