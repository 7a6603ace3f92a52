"""Every code block of the documentation is run, page by page, from top to bottom, in an empty folder.

Python blocks of a page share one namespace. What else holds for a block is told by an HTML comment before it:

    <!-- run -->  <!-- run: exit 2 -->   run the commands of a console block; they end with this exit code, or 0
    <!-- dry-run -->                     run them with --dry-run
    <!-- parse -->                       let the command line read and check the options, and stop there
    <!-- file: options.yaml -->          write the block to this file
    <!-- output -->                      each line of the block was printed by the blocks run since the last output
    <!-- skip: reason -->                not run
    <!-- needs: house -->                what follows on the page needs the house model, and is skipped without it

A console block without a comment is an error, so that nothing goes untested by accident. In a console block, lines
without "$ " are the output of the command above them, each of which it must print ("..." stands for anything).
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.helpers import REPOSITORY

from teamtune import Ask, Completion, Problem, Sampling, Team, by_hand
from teamtune.cli import main as command
from teamtune.credit.tree import backup
from teamtune.curate.pairs import sibling_pairs
from teamtune.curate.sft import sft_rows
from teamtune.grading.number import grade
from teamtune.protocols.pipeline import pipeline, seats
from teamtune.rollout import episode_rows

DOCS = REPOSITORY / "docs"
WRITTEN_ELSEWHERE = ("log.md", "results")  # the notebook and the results quote what committed commands printed
SHELLS = ("console", "bash")
MARK = re.compile(r"<!-- (run|dry-run|parse|file|output|skip|needs)(?:: (.+?))? -->")
FENCE = re.compile(r"( *)```(\w*)\s*$")


def pages() -> list[str]:
    found = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
    return [name for name in found if Path(name).parts[0] not in WRITTEN_ELSEWHERE]


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, the comment before it (and what the comment says), the lines inside."""

    page: str
    line: int
    language: str
    mark: str
    told: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page, in order; a `needs` comment stands for itself."""
    mark, told = "", ""
    open_: tuple[int, str] | None = None
    inside: list[str] = []
    for number, line in enumerate((DOCS / page).read_text().splitlines(), start=1):
        fence, comment = FENCE.match(line), MARK.fullmatch(line.strip())
        if open_ is not None:
            if fence and not fence[2]:
                yield Block(page, *open_, mark, told, textwrap.dedent("\n".join(inside)) + "\n")
                open_, mark, told, inside = None, "", "", []
            else:
                inside.append(line)
        elif fence:
            open_ = (number, fence[2])
        elif comment and comment[1] == "needs":
            yield Block(page, number, "", "needs", comment[2], "")
        elif comment:
            mark, told = comment[1], comment[2] or ""
        elif line.strip():
            mark, told = "", ""
    assert open_ is None, f"{page}: a block is not closed"


def commands(block: Block) -> list[tuple[str, list[str]]]:
    """Each command of a console block with the lines that it prints."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.replace("\\\n", " ").splitlines():
        if block.language == "bash" or line.startswith("$ "):
            command = line.removeprefix("$ ").split("  #")[0].strip()
            found += [(command, [])] if command and not command.startswith("#") else []
        elif line.strip():
            assert found, f"{block}: output before a command"
            found[-1][1].append(line)
    return found


