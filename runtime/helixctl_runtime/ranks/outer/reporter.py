"""Who reports a failure: one rank of each host to the user, and every rank to torchrun."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from helixctl.errors import HelixError
from helixctl_runtime.ranks.outer.peers import Peers
from helixctl_runtime.ranks.outer.store import address

_ERROR_FILE: Final = "TORCHELASTIC_ERROR_FILE"  # set by torchrun


def is_reporter(peers: Peers) -> bool:
    """Whether this rank reports the failure to the user: the first rank of each host that asks."""
    first = _first_on_this_host(peers.rendezvous)
    if not first or _ERROR_FILE in os.environ:
        return first
    # The mark of _first_on_this_host vanishes with its process, so a rank that has reported may have exited already.
    return peers.claim_reporter()


def write_error_file(error: HelixError) -> None:
    """Write the error into torchrun's error file, so that torchrun's own last lines repeat it."""
    path = os.environ.get(_ERROR_FILE)
    if path:
        word = {"message": str(error), "extraInfo": {"timestamp": str(int(time.time()))}}
        with suppress(OSError):
            Path(path).write_text(json.dumps({"message": word}), encoding="utf-8")


def _first_on_this_host(rendezvous: str) -> bool:
    """Whether this process is the first of this run on this host to ask; always True without Linux or torchrun."""
    try:
        if error_file := os.environ.get(_ERROR_FILE):
            # torchrun has a folder for each rank, in one for this host, run and attempt.
            (Path(error_file).parent.parent / "helixctl.said").touch(exist_ok=False)
        else:
            # An abstract socket: its name is taken until the process ends.
            _marks.append(socket.socket(socket.AF_UNIX))
            _marks[-1].bind(f"\0helixctl {address(rendezvous)}" if sys.platform == "linux" else "")
    except FileExistsError:
        return False
    except OSError as error:
        return error.errno != errno.EADDRINUSE
    return True


_marks: list[socket.socket] = []
