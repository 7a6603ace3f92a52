"""Pictures of a report as inline SVG: intervals and curves. They take their colours from the page's CSS classes.

Every text is escaped here; nothing else may put untrusted text into a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise
from math import ceil, floor, log10

from teamtune.reporting.table import points
from teamtune.types import Row

WIDTH = 520
LETTERS = 30
"""A longer name is cut; it is whole in the table, and when pointed at."""
TOLD, ROW, TOP = 92, 25, 6
MOST_POINTS = 160


def accuracies(rows: Sequence[Row], against: str) -> str:
    """Accuracy of each system in % with a whisker of 1.96 standard errors either side, kept within 0 and 100."""
    lines = []
    for row in rows:
        middle, reach = 100 * row["accuracy"], 196 * row["se"]
        told = f"{middle:.1f} ± {reach:.1f}"
        lines.append((row["system"], middle, max(0.0, middle - reach), min(100.0, middle + reach), told))
    return intervals(lines, against, "Accuracy of each system with 1.96 standard errors either side, in percent", 0)


def differences(rows: Sequence[Row], against: str) -> str:
    """What `against` is above or below each other system, with the bootstrap interval."""
    lines = []
    for row in rows:
        if row["system"] != against:
            middle, low, high = (100 * row[key] for key in ("diff", "low", "high"))
            lines.append((row["system"], middle, low, high, points(row["diff"])))
    title = f"Accuracy of {against} minus that of each other system with 95 percent intervals, in points"
    return intervals(lines, "", title, None)


def intervals(
    lines: Sequence[tuple[str, float, float, float, str]], strong: str, title: str, floor_at: float | None
) -> str:
    """Rows of (name, middle, low, high, told) over one axis; `floor_at` None marks zero and puts it in view."""
    least_shown = -1.0 if floor_at is None else floor_at
    ticks = axis(min(least_shown, *(line[2] for line in lines)), max(1.0, *(line[3] for line in lines)))
    left, right = 18 + 7.7 * max(len(_short(line[0])) for line in lines), WIDTH - TOLD
    x = lambda value: left + (right - left) * (value - ticks[0]) / (ticks[-1] - ticks[0])  # noqa: E731
    bottom = TOP + ROW * len(lines)
    parts = [_open(WIDTH, bottom + 24, title)]
    for tick in ticks:
        kind = "zero" if floor_at is None and tick == 0 else "grid"
        parts.append(f'<path class="{kind}" d="M{x(tick):.1f} {TOP}V{bottom}"/>')
        parts.append(
            f'<text class="tick" x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{_signed(tick)}</text>'
        )
    for index, (name, middle, least, most, told) in enumerate(lines):
        y = TOP + ROW * (index + 0.5)
        kind = "mark strong" if name == strong else "mark"
        parts.append(f'<g class="{kind}"><title>{escape(name)}: {escape(told)}</title>')
        parts.append(f'<text x="{left - 10:.1f}" y="{y + 4:.1f}" text-anchor="end">{escape(_short(name))}</text>')
        ends = "".join(f"M{x(end):.1f} {y - 4:.1f}v8" for end in (least, most))
        parts.append(f'<path class="whisker" d="M{x(least):.1f} {y:.1f}H{x(most):.1f}{ends}"/>')
        parts.append(f'<circle cx="{x(middle):.1f}" cy="{y:.1f}" r="4.5"/>')
        parts.append(f'<text class="told" x="{WIDTH - 2}" y="{y + 4:.1f}" text-anchor="end">{escape(told)}</text></g>')
    return "".join(parts) + "</svg>"


def losses(stage: str, curves: Sequence[Row], agents: Sequence[str]) -> str:
    """The loss of each agent over the steps of one fit. agents: those of all fits, for one colour each."""
    found = [(curve["agent"], list(zip(curve["steps"], curve["loss"], strict=False))) for curve in curves]
    return lines_over(found, agents, f"Loss of each agent over the steps of {stage}", "step")


def lines_over(
    named: Sequence[tuple[str, Sequence[tuple[float, float]]]], names: Sequence[str], title: str, below: str
) -> str:
    """Lines of points over whole numbers; they differ in dash and label, not in colour alone.

    names: those of all pictures that belong together, so that a line has the same colour in each.
    below: what the numbers count.
    """
    width, height, left, right, top, bottom = 460, 230, 46, 96, 14, 198
    lines = [(name, thinned(line)) for name, line in named]
    points = [point for _, line in lines for point in line]
    ys = axis(min(y for _, y in points), max(y for _, y in points))
    xs = axis(min(x for x, _ in points), max(1, *(x for x, _ in points)))
    across = lambda value: left + (width - right - left) * (value - xs[0]) / (xs[-1] - xs[0])  # noqa: E731
    up = lambda value: bottom - (bottom - top) * (value - ys[0]) / (ys[-1] - ys[0])  # noqa: E731
    parts = [_open(width, height, title)]
    for tick in ys:
        parts.append(f'<path class="grid" d="M{left} {up(tick):.1f}H{width - right}"/>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{up(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in xs:
        if tick == round(tick):
            parts.append(
                f'<text class="tick" x="{across(tick):.1f}" y="{bottom + 17}" text-anchor="middle">{tick:g}</text>'
            )
    parts.append(f'<text class="tick" x="{width - right + 8}" y="{bottom + 17}">{escape(below)}</text>')
    taken: list[float] = []
    for name, line in lines:
        path = "".join(f"{'L' if i else 'M'}{across(x):.1f} {up(y):.1f}" for i, (x, y) in enumerate(line))
        parts.append(f'<g class="line line-{names.index(name) % 6}"><title>{escape(name)}</title><path d="{path}"/>')
        dots = line if len(line) <= 24 else [line[0], line[-1]]
        parts += [f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="2.6"/>' for x, y in dots]
        at = _free(up(line[-1][1]), taken)
        parts.append(f'<text x="{width - right + 8}" y="{at + 4:.1f}">{escape(_short(name, 13))}</text></g>')
    return "".join(parts) + "</svg>"


def stacked(bars: Sequence[tuple[str, Sequence[float]]], parts: Sequence[str], title: str) -> str:
    """A bar of shares in [0, 1] for each name, in the order of `parts`; each share of 6 % or more is told inside."""
    left, wide, top = 190, 320, 30
    found = [_open(left + wide + 12, top + ROW * len(bars) + 4, title)]
    for number, part in enumerate(parts):
        at = left + number * wide / len(parts)
        found.append(f'<g class="part-{number}"><rect x="{at:.1f}" y="6" width="11" height="11"/></g>')
        found.append(f'<text class="tick" x="{at + 15:.1f}" y="16">{escape(part)}</text>')
    for row, (name, shares) in enumerate(bars):
        y, x = top + ROW * row, float(left)
        label = f"<title>{escape(name)}</title>{escape(_short(name))}"
        found.append(f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{label}</text>')
        for number, (part, share) in enumerate(zip(parts, shares, strict=True)):
            told = f"{escape(name)}, {escape(part)}: {100 * share:.1f} %"
            bar = f'<rect x="{x:.1f}" y="{y}" width="{wide * share:.1f}" height="{ROW - 5}"/>'
            found.append(f'<g class="part-{number}"><title>{told}</title>{bar}')
            middle = f'x="{x + wide * share / 2:.1f}" y="{y + 14}"'
            inside = f'<text class="inside" {middle} text-anchor="middle">{100 * share:.0f}</text>'
            found.append(f"{inside if share >= 0.06 else ''}</g>")
            x += wide * share
    return "".join(found) + "</svg>"


COLOURS = ("#1f5fbf", "#b3541e", "#2f7d4f", "#8a3fa0", "#5b6b7a", "#a8324a")
PARTS = ("#2f7d4f", "#1f5fbf", "#b3541e", "#5b6b7a")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 4")


def standalone(picture: str) -> str:
    """A picture of lines or bars as a file of its own, which takes no colours from a page."""
    style = "text{font:13px sans-serif;fill:#222}.tick{fill:#666;font-size:11.5px}.grid{stroke:#ddd}"
    style += ".line path{fill:none;stroke-width:2}"
    for number, (colour, dash) in enumerate(zip(COLOURS, DASHES, strict=True)):
        style += f".line-{number} path{{stroke:{colour};stroke-dasharray:{dash or 'none'}}}"
        style += f".line-{number} circle,.line-{number} text{{fill:{colour}}}"
    for number, colour in enumerate(PARTS):
        style += f".part-{number} rect{{fill:{colour}}}"
    style += ".inside{fill:#fff;font-size:11.5px}"
    head, rest = picture.split(">", 1)
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>{ground}{rest}'


def axis(low: float, high: float, about: int = 5) -> list[float]:
    """Round ticks that cover low to high."""
    size = max(abs(low), abs(high), 0.1)
    if high - low < 1e-6 * size:  # a single point, or a flat line
        low, high = low - 0.5 * size, high + 0.5 * size
    rough = (high - low) / about
    ten = 10 ** floor(log10(rough))
    step = next(m * ten for m in (1, 2, 2.5, 5, 10) if m * ten >= rough * (1 - 1e-9))
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MOST_POINTS points: the means of equal stretches, so that noise is smoothed and not picked from."""
    if len(points) <= MOST_POINTS:
        return list(points)
    edges = [len(points) * i // MOST_POINTS for i in range(MOST_POINTS + 1)]
    groups = [points[a:b] for a, b in pairwise(edges)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _open(width: int, height: float, title: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'


def _signed(tick: float) -> str:
    return f"{tick:g}".replace("-", "−")  # noqa: RUF001


def _short(name: str, most: int = LETTERS) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _free(y: float, taken: list[float]) -> float:
    """A height for a label near `y` that no other label has."""
    while any(abs(y - other) < 14 for other in taken):
        y -= 14
    taken.append(y)
    return y
