"""Sections and tables of strings, and numbers as text: what all sections of a report are made of."""

from __future__ import annotations

from collections.abc import Sequence

from teamtune.types import Row

NONE = "–"  # noqa: RUF001


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def points(share: float) -> str:
    """A difference in points, with its sign; what rounds to zero has none."""
    value = round(100 * share, 1)
    return f"{value:+.1f}".replace("-", "−") if value else "0.0"  # noqa: RUF001


def estimated(one: object) -> str:
    """An Estimate of a share in percent, with its error."""
    return NONE if one is None else f"{percent(one.mean)} ± {percent(one.se)}"  # type: ignore[attr-defined]


def make_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    strong: Sequence[int] = (),
    heat: int = 0,
) -> Row:
    """`heat`: from this column on, a cell is a share in % to be shaded; 0 shades none."""
    made = {"title": title, "columns": list(columns), "rows": [list(row) for row in rows]}
    return made | {"strong": list(strong), "heat": heat}


def make_section(name: str, title: str, text: Sequence[str] = (), tables: Sequence[Row] = ()) -> Row:
    return {"id": name, "title": title, "text": list(text), "tables": list(tables)}
