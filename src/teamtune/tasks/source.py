"""Rows of a data set from wherever they are: a file, a folder, standard input, the hub.

    rows_of("problems.csv")                     one row after another, with its number for error messages
    rows_of("data/gsm8k", "test")               data/gsm8k/test.jsonl.gz, or a folder that `datasets` saved
    rows_of("openai/gsm8k:main", "test")        the hub, through `datasets`
    rows_of("-")                                JSON lines on standard input

A row that cannot be read is given as its error, so that a check can go on to the next; an error that ends the file (a
gzip cut short) comes last.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from teamtune.types import Row, TeamtuneError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
LONGEST = 16 << 20
"""bytes of one line; a longer one is an error and is not read into memory"""


@dataclass(frozen=True, slots=True)
class Raw:
    """One row as it came: its place ("test.csv row 3") and its values, or why it cannot be read."""

    place: str
    row: Row | None
    error: str = ""


def rows_of(source: str, split: str = "") -> Iterator[Raw]:
    """The rows of a source. Raises TeamtuneError where there is no such source, or none of that split."""
    if source == "-":
        return _from_stdin(_piped())
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path, split)
    if path.exists():
        return _file(path)
    if _looks_local(source):
        raise TeamtuneError(f"no data at {source!r}; check the path (a hub name looks like owner/name)")
    return hub_rows(source, split)


@cache
def _piped() -> bytes:
    """Standard input, which can be read once."""
    return sys.stdin.buffer.read()


def _from_stdin(data: bytes) -> Iterator[Raw]:
    """What was piped in, by how it begins: JSON lines, a JSON list, or a table with commas."""
    head = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    if head[:1] in (b"{", b""):
        return _json_lines(io.BytesIO(data), "stdin")
    if head[:1] != b"[":
        return _csv(io.BytesIO(data), "stdin", ".csv")
    try:
        return _objects(json.loads(data.decode("utf-8-sig")), "stdin")
    except (ValueError, RecursionError) as error:
        return iter([Raw("stdin", None, f"not valid JSON: {error}")])


def _looks_local(source: str) -> bool:
    name = source.removesuffix(".gz")
    return source.startswith(("/", ".", "~")) or name.endswith(SUFFIXES) or source.count("/") != 1


def has_split(folder: Path, stem: str) -> Path | None:
    """The file of a split in a folder, by its name without suffixes."""
    for suffix in SUFFIXES:
        for packed in ("", ".gz"):
            if (folder / f"{stem}{suffix}{packed}").is_file():
                return folder / f"{stem}{suffix}{packed}"
    return None


def _folder(folder: Path, split: str) -> Iterator[Raw]:
    if (folder / "dataset_dict.json").exists() or (folder / "dataset_info.json").exists():
        return _saved(folder, split)
    found = has_split(folder, split)
    if found is None:
        there = sorted(path.name for path in folder.iterdir() if path.name.removesuffix(".gz").endswith(SUFFIXES))
        raise TeamtuneError(
            f"{str(folder)!r} has no file for split {split!r}; it holds {', '.join(there[:9]) or 'no data files'}"
        )
    return _file(found)


def _file(path: Path) -> Iterator[Raw]:
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    kind = suffixes[-1].lower() if suffixes else ""
    if kind == ".parquet":
        return _parquet(path)
    if kind not in SUFFIXES:
        raise TeamtuneError(f"{str(path)!r} is of no kind that can be read; the kinds are {', '.join(SUFFIXES)}")
    if kind == ".json":
        return _json(path)
    return _text_file(path, kind)


def _text_file(path: Path, kind: str) -> Iterator[Raw]:
    with _opened(path) as stream:
        rows = _json_lines(stream, path.name) if kind in (".jsonl", ".ndjson") else _csv(stream, path.name, kind)
        count = 0
        try:
            for count, raw in enumerate(rows, start=1):  # noqa: B007
                yield raw
        except (EOFError, zlib.error):
            yield Raw(f"{path.name} after row {count}", None, "the file is cut short (truncated gzip); get it again")
        except gzip.BadGzipFile:
            yield Raw(path.name, None, "the file is no valid gzip; get it again, or drop .gz from its name")


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _json_lines(stream: IO[bytes], name: str) -> Iterator[Raw]:
    number = 0
    while line := stream.readline(LONGEST + 1):
        number += 1
        place = f"{name} row {number}"
        if len(line) > LONGEST:
            while line and not line.endswith(b"\n"):  # the rest of it
                line = stream.readline(LONGEST)
            yield Raw(place, None, f"the line is longer than {LONGEST >> 20} MB")
        elif line.strip():
            yield _json_row(line, place)


def _json_row(line: bytes, place: str) -> Raw:
    try:
        row = json.loads(line.decode("utf-8-sig" if place.endswith(" row 1") else "utf-8"))
    except UnicodeDecodeError as error:
        return Raw(place, None, f"not valid UTF-8 at byte {error.start}")
    except (ValueError, RecursionError) as error:
        return Raw(place, None, f"not valid JSON: {error}")
    return Raw(place, row) if isinstance(row, dict) else Raw(place, None, f"a {type(row).__name__}, not an object")


def _json(path: Path) -> Iterator[Raw]:
    """A file that holds a list of objects, or else JSON lines."""
    try:
        with _opened(path) as stream:
            head = stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    except (EOFError, zlib.error, gzip.BadGzipFile):
        head = b""  # told below
    if not head.startswith(b"["):
        yield from _text_file(path, ".jsonl")
        return
    try:
        with _opened(path) as stream:
            rows = json.loads(stream.read().decode("utf-8-sig"))
    except (ValueError, EOFError, zlib.error, RecursionError) as error:
        yield Raw(path.name, None, f"not valid JSON: {error}")
        return
    yield from _objects(rows, path.name)


def _objects(rows: Iterable[Any], name: str) -> Iterator[Raw]:
    for number, row in enumerate(rows, start=1):
        place = f"{name} row {number}"
        yield Raw(place, row) if isinstance(row, dict) else Raw(place, None, f"a {type(row).__name__}, not an object")


def _bounded(stream: IO[bytes]) -> Iterator[bytes]:
    while line := stream.readline(LONGEST + 1):
        if len(line) > LONGEST:
            raise csv.Error(f"the line is longer than {LONGEST >> 20} MB")
        yield line


def _csv(stream: IO[bytes], name: str, kind: str) -> Iterator[Raw]:
    csv.field_size_limit(LONGEST)
    reader = csv.DictReader(
        codecs.iterdecode(_bounded(stream), "utf-8-sig"), dialect="excel-tab" if kind == ".tsv" else "excel"
    )
    number = 0
    try:
        for number, row in enumerate(reader, start=1):
            place = f"{name} row {number}"
            if None in row:
                yield Raw(
                    place, None, f"more fields than the header's {len(reader.fieldnames or ())}; quote its commas"
                )
            elif None in row.values():
                yield Raw(place, None, "fewer fields than the header")
            else:
                yield Raw(place, dict(row))
    except UnicodeDecodeError:
        yield Raw(f"{name} after row {number}", None, "not valid UTF-8")
    except csv.Error as error:
        yield Raw(f"{name} row {number + 1}", None, f"not valid CSV: {error}")


def _parquet(path: Path) -> Iterator[Raw]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        number = 0
        for batch in pq.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield Raw(f"{path.name} row {number}", row)
    except (pa.ArrowException, OSError) as error:
        yield Raw(path.name, None, f"not valid Parquet: {' '.join(str(error).split())[:200]}")


def _saved(folder: Path, split: str) -> Iterator[Raw]:
    """A folder that `datasets.save_to_disk` wrote; one without splits is one pool."""
    try:
        loaded = _datasets().load_from_disk(str(folder))
    except Exception as error:  # whatever a damaged folder makes `datasets` raise
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise TeamtuneError(f"the saved data set {str(folder)!r} cannot be read ({why}); save it again") from error
    if isinstance(loaded, dict):
        if split not in loaded:
            raise TeamtuneError(f"{str(folder)!r} has no split {split!r}; it has {', '.join(loaded)}")
        loaded = loaded[split]
    return _numbered(loaded, folder.name)


def hub_rows(name: str, split: str) -> Iterator[Raw]:
    """A data set of the hub, "owner/name" or "owner/name:config"."""
    datasets = _datasets()
    repository, _, config = name.partition(":")
    try:
        loaded = datasets.load_dataset(repository, config or None, split=split or None)
    except Exception as error:  # whatever the hub's client raises: offline, gone, gated, no such config or split
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise TeamtuneError(
            f"data set {name!r}, split {split!r}, cannot be had from the hub ({why}); "
            "go online, or give a local copy with --data"
        ) from error
    return _numbered(loaded, name)


def _numbered(rows: Iterable[Any], name: str) -> Iterator[Raw]:
    return (Raw(f"{name} row {number}", dict(row)) for number, row in enumerate(rows, start=1))


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise TeamtuneError(
            "data sets of the hub and saved ones are read by datasets; pip install 'teamtune[eval]'"
        ) from error
    return datasets
