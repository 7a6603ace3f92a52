"""A run folder as report.md and report.html, and what `teamtune show` prints.

A report is a reader of tables: `gather(folder)` reads them into a dict of facts, from which both files are
written. A run that is not finished gets a report of what there is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from teamtune.reporting.facts import Facts, gather, outline
from teamtune.reporting.scorer_section import scorer
from teamtune.reporting.sections import NONE, compared, head, sections, state
from teamtune.types import Row, TeamtuneError


def write_report(path: str | Path) -> list[Path]:
    """Write report.md and report.html into the run folder, over older ones."""
    from teamtune.reporting.page import html  # jinja2 is for this alone

    folder = Path(path)
    facts = gather(folder)
    files = {folder / "report.md": markdown(facts), folder / "report.html": html(facts)}
    for file, text in files.items():
        beside = file.with_name(file.name + ".tmp")
        try:
            beside.write_text(text, encoding="utf-8")
            os.replace(beside, file)
        except OSError as error:
            raise TeamtuneError(f"cannot write {file} ({error}); make the folder writable") from error
    return list(files)


def print_comparison(path: str | Path) -> None:
    """Print the comparison of systems to stdout, or one sentence where there is none."""
    _print_compared(outline(Path(path)), _console())


def show_run(path: str | Path) -> None:
    """Print what a run holds: its options, its stages, the comparison."""
    facts, console = outline(Path(path)), _console()
    options = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in head(facts):
        options.add_row(name, escape(value))
    console.print(options)
    columns = ["Stage", "State", "Rows", "Seconds", "Counts"]
    console.print(_rich("Stages", columns, [_stage(row) for row in facts["stages"]], numbers=(2, 3)))
    if state(facts):
        console.print(escape(state(facts)))
    _print_compared(facts, console)


def markdown(facts: Facts) -> str:
    """report.md: every section of the facts."""
    parts = [f"# {facts['run']['recipe']}: {facts['run']['name']}"]
    parts.append("\n".join(f"- {name}: `{value}`" for name, value in head(facts)))
    if state(facts):
        parts.append(f"**{state(facts)}**")
    for section in sections(facts):
        parts.append(f"## {section['title']}")
        tables = section["tables"]
        for table in tables:
            parts += [f"### {table['title']}"] if table["title"] else []
            parts.append(_markdown_table(table))
        parts += section["text"]
    parts.append("The trees, the curves and the episodes themselves are in report.html, beside this file.")
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Row) -> str:
    strong = set(table["strong"])
    rows = [[f"**{c}**" if i in strong else c for c in row] for i, row in enumerate(table["rows"])]
    align = ["---", *["---:"] * (len(table["columns"]) - 1)]
    lines = [table["columns"], align, *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _console() -> Console:
    """Stdout; what is not a terminal gets lines long enough that no number is cut."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140)


def _print_compared(facts: Facts, console: Console) -> None:
    found = facts["comparison"]
    for table in scorer(facts["scorer"])["tables"][:1]:
        console.print(_rich("Scorer", table["columns"], table["rows"], numbers=range(1, 6)))
    if found is None and facts["scorer"]:
        return
    if found is None:
        console.print("This run holds no comparison of systems yet.")
        return
    columns = ["System", "Acc %", "SE", "n", "Calls", "Prompt", "Compl.", "Trained", "Difference [95 %]"]
    rows = [compared(row, found["against"]) for row in found["rows"]]
    console.print(_rich("Systems", columns, rows, numbers=range(1, 9)))
    console.print(
        f"Difference: {escape(found['against'])} minus the line, in points, paired bootstrap. "
        "Calls and tokens per question."
    )


def _rich(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _stage(row: Row) -> list[str]:
    size = NONE if row["rows"] is None else f"{row['rows']:,}"
    seconds = NONE if row["seconds"] is None else f"{row['seconds']:,.1f}"
    logged = f"{row['logged']} lines logged" if row["logged"] else ""
    told = ", ".join(f"{what} {count}" for what, count in row["counts"].items())
    return [row["name"], row["state"], size, seconds, told or logged]