class Page:
    """One page while it runs."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str], name: str) -> None:
        self.patch, self.capture = patch, capture
        self.module = ModuleType("docs_" + re.sub(r"\W", "_", name))
        patch.setitem(sys.modules, self.module.__name__, self.module)
        self.printed = ""

    def run(self, block: Block) -> None:
        if block.mark == "needs":
            self.check_needs(block)
        elif block.mark == "skip":
            assert block.told, f"{block}: skip needs a reason"
        elif block.mark == "file":
            path = Path(block.told)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.mark == "output":
            self.check_printed(block, block.text.splitlines(), self.printed)
            self.printed = ""
        elif block.language == "python":
            code = compile("\n" * block.line + block.text, str(DOCS / block.page), "exec")
            exec(code, self.module.__dict__)
            self.printed += self.capture.readouterr().out
        elif block.language in SHELLS:
            assert block.mark, f"{block}: say in a comment how to test this block (see {__name__})"
            for command, printed in commands(block):
                self.check_printed(block, printed, self.command(block, command))

    @staticmethod
    def check_needs(block: Block) -> None:
        from teamtune import models

        assert block.told == "house", f"{block}: nobody knows how to provide {block.told}"
        if not models.HOUSE.exists():
            pytest.skip(f"the house model is not built: {models.HOUSE} (from {block} on)")

    @staticmethod
    def check_printed(block: Block, expected: Sequence[str], printed: str) -> None:
        lines = [" ".join(line.split()) for line in printed.splitlines()]
        for line in expected:
            parts = [re.escape(" ".join(part.split())) for part in line.split("...")]
            pattern = re.compile(r"\s*" + ".*".join(parts) + r"\s*")
            assert any(pattern.fullmatch(one) for one in lines), f"{block}: {line!r} is not in\n{printed}"

    def command(self, block: Block, command: str) -> str:
        """Run a command in this process and give what it printed."""
        code = int(block.told.removeprefix("exit ")) if block.mark == "run" and block.told else 0
        words = shlex.split(command) + (["--dry-run"] if block.mark == "dry-run" else [])
        try:
            self.call(words, only_parse=block.mark == "parse")
            ended = 0
        except SystemExit as stop:
            ended = stop.code
        out, error = self.capture.readouterr()
        assert ended == code, f"{block}: {command!r} ended with {ended}, not {code}:\n{out}{error}"
        self.printed += out
        return out + error

    def call(self, words: list[str], only_parse: bool) -> None:
        from teamtune import cli
        from teamtune.house import __main__ as house

        if words[:3] == ["python", "-m", "teamtune.house"]:
            main: Callable[[], None] = house.main
            self.patch.setattr(sys, "argv", ["teamtune.house", *words[3:]])
        else:
            assert words[0] == "teamtune", f"only teamtune's own commands are run, not {words[0]!r}; skip it"
            main = partial(cli.main, words[1:])
        if not only_parse:
            main()
            return
        with self.patch.context() as patch:
            for work in WORK:
                patch.setattr(work, stop)
            with pytest.raises(Parsed):
                main()


class Parsed(BaseException):
    """The command line was understood."""


def stop(*_: object) -> None:
    raise Parsed


WORK = (
    "teamtune.recipes.malt.main",
    "teamtune.recipes.maft.main",
    "teamtune.recipes.maft_evaluation.main",
    "teamtune.recipes.maporl.main",
    "teamtune.recipes.maporl_evaluation.main",
    "teamtune.recipes.scorer.train",
    "teamtune.recipes.scorer.evaluate",
    "teamtune.recipes.baselines.main",
    "teamtune.recipes.evaluation.main",
    "teamtune.house.__main__.run_build",
    "teamtune.house.measure.measure",
    "teamtune.house.measure.overlap",
    "teamtune.house.measure.corpus_table",
)
"""What the command lines call once they have read their options."""


@pytest.mark.parametrize("name", pages())
def test_blocks(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for folder in ("examples", "docs"):
        (tmp_path / folder).symlink_to(REPOSITORY / folder)
    page = Page(monkeypatch, capsys, name)
    try:
        for block in blocks(name):
            page.run(block)
    finally:
        for module in [m for m, it in sys.modules.items() if str(tmp_path) in str(getattr(it, "__file__", ""))]:
            del sys.modules[module]


# ---- Options named in sentences --------------------------------------------------------------------------------------

COMMANDS = ("malt", "maft", "maporl", "baselines", "eval", "scorer train", "scorer eval", "doctor", "export", "tasks")
COMMANDS += ("validate-data", "audit-grader")
BESIDE_THEM = {"--config", "--dry-run", "--processes", "--here", "--lengths.question", "--lengths.answer"}
"""options that commands take before they look at the rest"""
OF_OTHERS = {"--max-model-len", "--max-loras", "--generation-config"}
"""vLLM's"""


