"""Writing what a command makes: to a file at once and whole, or to standard output."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from helixctl.errors import fail


def write_output(path: str, data: str | bytes) -> None:
    """Write a file so that it is never seen half-written; ``-`` is standard output.

    Raises:
        HelixError: HX511, it cannot be written.
    """
    raw = data.encode() if isinstance(data, str) else data
    if path == "-":
        sys.stdout.buffer.write(raw)
        sys.stdout.buffer.flush()
        return
    target = Path(path)
    try:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(raw)
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise fail("HX511", f"cannot write {path}: {error.strerror or error}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
