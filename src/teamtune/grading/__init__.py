"""Grading: what a response's answer is, by which rule, and whether it is right."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import regex

from teamtune.grading.extract import LONGEST, final
from teamtune.types import Grade, Problem, TeamtuneError

Grader = Callable[[Problem, str], Grade]
NAMES = ("number", "choice", "label", "math", "exact", "boxed", "fitting")


def find_grader(name: str) -> Grader:
    """The grader that a name means: one of `NAMES`, "regex:PATTERN", or "module:function".

    A function is a grader, called with (problem, text), or shaped as TRL has it: called with `prompts` and
    `completions` as lists and every column of the problem as a keyword, it gives a list of numbers, or of None where it
    cannot judge.
    Raises TeamtuneError for a name that means none.
    """
    from teamtune.grading import choice, fitting, label, math, number, text

    plain: dict[str, Grader] = {
        "number": number.grade,
        "choice": choice.grade,
        "label": label.grade,
        "math": math.grade,
        "exact": text.grade,
        "boxed": text.grade_boxed,
        "fitting": fitting.grade,
    }
    if name in plain:
        return plain[name]
    kind, _, rest = name.partition(":")
    if kind == "regex" and rest:
        return partial(text.grade_by, compiled(rest))
    if not rest:
        raise TeamtuneError(f"unknown grader {name!r}; there are {', '.join(NAMES)}, regex:PATTERN and module:function")
    return own(kind, rest)


def compiled(pattern: str) -> regex.Pattern[str]:
    """A user's pattern. Its first group, or else all of it, is the answer."""
    try:
        return regex.compile(pattern, regex.MULTILINE)
    except regex.error as error:
        raise TeamtuneError(f"regex:{pattern} is no valid pattern: {error}") from error


def own(module: str, name: str) -> Grader:
    """A user's function as a grader."""
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise TeamtuneError(f"no function {name!r} in module {module!r} to grade with ({error})") from error
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise TeamtuneError(
            f"module {module!r} cannot be imported: {type(error).__name__}: {error}; mend it"
        ) from error
    if not callable(function):
        raise TeamtuneError(f"{module}:{name} is a {type(function).__name__}, not a function")
    parameters = inspect.signature(function).parameters
    if "completions" in parameters:
        chats = "dict" in str(parameters["completions"].annotation)
        return partial(graded_by_reward, function, f"{module}:{name}", chats)
    return partial(graded_by, function, f"{module}:{name}")


def graded_by(function: Callable[[Problem, str], Any], name: str, problem: Problem, text: str) -> Grade:
    """The grade that a user's (problem, text) function gives: a `Grade`, a number, or a truth value."""
    found = _called(function, name, problem, text)
    return found if isinstance(found, Grade) else _scored(found, name, text)


def graded_by_reward(function: Callable[..., Any], name: str, chats: bool, problem: Problem, text: str) -> Grade:
    """The grade that a function in TRL's shape gives to one response.

    Completions are texts, or one-message chats where the function's annotation has dicts.
    """
    shape: Callable[[str, str], Any] = (
        (lambda role, content: [{"role": role, "content": content}]) if chats else (lambda role, content: content)
    )
    columns = {
        **problem.meta,
        **problem.meta.get("columns", {}),
        "id": problem.id,
        "question": problem.question,
        "answer": problem.answer,
    }
    prompts, completions = [shape("user", problem.question)], [shape("assistant", text)]
    wanted = inspect.signature(function).parameters
    every = any(parameter.kind is parameter.VAR_KEYWORD for parameter in wanted.values())
    given = {column: [value] for column, value in columns.items() if every or column in wanted}
    named = {"prompts": prompts} if every or "prompts" in wanted else {}
    found = _called(function, name, completions=completions, **named, **given)
    found = found.tolist() if hasattr(found, "tolist") else found  # numpy, torch
    if not isinstance(found, Sequence) or isinstance(found, str) or len(found) != 1:
        raise TeamtuneError(
            f"grader {name} gave {found!r} for one completion; it must give a list of one number or None"
        )
    return _scored(found[0], name, text)


def _called(function: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Any:
    try:
        found = function(*args, **kwargs)
        if not inspect.isawaitable(found):
            return found
        with ThreadPoolExecutor(1) as thread:  # this one may have a loop that runs (a notebook)
            return thread.submit(asyncio.run, _awaited(found)).result()
    except (
        Exception,
        SystemExit,
    ) as error:  # a user's code may raise anything; that is no wrong answer
        raise TeamtuneError(f"grader {name} failed: {type(error).__name__}: {error}") from error


async def _awaited(found: Any) -> Any:
    return await found


def _scored(score: Any, name: str, text: str) -> Grade:
    """A user's number as a grade. Answers are told apart by their score too, so that a vote can count on it."""
    if score is None:
        return Grade(None, 0.0, name, "the grader gave None: it cannot judge this")
    score = score.item() if hasattr(score, "item") else score  # numpy, torch
    if not isinstance(score, (bool, int, float)) or not 0 <= score <= 1:
        raise TeamtuneError(f"grader {name} gave {score!r}; it must give a number from 0 to 1")
    found = final(text)
    answer = found.text if found and found.text else text.strip()[-LONGEST:]
    return Grade(f"{answer} ({score:g})", float(score), name, f"the grader gave {score:g}")
