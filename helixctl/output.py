"""Writing the output of a command: to a file, whole or not at all, or to standard output."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from helixctl.errors import HelixError, fail

SIGNATURE: Final = b"helixctl"  # in a picture that Graphviz makes for us: the next one may take its place


def write_output(path: str, data: str | bytes) -> None:
    """Write a file in one step, so that a reader never sees half of it.

    Args:
        path: the file; ``-`` is standard output.
        data: its content.

    Raises:
        HelixError: HX511, it cannot be written.
    """
    content = data.encode() if isinstance(data, str) else data
    try:
        if path == "-":
            # As bytes, so that the output equals a file's content in any encoding of the terminal.
            if sys.stdout is None:
                raise fail("HX511", "cannot write standard output: it is closed")
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        elif _is_special(path):
            Path(path).write_bytes(content)  # /dev/stdout or a named pipe must not be replaced
        else:
            _replace(_resolved(path), content)
    except BrokenPipeError:
        raise  # the reader of standard output has closed it, which is not an error of the output
    except OSError as error:
        raise cannot_write(path, error) from error


def check_folder(path: str | None) -> None:
    """Check that a file can be written, before the work whose result it will hold.

    Args:
        path: the file; None and ``-`` (standard output) need no check.

    Raises:
        HelixError: HX511, the folder does not exist or cannot be written.
    """
    if path in (None, "-") or _is_special(str(path)):
        return
    if path == "":
        raise fail("HX511", "cannot write to an empty path", "is a variable of the shell not set?")
    target = _resolved(str(path))
    folder = target.parent
    if target.is_dir():
        raise fail("HX511", f"cannot write {path}: it is a folder")
    if not folder.is_dir():
        raise fail("HX511", f"cannot write {path}: {folder} is no folder", "create the folder first")
    if not os.access(folder, os.W_OK):
        raise fail("HX511", f"cannot write {path}: {folder} is not writable")


def _resolved(path: str) -> Path:
    """The target of a path: a link is followed, not replaced."""
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise fail("HX511", f"cannot write {path}: {error}") from error


def _is_special(path: str) -> bool:
    """Whether a path is a device or a pipe, which must not be resolved: /dev/stdout leads to a pipe without a path."""
    try:
        return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)  # noqa: PTH110, PTH112, PTH113
    except ValueError:  # a null byte, which the write will report
        return False


def _replace(target: Path, content: bytes) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o7777)
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def cannot_write(path: str, error: OSError) -> HelixError:
    """HX511, an output cannot be written.

    Args:
        path: the file; ``-`` is standard output.
        error: what the system said.
    """
    name = "standard output" if path == "-" else path
    hint = "create the folder first" if isinstance(error, FileNotFoundError) else None
    return fail("HX511", f"cannot write {name}: {error.strerror or error}", hint)
