"""Being one rank of several: which one, of how many, and where they meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from helixctl.errors import fail

# Ports that jobs share out among themselves, below those that Linux gives to clients.
_FIRST_PORT, _PORTS = 20000, 12000


@dataclass(frozen=True, slots=True)
class Place:
    """This process is one rank of a run that something else started."""

    launcher: str
    rank: int
    world_size: int
    local_rank: int
    rendezvous: str


@dataclass(frozen=True, slots=True)
class Standpoint:
    """What a launcher says of this process.

    Attributes:
        launcher: the command that starts its ranks.
        variable: the one that holds the rank.
        rank: from 0.
        world_size: of how many.
        local_rank: the rank among those on this host.
        local_size: how many ranks are on this host; None where the launcher does not say.
    """

    launcher: str
    variable: str
    rank: int
    world_size: int
    local_rank: int
    local_size: int | None = None

    def __str__(self) -> str:
        return f"{self.variable} makes this process rank {self.rank} of {self.world_size}"

    def place(self, host: str, port: int) -> Place:
        """The place where all meet at this host and port."""
        return Place(self.launcher, self.rank, self.world_size, self.local_rank, f"tcp://{host}:{port}")


def port_of(number: int) -> int:
    """A port that follows from the number of a job, so that all its ranks know it."""
    return _FIRST_PORT + number % _PORTS


def integer(environ: Mapping[str, str], name: str, default: int) -> int:
    """The number in a variable.

    Raises:
        HelixError: HX509, it holds something else.
    """
    text = environ.get(name, "")
    if not text:
        return default
    if not text.isdecimal():
        raise fail("HX509", f"{name} is {text!r}, not a number", f"unset {name}, or set it as the launcher does")
    return int(text)
