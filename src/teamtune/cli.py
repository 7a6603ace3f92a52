"""The command line: `teamtune malt --task stories --out runs/a`.

Options come from a recipe's dataclass; `--config FILE` (YAML, TOML or JSON) is read first and the command line wins.
Errors that the user can mend are one sentence on stderr and exit code 2.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import tomllib
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import tyro
import yaml
from rich.console import Console

from teamtune import __version__
from teamtune.memory import hold_freed_memory
from teamtune.store import Run
from teamtune.types import TeamtuneError

T = TypeVar("T")
USAGE = """teamtune: post-train teams of LLM agents to reason together.

  teamtune malt --out DIR       train a generator-verifier-refiner team by MALT and compare it with its baselines
  teamtune baselines --out DIR  the untrained baselines alone
  teamtune eval --run DIR       a trained team on other problems, with other roles, with seats put back to the base
  teamtune show DIR             what a run holds: stages, counts, the comparison
  teamtune report DIR           write report.md and report.html again
  teamtune tasks                the tasks, their sizes, and what is on this machine
  teamtune validate-data FILE   check every row of a data file
  teamtune audit-grader FILE    how far graders agree with recorded labels
  teamtune COMMAND --help       all options of a command

Any recipe takes --config FILE (YAML, TOML or JSON; the command line wins) and --dry-run (options and plan, no work).
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `teamtune`."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        print(USAGE)
        return
    commands: dict[str, Callable[[list[str]], None]] = {
        "malt": malt,
        "baselines": baselines,
        "eval": evaluate,
        "show": show,
        "report": report,
        **{name: partial(about_data, name) for name in ("tasks", "validate-data", "audit-grader")},
    }
    # A user's own task or script is looked up from where the command is given, and after everything installed.
    sys.path.append(os.getcwd())
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
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


def command_line(args: Sequence[str]) -> str:
    return shlex.join(["teamtune", *args])


def options(kind: type[T], name: str, args: list[str], default: T | None = None) -> tuple[T, bool]:
    """The command's options, and whether this is a dry run."""
    args = with_file(args)
    dry = "--dry-run" in args
    rest = [arg for arg in args if arg != "--dry-run"]
    parse = partial(tyro.cli, kind, prog=f"teamtune {name}", args=rest)
    return parse() if default is None else parse(default=default), dry


def with_file(args: Sequence[str]) -> list[str]:
    """The arguments with those of `--config FILE` in front, so that the command line wins."""
    rest, config = taken(args, "--config")
    return [*file_arguments(Path(config)), *rest] if config else rest


def taken(args: Sequence[str], flag: str, what: str = "file name") -> tuple[list[str], str | None]:
    """The arguments without `flag VALUE` (or `flag=VALUE`), and the value."""
    rest: list[str] = []
    values: list[str] = []
    given = iter(args)
    for arg in given:
        if arg == flag:
            values.append(next(given, ""))
        elif arg.startswith(f"{flag}="):
            values.append(arg.split("=", 1)[1])
        else:
            rest.append(arg)
    if "" in values:
        raise TeamtuneError(f"{flag} needs a {what}")
    if len(values) > 1:
        raise TeamtuneError(f"{flag} is given {len(values)} times ({', '.join(values)}); give one")
    return rest, values[0] if values else None


def file_arguments(path: Path) -> list[str]:
    """The options of a file as command-line arguments, so that both are checked by the same rules."""
    if not path.exists():
        raise TeamtuneError(f"no options file at {str(path)!r}; check --config")
    try:
        text = path.read_text()
        data = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except (yaml.YAMLError, tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise TeamtuneError(f"{path} is no valid options file: {' '.join(str(error).split())}") from error
    if not isinstance(data, Mapping):
        raise TeamtuneError(f"{path} must hold options as key: value, not {type(data).__name__}")
    return _arguments(data, "")


def _arguments(data: Mapping[str, Any], prefix: str) -> list[str]:
    args: list[str] = []
    for key, value in data.items():
        name = f"{prefix}{key}".replace("_", "-")
        if isinstance(value, Mapping):
            args += _arguments(value, f"{name}.")
        elif isinstance(value, bool):
            head, _, last = name.rpartition(".")
            dot = "." if head else ""
            args.append(f"--{name}" if value else f"--{head}{dot}no-{last}")
        elif isinstance(value, list):
            args += [f"--{name}", *map(str, value)]
        else:
            args += [f"--{name}", str(value)]
    return args


def malt(args: list[str]) -> None:
    from teamtune.recipes import malt as recipe
    from teamtune.recipes.plan import malt_plan

    run_recipe("malt", args, recipe.Malt, recipe.main, malt_plan)


def baselines(args: list[str]) -> None:
    from teamtune.recipes import baselines as recipe
    from teamtune.recipes.plan import baselines_plan

    run_recipe("baselines", args, recipe.Baselines, recipe.main, baselines_plan)


def evaluate(args: list[str]) -> None:
    from teamtune.recipes import evaluation as recipe
    from teamtune.recipes.plan import evaluation_plan

    # What the run was made with is the default, so that an ablation differs in what it names alone.
    _, run = taken(with_file(args), "--run", "run folder")
    default = None if run is None else recipe.defaults(Path(run))
    run_recipe("eval", args, recipe.Evaluation, recipe.main, evaluation_plan, default)


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
    cfg, dry = options(kind, name, args, default)
    if dry:
        print_plan(cfg, plan(cfg))
        return
    finish(write_report(recipe(cfg, command_line([name, *args])).path))


def report(args: list[str]) -> None:
    from teamtune.report import write_report

    if not asks_for_help("report", args, "write report.md and report.html of a run again"):
        finish(write_report(folder_argument("report", args)))


def show(args: list[str]) -> None:
    from teamtune.report import show_run

    if not asks_for_help("show", args, "what a run holds: stages, counts, the comparison"):
        show_run(folder_argument("show", args))


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
    from teamtune.store import canonical

    print(json.dumps({"options": canonical(cfg, Path(cfg.out)), "plan": plan}, indent=1))


if __name__ == "__main__":
    main()
