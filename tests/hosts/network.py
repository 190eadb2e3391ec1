"""Two hosts on one machine: network namespaces with a cable between them, each with its own host name."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

NAMES = ("hosta", "hostb")


def missing() -> str | None:
    """Why this machine cannot have such hosts; None if it can."""
    if os.geteuid():
        return "network namespaces need root"
    lacking = [tool for tool in ("ip", "unshare", "hostname") if not shutil.which(tool)]
    if lacking:
        return f"{' and '.join(lacking)} not installed"
    # Containers often have a root who may not do this.
    probe = f"hx{os.getpid()}p"
    done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"ip netns add: {done.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", probe], check=True)
    return None


class Network:
    """Both hosts and their cable; the end of ``with`` removes them, and kills the processes in them."""

    def __init__(self) -> None:
        self._spaces = [f"hx{os.getpid()}{letter}" for letter in "ab"]
        self.interface = "cable"
        self.addresses = ("10.77.0.1", "10.77.0.2")

    def __enter__(self) -> Self:
        try:
            for space in self._spaces:
                _ip("netns", "add", space)
            # The cable is made inside one namespace, so that its name is not visible outside.
            first, second = self._spaces
            _ip("-n", first, "link", "add", self.interface, "type", "veth", "peer", self.interface, "netns", second)
            for space, address in zip(self._spaces, self.addresses, strict=True):
                _ip("-n", space, "address", "add", f"{address}/24", "dev", self.interface)
                _ip("-n", space, "link", "set", "lo", "up")
                _ip("-n", space, "link", "set", self.interface, "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for space in self._spaces:
            found = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=False)
            for pid in found.stdout.split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)

    def on(self, host: int, command: Sequence[str | Path]) -> list[str | Path]:
        """The command that runs another command on a host."""
        inside = ["sh", "-c", f'hostname {NAMES[host]} && exec "$@"', "sh"]
        return ["ip", "netns", "exec", self._spaces[host], "unshare", "--uts", *inside, *command]

    def cut(self) -> None:
        """Pull the cable: packets are lost, and no connection is closed."""
        _ip("-n", self._spaces[1], "link", "set", self.interface, "down")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
