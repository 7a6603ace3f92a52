"""The command line: `teamtune malt --task stories --out runs/a`.

Options come from a recipe's dataclass; `--config FILE` (YAML, TOML or JSON) is read first and the command line wins.
Errors that the user can mend are one sentence on stderr and exit code 2.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from teamtune import __version__
from teamtune.cli_options import options, taken, with_file
from teamtune.launcher import several
from teamtune.memory import hold_freed_memory, keep_few_kernels
from teamtune.store import Run
from teamtune.types import TeamtuneError

T = TypeVar("T")
USAGE = """teamtune: post-train teams of LLM agents to reason together.

  teamtune malt --out DIR       train a generator-verifier-refiner team by MALT and compare it with its baselines
  teamtune maft --out DIR       finetune generators and critics on their own debates (Multiagent Finetuning)
  teamtune maporl --out DIR     train agents to discuss, all at once, by multi-agent PPO (MAPoRL)
  teamtune scorer train|eval    a scorer, which says how likely an answer is right, and how good it is
  teamtune baselines --out DIR  the untrained baselines alone
  teamtune eval --run DIR       a trained team on other problems, with other roles, with seats put back to the base
  teamtune show DIR             what a run holds: stages, counts, the comparison
  teamtune report DIR           write report.md and report.html again
  teamtune plan RECIPE|DIR      memory, tokens and time of a recipe before it begins; of a run, what it took beside that
  teamtune export DIR --out F   what its agents learn from, for other trainers and hosted finetuning
  teamtune doctor               what this machine has, what is missing, and the command that mends it
  teamtune tasks                the tasks, their sizes, and what is on this machine
  teamtune validate-data FILE   check every row of a data file
  teamtune audit-grader FILE    how far graders agree with recorded labels
  teamtune COMMAND --help       all options of a command

Any recipe takes --config FILE (YAML, TOML or JSON; the command line wins) and --dry-run (options and plan, no work);
maporl and scorer train take --preset too: paper (their defaults), official-code, or house (what suits --model house).
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `teamtune`."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        print(USAGE)
        return
    commands: dict[str, Callable[[list[str]], None]] = {
        "malt": malt,
        "maft": maft,
        "maporl": maporl,
        "scorer": scorer,
        "baselines": baselines,
        "eval": evaluate,
        "show": show,
        "report": report,
        **{name: partial(by_tool, name) for name in ("doctor", "plan", "export")},
        **{name: partial(about_data, name) for name in ("tasks", "validate-data", "audit-grader")},
    }
    # A user's own task or script is looked up from where the command is given, and after everything installed.
    sys.path.append(os.getcwd())
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    # That a CPU has no faster kernel for four bits is said at every import, to everybody who never asked for four bits.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        if args[0] == "--version":
            print(__version__)
            return
        if args[0] not in commands:
            raise TeamtuneError(f"unknown command {args[0]!r}; there are {', '.join(commands)}")
        commands[args[0]](args[1:])
    except TeamtuneError as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", style="red", markup=False, highlight=False)
        raise SystemExit(2) from error
    except KeyboardInterrupt as stop:
        Console(stderr=True, soft_wrap=True).print("stopped; the same command goes on from here", style="yellow")
        raise SystemExit(130) from stop


def command_line(args: Sequence[str]) -> str:
    return shlex.join(["teamtune", *args])


def malt(args: list[str]) -> None:
    from teamtune.recipes import malt as recipe
    from teamtune.recipes.plan import malt_plan

    run_recipe("malt", args, recipe.Malt, recipe.main, malt_plan)


def maft(args: list[str]) -> None:
    from teamtune.recipes import maft as recipe
    from teamtune.recipes.plan import maft_plan

    run_recipe("maft", args, recipe.Maft, recipe.main, maft_plan)


def maporl(args: list[str]) -> None:
    from teamtune.recipes import maporl as recipe
    from teamtune.recipes.plan import maporl_plan

    run_recipe("maporl", args, recipe.Maporl, recipe.main, maporl_plan)


def scorer(args: list[str]) -> None:
    from teamtune.recipes import scorer as recipe
    from teamtune.recipes.plan import scorer_evaluation_plan, scorer_plan

    if args[:1] in (["-h"], ["--help"]):
        print("usage: teamtune scorer train|eval OPTIONS\n\ntrain a scorer, or measure one; train --help, eval --help")
        return
    if not args or args[0] not in ("train", "eval"):
        raise TeamtuneError(f"teamtune scorer does train or eval, not {shlex.join(args[:1]) or 'nothing'}")
    kind, rest = args[0], args[1:]
    if kind == "train":
        run_recipe("scorer train", rest, recipe.ScorerTraining, recipe.train, scorer_plan)
        return
    _, run = taken(with_file(rest), "--run", "run folder")
    default = None if run is None else recipe.defaults(Path(run))
    run_recipe("scorer eval", rest, recipe.ScorerEvaluation, recipe.evaluate, scorer_evaluation_plan, default)


