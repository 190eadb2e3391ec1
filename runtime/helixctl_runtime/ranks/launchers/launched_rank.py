"""Which rank this process is, of how many, and where the ranks meet, if a launcher has started several processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from helixctl.errors import fail

# Jobs spread over these ports by their number; they are below the ports that Linux gives to clients.
_FIRST_PORT, _PORTS = 20000, 12000


@dataclass(frozen=True, slots=True)
class LaunchedRank:
    """This process as one rank of a run that an outer launcher started.

    Attributes:
        launcher: the command that started the ranks.
        rank, world_size, local_rank: its number, the number of all ranks, and its number on this host.
        rendezvous: the ``init_method`` through which the ranks find each other.
    """

    launcher: str
    rank: int
    world_size: int
    local_rank: int
    rendezvous: str


@dataclass(frozen=True, slots=True)
class DeclaredRank:
    """The rank that a launcher's variables declare this process to be, before it is known where the ranks meet.

    Attributes:
        launcher: the command that starts its ranks.
        variable: the environment variable that holds the rank.
        rank: the rank, counted from 0.
        world_size: the number of all ranks.
        local_rank: the rank among those on this host.
        local_size: the number of ranks on this host; None if the launcher does not set it.
    """

    launcher: str
    variable: str
    rank: int
    world_size: int
    local_rank: int
    local_size: int | None = None

    def __str__(self) -> str:
        return f"{self.variable} makes this process rank {self.rank} of {self.world_size}"

    def meeting_at(self, host: str, port: int) -> LaunchedRank:
        """This rank of a run that meets at a host and port."""
        return LaunchedRank(self.launcher, self.rank, self.world_size, self.local_rank, f"tcp://{host}:{port}")


def job_port(number: int) -> int:
    """The port of a job, worked out from its number, so that all its ranks know it."""
    return _FIRST_PORT + number % _PORTS


def integer(environ: Mapping[str, str], name: str, default: int) -> int:
    """The number in a variable.

    Args:
        environ: the environment.
        name: the variable.
        default: the result if the variable is empty or not set.

    Raises:
        HelixError: HX509, the variable holds something else than a number.
    """
    text = environ.get(name, "")
    if not text:
        return default
    if not text.isdecimal():
        raise fail("HX509", f"{name} is {text!r}, not a number", f"unset {name}, or set it as the launcher does")
    return int(text)
