"""The folders that a run makes: for the logs of the ranks, and for itself."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helixctl.errors import HelixError, fail


@contextmanager
def log_folder(wanted: Path | None) -> Iterator[Path]:
    """The folder for the ranks' logs; a temporary one stays only if an error names a file in it."""
    if wanted is not None:
        try:
            wanted.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise fail("HX511", f"cannot make {wanted} for the logs of the ranks: {error.strerror}") from error
        yield wanted
        return
    folder = _made("helixctl-logs-")
    keep = False
    try:
        yield folder
    except HelixError:
        keep = True
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder that exists during the run only."""
    folder = _made("helixctl-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _made(prefix: str) -> Path:
    """A new temporary folder.

    Raises:
        HelixError: HX511, the disk is full, or no folder for temporary files can be written.
    """
    try:
        return Path(tempfile.mkdtemp(prefix=prefix))
    except OSError as error:
        hint = "set TMPDIR to a folder with room"
        raise fail("HX511", f"cannot make a temporary folder: {error.strerror or error}", hint) from error
