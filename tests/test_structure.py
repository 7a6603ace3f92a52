"""The shape of the code: small files and functions, and the names that the package offers."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import teamtune

SOURCE = Path(teamtune.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
LONGER = {"story_events.py": 340, "store.py": 310}
"""Files with a reason to be above 300 lines: a list of wordings, and the run folder, which is one idea."""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_files_and_functions_are_small_and_modules_say_what_they_are_for(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= LONGER.get(file.name, 300)
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module starts with what it is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is too long"


def test_the_names_that_the_package_offers() -> None:
    """Others build on these: a name may come, and none may go unnoticed."""
    assert sorted(teamtune.__all__) == [
        *("Agent", "Ask", "Completion", "Counted", "Engine", "Episode", "Grade", "Message", "Play", "Problem", "Run"),
        *("Sampling", "Scripted", "Table", "Team", "TeamtuneError", "Turn", "ask", "by_hand", "read_table"),
    ]
    assert all(hasattr(teamtune, name) for name in teamtune.__all__)
