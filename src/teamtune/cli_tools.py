"""Commands beside the recipes: `teamtune doctor`, `plan` and `export`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from rich.console import Console

from teamtune.cli_options import options, parsed, taken
from teamtune.types import TeamtuneError


def doctor(args: list[str]) -> None:
    """Print each finding as it is made; exit code 1 where something is broken."""
    from rich.text import Text

    from teamtune.doctor import Doctor, examine

    cfg = parsed(Doctor, "teamtune doctor", args)
    colours = {"ok": "green", "missing": "yellow", "broken": "red"}
    console, broken = Console(soft_wrap=True), 0
    for one in examine(cfg):
        broken += one.state == "broken"
        mend = f" -> {one.mend}" if one.mend else ""
        console.print(Text(f"{one.state:>8}  ", colours[one.state]), Text(f"{one.what}: {one.told}{mend}"), sep="")
    if broken:
        raise SystemExit(1)


PLAN_USAGE = """\
usage: teamtune plan malt|maft|maporl [--lengths.question N] [--lengths.answer N] [--processes N] [--here] [OPTIONS]
       teamtune plan DIR [--lengths.question N] [--lengths.answer N] [--processes N]

Memory, generations, tokens and time of a recipe before anything begins, or beside what a finished run took.

  --lengths.question  ids of a question with its instructions ({question})
  --lengths.answer    ids of an answer (half of max_tokens)
  --processes         that train (1, or {spread} with --lora.shard)
  --here              hours on this machine too, whose speed is measured in a few seconds
  OPTIONS             those of the recipe; --out may be left out
"""


def plan(args: list[str]) -> None:
    from teamtune.planning import show_outcome, show_plan
    from teamtune.recipes.maft_team import Maft
    from teamtune.recipes.malt import Malt
    from teamtune.recipes.maporl_team import Maporl
    from teamtune.recipes.stored import stored_kind, stored_options
    from teamtune.recipes.workload import Lengths
    from teamtune.resources import SPREAD

    recipes: dict[str, type[Any]] = {"malt": Malt, "maft": Maft, "maporl": Maporl}
    if {"-h", "--help"}.intersection(args):
        print(PLAN_USAGE.format(question=Lengths().question, spread=SPREAD))
        if args[0] not in recipes:
            return
    if not args or (args[0] not in recipes and not (Path(args[0]) / "config.json").exists()):
        told = args[0] if args else "nothing"
        raise TeamtuneError(f"teamtune plan takes malt, maft, maporl or a run folder, not {told}")
    if "--dry-run" in args:
        raise TeamtuneError("teamtune plan begins nothing by itself, so --dry-run has no use; leave it out")
    flags = ("--lengths.question", "--lengths.answer")
    rest, own = args[1:], []
    for flag in flags:
        rest, value = taken(rest, flag, "number")
        own += [] if value is None else [flag.replace("--lengths.", "--"), value]
    lengths = parsed(Lengths, "teamtune plan --lengths", own)
    rest, told = taken(rest, "--processes", "number")
    if told is not None and not (told.isdigit() and int(told)):
        raise TeamtuneError(f"--processes is {told}; give the number of processes that train, 1 or above")
    if args[0] in recipes:
        here, rest = "--here" in rest, [arg for arg in rest if arg != "--here"]
        rest = rest if any(arg.startswith("--out") for arg in rest) else [*rest, "--out", "unused"]
        show_plan(options(recipes[args[0]], f"plan {args[0]}", rest)[0], lengths, int(told or 0), here)
        return
    if rest:
        raise TeamtuneError(f"teamtune plan of a run takes --lengths and --processes alone, not {shlex.join(rest)}")
    kinds = {kind.__name__: kind for kind in recipes.values()}
    kind = stored_kind(Path(args[0]))
    if kind not in kinds:
        raise TeamtuneError(f"{args[0]!r} is a run of {kind}; there are plans of {', '.join(kinds)}")
    cfg = stored_options(kinds[kind], Path(args[0]), whole=True)
    show_outcome(Path(args[0]), cfg, lengths, int(told or 0))


def export(args: list[str]) -> None:
    """Write the files and say how many rows went into each."""
    from teamtune.export import Export
    from teamtune.export import export as write

    cfg = parsed(Export, "teamtune export", args)
    for file, rows in write(cfg).items():
        print(f"{cfg.out / file}: {rows} rows")
