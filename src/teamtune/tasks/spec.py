"""Which problems a run takes, and how their answers are graded: the options that every recipe shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from teamtune.grading import NAMES, Grader, find_grader
from teamtune.tasks.dataset import (
    CHOICE_ENDING,
    MATH_ENDING,
    NUMBER_ENDING,
    Columns,
    Dataset,
    by_lot,
    chosen,
    common,
    one_side,
)
from teamtune.tasks.find import MADE, find
from teamtune.tasks.pool import read_pool
from teamtune.types import Grade, Problem, TeamtuneError

OWN = "data"
"""the task that is whatever --data names"""
ENDINGS = {
    "number": NUMBER_ENDING,
    "choice": CHOICE_ENDING,
    "math": MATH_ENDING,
    "boxed": MATH_ENDING,
    "label": "End with a line: Answer: <label>",
}
BY_GOLD = ("fitting", "label")
"""graders that read an answer by the kind of the gold one"""
OWN_COLUMNS = ("question", "answer", "choices", "id", "level", "subject")
OWN_OPTIONS = ("grader", "unlabelled", *(f"{name}_column" for name in OWN_COLUMNS))


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """Which problems to take: enough to load the same ones again."""

    task: str = "arithmetic"
    """a built-in task, the dotted path of your own module, or data (with --data)"""
    level: str = ""
    """level of a task made on the fly; empty is its own default"""
    train: int = 1000
    """problems to train on"""
    test: Annotated[int, tyro.conf.arg(aliases=["--limit"])] = 1000
    """problems to evaluate on"""
    held_out: Annotated[Literal["test", "dev"], tyro.conf.arg(aliases=["--split"])] = "test"
    """which split those are from: dev to choose options by, test for the figures that count"""
    data_seed: Annotated[int, tyro.conf.arg(aliases=["--shuffle-seed"])] = 0
    """which problems: another seed gives others of the same split"""
    test_task: str = ""
    """another task to test on"""
    levels: tuple[str, ...] = ()
    """levels or parts of a data set; none takes all"""
    subjects: tuple[str, ...] = ()
    """subjects of a data set; none takes all"""
    data: str = ""
    """where the data are: a file, a folder, a hub name (owner/name or owner/name:config), or - for standard input"""
    test_data: str = ""
    """where the test problems are, if elsewhere"""
    grader: str = ""
    """of --task data: number, choice, label, math, exact, boxed, fitting (by the gold answer's kind), regex:PATTERN or
    module:function"""
    question_column: str = ""
    """columns of --task data; empty takes the usual names"""
    answer_column: str = ""
    choices_column: str = ""
    id_column: str = ""
    level_column: str = ""
    subject_column: str = ""
    unlabelled: bool = False
    """training problems of --task data are questions alone, and answers that they may have are not read: for maft,
    which trains on none"""
    ending: str = ""
    """how an answer is to be closed, as told to the agents; empty is the task's own way"""
    allow_leaks: bool = False
    """go on though test problems are in the training set too; they are counted"""

    def __post_init__(self) -> None:
        if self.task == OWN and not self.data:
            raise TeamtuneError("--task data needs --data: a file, a folder, a hub name or -")
        if self.test_task == OWN and self.task != OWN and not self.test_data:
            raise TeamtuneError("--test-task data needs --test-data: a file, a folder, a hub name or -")
        if OWN in (self.task, self.test_task):
            if not self.grader:
                graders = ", ".join(NAMES)
                raise TeamtuneError(f"--task data needs --grader: {graders}, regex:PATTERN or module:function")
            find_grader(self.grader)
        given = [name for name in OWN_OPTIONS if getattr(self, name)]
        if given and OWN not in (self.task, self.test_task):
            raise TeamtuneError(f"--{given[0].replace('_', '-')} is for --task data, not for {self.task}; leave it out")
        if self.unlabelled and self.task != OWN:
            raise TeamtuneError(f"--unlabelled is for --task data, not for {self.task}; leave it out")
        if self.unlabelled and self.grader in BY_GOLD:
            raise TeamtuneError(
                f"--grader {self.grader} goes by the gold answer's kind, and --unlabelled has none; take another grader"
            )
        if self.task in MADE and (self.data or self.levels or self.subjects):
            raise TeamtuneError(
                f"{self.task} makes its own problems; leave out data, levels and subjects (it has --level), or give "
                "--task data for problems of your own"
            )

    def check_answers(self, recipe: str) -> None:
        """Raises TeamtuneError where a recipe that learns from gold answers is given questions alone."""
        if self.unlabelled:
            raise TeamtuneError(f"--unlabelled is for maft, and {recipe} learns from gold answers; leave it out")

    def load(self, split: str) -> list[Problem]:
        """The problems of "train" or "test" (which are those of `held_out`)."""
        if split not in ("train", "test"):
            raise TeamtuneError(f"there is no split {split!r}; choose train or test")
        count = self.train if split == "train" else self.test
        if count < 1:
            raise TeamtuneError(f"{count} {split} problems asked for; take at least 1")
        problems = self._load(self.name(split), self.held_out if split == "test" else split, count)
        return [replace(problem, ending=self.ending) for problem in problems] if self.ending else problems

    def _load(self, name: str, theirs: str, count: int) -> list[Problem]:
        if endless(name):
            level = {"level": self.level} if self.level else {}
            return loaded(name, find(name).load, (theirs, count, self.data_seed), level)
        return self._drawn(name, theirs, count)

    def name(self, split: str) -> str:
        """The task of a split."""
        return self.test_task if split == "test" and self.test_task else self.task

    def grade(self, split: str) -> Grader:
        """What grades the answers to a split's problems."""
        name = self.name(split)
        grader = find_grader(self.grader) if name == OWN else find(name).grade
        return labelled_alone(grader) if self.unlabelled and split == "train" else grader

    def most(self) -> int | None:
        """How many problems there are to test on; None where they are made without end."""
        name = self.name("test")
        if endless(name):
            return None
        pool, shared = self._pool(name, self.held_out)
        own = self._side(pool, front=False) if shared else pool
        return len(own) - (self.train if shared and len(own) == len(pool) else 0)

    def _drawn(self, name: str, split: str, count: int) -> list[Problem]:
        """Problems of a data set by lot. Where train and held-out problems share a pool, train takes the front of the
        lots and the others the back, and there must be enough for both."""
        pool, shared = self._pool(name, split)
        wanted = self.train + self.test if shared else count
        own = self._side(pool, front=split == "train") if shared else pool
        if len(own) < len(pool):  # of groups that the other split has none of
            pool, shared, wanted = own, False, count
        if wanted > len(pool):
            apart = f" ({self.train} to train on and {self.test} apart from them)" if shared else ""
            raise TeamtuneError(f"{name} {split} has {len(pool)} problems; {wanted} are asked for{apart}, take fewer")
        lots = by_lot(pool, self.data_seed)
        return lots[len(lots) - count :] if shared and split != "train" else lots[:count]

    def _side(self, pool: list[Problem], front: bool) -> list[Problem]:
        """Of a pool that two splits share, the problems that one of them may take."""
        return one_side(pool, self.train / max(1, self.train + self.test), front, self.data_seed)

    def _pool(self, name: str, split: str) -> tuple[list[Problem], bool]:
        """The problems of a data set that a split may take, and whether the other split takes from the same ones."""
        elsewhere = bool(self.test_data) or name != self.task
        data = self.data if split == "train" or not elsewhere else self.test_data
        bare = self.unlabelled and split == "train"
        dataset = self._own(data, bare) if name == OWN else find(name).DATASET
        theirs = [{**dataset.splits, **part.splits} for part in dataset.parts]
        carved = split == "dev" and not all("dev" in splits for splits in theirs)
        one_pool = any(splits.get("train") == splits.get("test") for splits in theirs)
        if carved and (one_pool or elsewhere):
            raise TeamtuneError(f"{name} has no dev split; give its problems with --test-data and --held-out test")
        shared = not elsewhere and (
            carved or (one_pool and split != "dev") or (split == "train" and self._carves(theirs))
        )
        if self.unlabelled and shared:
            raise TeamtuneError("--unlabelled needs test problems with answers apart from the others: give --test-data")
        pool = read_pool(dataset, "train" if carved else split, data, self.levels)
        return chosen(pool, self.levels, self.subjects, f"{name} {split}"), shared

    def _carves(self, theirs: list[dict[str, str]]) -> bool:
        return self.held_out == "dev" and not all("dev" in splits for splits in theirs)

    def _own(self, data: str, bare: bool = False) -> Dataset:
        """The user's data as a data set. One file is one pool; a folder and a hub name have splits. bare: its questions
        alone."""
        path = Path(data).expanduser()
        one = (
            data == "-"
            or path.is_file()
            or ((path / "dataset_info.json").exists() and not (path / "dataset_dict.json").exists())
        )
        columns = Columns(*(getattr(self, f"{name}_column") for name in Columns.__slots__))
        ending = ENDINGS.get(self.grader, "End with a line: Answer: <answer>")
        splits = {"train": "", "test": ""} if one and not self.test_data else {"train": "train", "test": "test"}
        return Dataset(OWN, data, partial(common, columns=columns, bare=bare), ending, splits, {}, columns=True)


def endless(name: str) -> bool:
    """Whether a task makes its problems, and takes them from no data set."""
    return name != OWN and not hasattr(find(name), "DATASET")


def labelled_alone(grader: Grader) -> Grader:
    """The grader, which stops at a problem that there is no answer to."""

    @wraps(grader)  # whose it is decides what else may be equal (grading/merge.py)
    def grade(problem: Problem, text: str) -> Grade:
        if not problem.answer:
            raise TeamtuneError(f"problem {problem.id!r} has no answer to grade by; --unlabelled is for maft alone")
        return grader(problem, text)

    return grade


def loaded(name: str, load: Callable[..., Any], args: tuple[str, int, int], level: dict[str, str]) -> list[Problem]:
    """The problems of a task's `load`, which may be a user's own: what it does wrong is told in a sentence."""
    try:
        found = list(load(*args, **level))
    except TeamtuneError:
        raise
    except Exception as error:  # a user's code may raise anything
        raise TeamtuneError(
            f"load of task {name!r} failed: {type(error).__name__}: {error}; it is called as load(split, count, seed"
            f"{', level' if level else ''}) and gives problems, see docs/guides/add-a-task.md"
        ) from error
    wrong = next((one for one in found if not isinstance(one, Problem)), None)
    if wrong is not None:
        raise TeamtuneError(f"load of task {name!r} gave a {type(wrong).__name__}; it must give teamtune.Problem")
    return found
