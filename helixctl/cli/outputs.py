"""Where commands write: never onto what they read, and onto another file only if it is of the same kind (or --force).

It is asked before any work is done whose result would be lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from helixctl.cli.replaced import Kind, holds
from helixctl.errors import fail
from helixctl.output import check_folder
from helixctl.records import record
from helixctl.spec.load import document_path

F = TypeVar("F", bound=Callable[..., Any])
_INDEX: Final = "model.safetensors.index.json"


@record
class Output:
    """A file that a command was asked to write: the option, its path or None, and what will be in it."""

    option: str
    path: str | None
    kind: Kind


def force_option(command: F) -> F:
    """Add ``--force`` to a command that writes files."""
    text = "Replace the file even where it holds something else."
    return click.option("--force", is_flag=True, help=text)(command)


def check_outputs(outputs: Sequence[Output], inputs: Sequence[str | None], *, force: bool) -> None:
    """See that the outputs can be written, and that nothing is lost by it.

    Args:
        outputs: what the command was asked to write.
        inputs: the files and folders that it reads; of a folder the config.json and the weights in it.
        force: replace other files than those of the command.

    Raises:
        HelixError: HX511.
        click.UsageError: two outputs go to one place.
    """
    asked = [(output, output.path) for output in outputs if output.path is not None]
    for (one, first), (other, second) in combinations(asked, 2):
        if first == second == "-" or _same(first, second):
            raise click.UsageError(f"{one.option} and {other.option} cannot go to the same place")
    read = [file for path in inputs if path not in {None, "-"} for file in _files(str(path))]
    for output, path in asked:
        check_folder(path)
        for file in read:
            if _same(path, file):
                message = f"cannot write {path}: the command reads it" + ("" if path == file else f" ({file})")
                raise fail("HX511", message, f"give {output.option} another name")
        if not force and path != "-" and Path(path).is_file() and not _may_replace(path, output.kind):
            message = f"cannot write {path}: it holds something else than a {output.kind}, and would be lost"
            raise fail("HX511", message, f"give {output.option} another name, or replace the file with --force")


def _may_replace(path: str, kind: Kind) -> bool:
    try:
        return holds(Path(path), kind)
    except OSError:  # it may be written and not read
        return False


def _files(path: str) -> list[str]:
    """The files that a path stands for, as far as they are there."""
    try:
        folder = Path(path).is_dir()
    except ValueError:  # a null byte, which reading will say
        return []
    if not folder:
        return [path, *_shards(Path(path))]
    weights = [str(Path(path) / name) for name in ("model.safetensors", _INDEX)]
    return [document_path(path), *weights, *_shards(Path(path) / _INDEX)]


def _shards(index: Path) -> list[str]:
    """The files of weights that an index names, if it is one."""
    if not index.name.endswith(".index.json"):
        return []
    try:
        named = set(json.loads(index.read_bytes())["weight_map"].values())
        return [str(index.parent / name) for name in sorted(named)]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # none: reading it will say so
        return []


def _same(one: str, other: str) -> bool:
    """Whether two paths lead to one file that a write would replace, also through links; not of devices and pipes."""
    if "-" in {one, other}:
        return False
    first, second = Path(one), Path(other)
    try:
        if first.exists() and second.exists():
            return first.is_file() and first.samefile(second)
        return first.resolve() == second.resolve()
    except (OSError, RuntimeError, ValueError):  # what cannot be looked at is said where it is opened
        return False
