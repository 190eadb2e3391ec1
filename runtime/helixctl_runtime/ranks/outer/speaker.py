"""Who says what has happened: one rank of each host to the user, and each to torchrun."""

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


def speaks(peers: Peers) -> bool:
    """Whether this rank is to say what happened: the first that asks on each host."""
    first = _first_on_this_host(peers.rendezvous)
    if not first or _ERROR_FILE in os.environ:
        return first
    # The first mark goes with its process, so who said it may have left already.
    return peers.asks_first()


def leave_word(error: HelixError) -> None:
    """Tell torchrun why, so that its own last lines say it too."""
    path = os.environ.get(_ERROR_FILE)
    if path:
        word = {"message": str(error), "extraInfo": {"timestamp": str(int(time.time()))}}
        with suppress(OSError):
            Path(path).write_text(json.dumps({"message": word}), encoding="utf-8")


def _first_on_this_host(rendezvous: str) -> bool:
    """Whether no other process of this run on this host was here before; neither Linux nor torchrun: always so."""
    try:
        if error_file := os.environ.get(_ERROR_FILE):
            # torchrun has a folder for each rank, in one for this host, run and attempt.
            (Path(error_file).parent.parent / "helixctl.said").touch(exist_ok=False)
        else:
            # A name that goes with the process.
            _marks.append(socket.socket(socket.AF_UNIX))
            _marks[-1].bind(f"\0helixctl {address(rendezvous)}" if sys.platform == "linux" else "")
    except FileExistsError:
        return False
    except OSError as error:
        return error.errno != errno.EADDRINUSE
    return True


_marks: list[socket.socket] = []