def baselines(args: list[str]) -> None:
    from teamtune.recipes import baselines as recipe
    from teamtune.recipes.plan import baselines_plan

    run_recipe("baselines", args, recipe.Baselines, recipe.main, baselines_plan)


def evaluate(args: list[str]) -> None:
    from teamtune.recipes import evaluation, maft_evaluation, maporl_evaluation
    from teamtune.recipes.plan import evaluation_plan, maft_evaluation_plan, maporl_evaluation_plan
    from teamtune.recipes.stored import stored_kind

    # What the run was made with is the default, so that an ablation differs in what it names alone.
    _, run = taken(with_file(args), "--run", "run folder")
    kind = "" if run is None else stored_kind(Path(run))
    if kind == "ScorerTraining":
        raise TeamtuneError(f"{run!r} is a run of scorer train; teamtune scorer eval --run {run} measures its scorer")
    if run is not None and kind == "Maporl":
        own = maporl_evaluation
        run_recipe("eval", args, own.MaporlEvaluation, own.main, maporl_evaluation_plan, own.defaults(Path(run)))
        return
    if run is not None and kind == "Maft":
        one = maft_evaluation
        default = one.defaults(Path(run))
        run_recipe("eval", args, one.MaftEvaluation, one.main, maft_evaluation_plan, default)
        return
    default = None if run is None else evaluation.defaults(Path(run))
    run_recipe("eval", args, evaluation.Evaluation, evaluation.main, evaluation_plan, default)


def run_recipe(
    name: str,
    args: list[str],
    kind: type[T],
    recipe: Callable[[T, str], Run],
    plan: Callable[[T], Mapping[str, Any]],
    default: T | None = None,
) -> None:
    """Read the options, then print the plan (a dry run) or do the work and write the report."""
    from teamtune.report import write_report

    hold_freed_memory()
    keep_few_kernels()
    cfg, dry = options(kind, name, args, default)
    if dry:
        print_plan(cfg, plan(cfg))
        return
    together()
    done = recipe(cfg, command_line([*name.split(), *args]))
    if not done.follows:
        finish(write_report(done.path))


def together() -> None:
    """Under `accelerate launch`, meet the other processes now: later the first one works while they wait."""
    if several():
        from teamtune.models import state

        state()


def report(args: list[str]) -> None:
    from teamtune.report import write_report

    if not asks_for_help("report", args, "write report.md and report.html of a run again"):
        finish(write_report(folder_argument("report", args)))


def show(args: list[str]) -> None:
    from teamtune.report import show_run

    if not asks_for_help("show", args, "what a run holds: stages, counts, the comparison"):
        show_run(folder_argument("show", args))


def by_tool(name: str, args: list[str]) -> None:
    from teamtune import cli_tools

    getattr(cli_tools, name)(args)


def about_data(name: str, args: list[str]) -> None:
    from teamtune.cli_data import run

    run(name, args)


def asks_for_help(command: str, args: list[str], what: str) -> bool:
    if "-h" not in args and "--help" not in args:
        return False
    print(f"usage: teamtune {command} DIR\n\n{what}")
    return True


def folder_argument(command: str, args: list[str]) -> Path:
    if len(args) != 1 or args[0].startswith("-"):
        raise TeamtuneError(f"teamtune {command} takes one run folder, not {shlex.join(args) or 'nothing'}")
    folder = Path(args[0])
    if not (folder / "config.json").exists():
        raise TeamtuneError(f"{args[0]!r} is no run folder: it holds no config.json")
    return folder


def finish(paths: Sequence[Path]) -> None:
    """Print the report's table and where the report is."""
    from teamtune.report import print_comparison

    print_comparison(paths[0].parent)
    for path in paths:
        print(path)


def print_plan(cfg: Any, plan: Mapping[str, Any]) -> None:
    """A dry run's output: JSON on stdout, so that it can be read by programs too."""
    from teamtune.identity import canonical

    print(json.dumps({"options": canonical(cfg, Path(cfg.out), whole=True), "plan": plan}, indent=1))


if __name__ == "__main__":
    main()