def test_every_option_that_a_sentence_names_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "400")  # or the help breaks long names
    known = BESIDE_THEM | OF_OTHERS
    for told in COMMANDS:
        with pytest.raises(SystemExit, match="0"):
            command([*told.split(), "--help"])
        known |= set(re.findall(r"--[a-z][\w.-]*", capsys.readouterr().out))
    assert len(known) > 250
    for page in (DOCS.parent / "README.md", *DOCS.glob("guides/*.md"), *DOCS.glob("concepts/*.md")):
        named = [code for code in re.findall(r"`([^`\n]+)`", page.read_text()) if "bench/" not in code]
        flags = {flag for code in named for flag in re.findall(r"(?<![\w-])--[a-z][\w.-]*", code)}
        assert flags <= known, f"{page.name}: {sorted(flags - known)}"


# ---- MALT by hand ----------------------------------------------------------------------------------------------------


def lesson() -> Any:
    spec = importlib.util.spec_from_file_location("malt_by_hand", DOCS / "malt_by_hand.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class InOrder:
    """An engine that gives the texts of a tree in the order of its turns."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = iter(texts)

    def adopt(self, team: Team) -> None: ...
    def close(self) -> None: ...

    def generate(self, asks: Sequence[Ask], seeds: Sequence[int]) -> list[Completion]:
        return [Completion(next(self.texts)) for _ in asks]


@pytest.mark.parametrize("question", range(8))
def test_malt_by_hand_gives_the_rows_of_the_library(question: int) -> None:
    hand = lesson()
    factor = 12 + 7 * question
    problem = Problem(f"sums/{question}", f"What is {factor} * 23?", str(factor * 23))
    tree = hand.grow(factor, 23)
    agents = ["generator", "verifier", "refiner"]
    episode = by_hand(
        problem,
        partial(pipeline, width=hand.WIDTH),
        Team("none", seats(Sampling())),
        InOrder([node["text"] for node in tree]),
    )
    turns = episode_rows(episode)
    assert [(t["agent"], t["parents"][-1:]) for t in turns] == [
        (node["agent"], [node["parent"]][: node["parent"] is not None]) for node in tree
    ]
    scores = [(t["problem"], t["take"], t["turn"], grade(problem, t["text"])) for t in turns]
    grades = [{"problem": p, "take": k, "turn": i, "score": g.score} for p, k, i, g in scores]
    values = backup(turns, grades)
    hand.label(tree, factor * 23)
    assert [row["value"] for row in values] == pytest.approx([node["value"] for node in tree])
    assert [row["positive"] for row in values] == [node["positive"] for node in tree]
    ours = sft_rows(turns, values, agents)
    assert [(r["turn"], r["completion"]) for r in ours.rows] == [
        (r["turn"], r["completion"]) for r in hand.sft_rows(tree)
    ]
    pairs = {(r["agent"], r["chosen_turn"], r["rejected_turn"]) for r in sibling_pairs(turns, values, agents).rows}
    found = [(r["agent"], r["chosen_turn"], r["rejected_turn"]) for r in hand.sibling_pairs(tree)]
    assert set(found) == pairs and len(found) == len(pairs)


def test_malt_by_hand_stands_on_its_own() -> None:
    imports = re.findall(r"^(?:import|from) (\w+)", (DOCS / "malt_by_hand.py").read_text(), re.MULTILINE)
    assert set(imports) <= set(sys.stdlib_module_names)


def test_malt_by_hand_has_something_to_teach() -> None:
    """Its trees hold positives, negatives and pairs of every role, and something to drop."""
    hand, pairs, rows = lesson(), [], []
    for question in range(8):
        tree = hand.grow(12 + 7 * question, 23)
        hand.label(tree, (12 + 7 * question) * 23)
        rows += hand.sft_rows(tree)
        pairs += hand.sibling_pairs(tree)
    assert {row["agent"] for row in rows} == {row["agent"] for row in pairs} == set(hand.ROLES)
