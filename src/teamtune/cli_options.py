"""Options of a command: from the command line and from files, every mistake in one sentence."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
import yaml

from teamtune.types import TeamtuneError

T = TypeVar("T")


WITH_PRESETS = {"maporl": "maporl", "plan maporl": "maporl", "scorer train": "scorer"}
"""commands that take --preset, and what the files of their presets are called after"""


def options(kind: type[T], name: str, args: list[str], default: T | None = None) -> tuple[T, bool]:
    """The command's options, and whether this is a dry run."""
    recipe = WITH_PRESETS.get(name, "")
    whole = with_preset(recipe, args) if recipe else with_file(args)
    rest = [arg for arg in whole if arg != "--dry-run"]
    given = {} if default is None else {"default": default}
    try:
        return parsed(kind, f"teamtune {name}", rest, **given), "--dry-run" in whole
    except TeamtuneError as error:
        preset = taken(args, "--preset")[1] if recipe else None
        sources = [f"preset {preset}" if preset else "", taken(args, "--config")[1] or ""]
        told = " and ".join(filter(None, sources))
        raise TeamtuneError(f"{error} (options come from {told} too)" if told else str(error)) from error
    except SystemExit:
        preset = f", --preset {'|'.join(presets(recipe))}" if recipe else ""
        print(f"also: --config FILE (YAML, TOML or JSON), --dry-run (options and plan, no work){preset}")
        raise


def parsed(kind: type[T], prog: str, args: Sequence[str], **given: Any) -> T:
    """The options as `kind`. Raises TeamtuneError where tyro would print a box; help is printed as tyro does."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            return tyro.cli(kind, prog=prog, args=list(args), **given)
    except SystemExit as stop:
        if not stop.code:
            sys.stdout.write(out.getvalue())
            raise
        raise TeamtuneError(f"{sentence(err.getvalue())}; see {prog} --help") from stop


def sentence(box: str) -> str:
    """What a box of tyro's says, in one sentence.

    It has a title, a rule of dashes, the message, and perhaps a rule and a list of what was meant.
    """
    parts = re.split(r"^\W*-{9,}\W*$", box, flags=re.MULTILINE)
    message = " ".join((parts[1] if len(parts) > 1 else box).split()).rstrip(".:")
    message = re.sub(r"^Error parsing (--\S+): ", r"\1: ", message)
    message = re.sub(r"^Error parsing \w+: ", "", message)
    message = re.sub(r"^Missing from .*?:", "required options are missing:", message)
    meant = re.findall(r"^\s+(--\S+)", parts[2], flags=re.MULTILINE) if "Perhaps you meant" in box else []
    return f"{message}; perhaps you meant {' or '.join(meant[:3])}" if meant else message


def with_file(args: Sequence[str]) -> list[str]:
    """The arguments with those of `--config FILE` in front, so that the command line wins."""
    rest, config = taken(args, "--config")
    return [*file_arguments(Path(config)), *rest] if config else rest


PRESETS = Path(__file__).parent / "recipes" / "presets"


def presets(recipe: str) -> dict[str, Path | None]:
    """The presets of a recipe by name, and their files; "paper" is a recipe's own defaults."""
    files = {file.stem.removeprefix(f"{recipe}-"): file for file in sorted(PRESETS.glob(f"{recipe}-*.yaml"))}
    return {"paper": None, **files}


def with_preset(recipe: str, args: Sequence[str]) -> list[str]:
    """The arguments with those of `--config FILE`, and in front of all others those of `--preset NAME`."""
    rest, name = taken(args, "--preset", "name")
    whole, filed = taken(with_file(rest), "--preset", "name")  # a file may name one too
    name = name or filed
    there = presets(recipe)
    if name is not None and name not in there:
        raise TeamtuneError(f"{recipe} has no preset {name!r}; there are {', '.join(there)}")
    file = there[name or "paper"]
    if file is None:
        return whole
    # The command line wins over --config, and that over the preset; what a preset says of making a scorer is nothing
    # that a run without one was asked.
    if recipe != "maporl":
        return [*file_arguments(file), *whole]
    unmade = re.search(r"--scorer[ =](grader|none)\b|--scorer-from[ =]", " ".join(whole))
    if unmade:
        return [*file_arguments(file, ["scorer_questions"]), *whole]
    making = _arguments({"making": _mapping(PRESETS / f"scorer-{name}.yaml")["scorer"]}, "")
    return [*file_arguments(file), *making, *whole]


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


def file_arguments(path: Path, without: Sequence[str] = ()) -> list[str]:
    """The options of a file as command-line arguments, so that both are checked by the same rules.

    without: options of the file that are left out.
    """
    return _arguments({name: value for name, value in _mapping(path).items() if name not in without}, "")


def _mapping(path: Path) -> Mapping[str, Any]:
    """What an options file says."""
    if not path.exists():
        raise TeamtuneError(f"no options file at {str(path)!r}; check --config")
    try:
        text = path.read_text()
        data = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except (yaml.YAMLError, tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise TeamtuneError(f"{path} is no valid options file: {' '.join(str(error).split())}") from error
    if not isinstance(data, Mapping):
        raise TeamtuneError(f"{path} must hold options as key: value, not {type(data).__name__}")
    return data


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
