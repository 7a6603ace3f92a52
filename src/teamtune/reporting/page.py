"""report.html: one file that asks the network for nothing.

Texts of models are untrusted. The template escapes all that it is given; the viewer's data is JSON in which no "<" is
left, and viewer.js builds every node with textContent. A content security policy allows this page's own script by
its hash and nothing else, should any of that fail.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from teamtune.reporting import discussion_sections, scorer_section, svg
from teamtune.reporting.debate_sections import NAMED
from teamtune.reporting.facts import Facts
from teamtune.reporting.names import TESTED
from teamtune.reporting.sections import head, sections, state
from teamtune.types import Row

HERE = Path(__file__).parent
WITHOUT_SCRIPT = 4
"""Problems whose trees are also written as plain HTML, for readers without JavaScript."""


def html(facts: Facts) -> str:
    """The whole page."""
    # Script and style are no templates: rendered, a brace in them could be taken for one.
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("report.css", "viewer.js"))
    env = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    env.trim_blocks = env.lstrip_blocks = True
    viewer = facts["viewer"]
    return env.get_template("report.html.j2").render(
        run=facts["run"],
        head=head(facts),
        state=state(facts),
        sections=sections(facts),
        pictures=pictures(facts),
        viewer=viewer,
        shown=shown(viewer),
        tested=TESTED,
        outlines=[outline(problem) for problem in first_problems(viewer["sets"])],
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(embedded({"sets": viewer["sets"]})),
    )


def embedded(data: Any) -> str:
    """JSON that can stand in a script element: with no "<" there is neither "</script>" nor "<!--"."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def pictures(facts: Facts) -> dict[str, list[Row]]:
    """The pictures of each section, by its id."""
    made: dict[str, list[Row]] = {}
    found = facts["comparison"]
    if found:
        rows, against = found["rows"], found["against"]
        made["results"] = [{"title": "Accuracy, % ± 1.96 SE", "svg": Markup(svg.accuracies(rows, against))}]
        if len(rows) > 1:
            title = f"{against} minus …, points with 95 % interval"
            made["results"].append({"title": title, "svg": Markup(svg.differences(rows, against))})
    by_stage: dict[str, list[Row]] = {}
    for curve in facts["curves"]:
        by_stage.setdefault(curve["stage"], []).append(curve)
    agents = list(dict.fromkeys(curve["agent"] for curve in facts["curves"]))
    made["training"] = [
        {"title": f"Loss, {stage}", "svg": Markup(svg.losses(stage, curves, agents))}
        for stage, curves in by_stage.items()
    ]
    made["diversity"] = trends(facts["team"]["systems"])
    for section, found in discussion_sections.pictures(facts["by_turn"], facts["metrics"]).items():
        made[section] = [{"title": title, "svg": Markup(picture)} for title, picture in found]
    if facts["scorer"]:
        title = "Share of right answers over the score"
        made["scorer"] = [{"title": title, "svg": Markup(scorer_section.picture(facts["scorer"]))}]
    return made


SHOWN = ("vote", "consensus", "entropy", "nll", "kl", "base_kl", "dissimilarity")
"""measures drawn over iterations"""


def trends(systems: Sequence[Row]) -> list[Row]:
    """Each measure over the iterations of every method that has more than one; the untrained debate is iteration 0."""
    methods: dict[str, list[tuple[int, Row]]] = {}
    for one in systems:
        name, _, number = one["name"].partition(", iteration ")
        if number:
            methods.setdefault(name, []).append((int(number), one["values"]))
    base = next((one["values"] for one in systems if one["place"] == "base"), None)
    methods = {name: steps for name, steps in methods.items() if len(steps) > 1}
    made = []
    for measure in SHOWN:
        lines = []
        for name, steps in methods.items():
            whole = [(0, base), *steps] if base is not None else steps
            points = [(float(n), values[measure].mean) for n, values in whole if measure in values]
            lines += [(name, points)] if len(points) > 1 else []
        if lines:
            title = f"{NAMED[measure].removesuffix(' %')} over iterations"
            picture = svg.lines_over(lines, list(methods), title, "iteration")
            made.append({"title": title, "svg": Markup(picture)})
    return made


def shown(viewer: Row) -> str:
    """How many problems the page holds, of how many; systems play the same test problems, so one count tells."""
    told, (train, test) = {}, viewer["most"]
    for one in viewer["sets"]:
        tested = one["key"].startswith(TESTED)
        name = f"of each test system (at most {test})" if tested else f"{one['title'].lower()} (at most {train})"
        told[name] = f"{len(one['problems'])} of {one['total']}"
    return ", ".join(f"{count} {name}" for name, count in told.items())


def first_problems(sets: Sequence[Row]) -> list[Row]:
    """A few problems of the first set, those with pairs first."""
    problems = sets[0]["problems"] if sets else []
    return sorted(problems, key=lambda problem: -problem["pairs"])[:WITHOUT_SCRIPT]


def outline(problem: Row) -> Row:
    """A problem's turns as a list with depths, children below their parents."""
    lines: list[Row] = []
    for episode in problem["episodes"]:
        below: dict[int | None, list[Row]] = {}
        for turn in episode["turns"]:
            above = turn["parents"][-1] if turn["parents"] and not episode["rounds"] else None
            below.setdefault(above, []).append(turn)
        ahead = [(0, turn) for turn in reversed(below.get(None, []))]
        while ahead:
            depth, turn = ahead.pop()
            lines.append({"depth": depth, "take": episode["take"], **turn})
            ahead += [(depth + 1, child) for child in reversed(below.get(turn["turn"], []))]
    return {"problem": problem, "lines": lines}
