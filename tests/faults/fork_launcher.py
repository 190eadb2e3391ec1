"""A launcher like torchrun on one host that forks its ranks: they share one import of torch, so that 16 start at once.

python -m tests.faults.fork_launcher RANKS PORT INJECTIONS ARGS of helixctl

It acts as torchrun does: every rank has the variables of its rank, and when one fails, the others get SIGTERM. The
exit status is that of the first rank that failed. ``{rank}`` in an argument is the number of the rank; FAULTS_ABSENT is
the number of a rank that is not started.
"""

from __future__ import annotations

import os
import signal
import sys

os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # as helixctl does before it imports torch

import torch.distributed  # noqa: F401  before the fork

import helixctl_runtime.run  # noqa: F401
from helixctl.cli.main import main
from tests.faults.injections import INJECTIONS


def launch(ranks: int, port: str, injections: str, arguments: list[str]) -> int:
    started: dict[int, int] = {}
    for rank in range(ranks):
        if os.environ.get("FAULTS_ABSENT") == str(rank):
            continue
        pid = os.fork()
        if not pid:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
            for injection in filter(None, injections.split(",")):
                name, *its = injection.split(":")
                INJECTIONS[name](*its)
            main([argument.replace("{rank}", str(rank)) for argument in arguments])
        started[pid] = rank
    print("pids", *started, file=sys.stderr, flush=True)
    status = 0
    while started:
        pid, code = os.wait()
        started.pop(pid)
        ended = os.waitstatus_to_exitcode(code)
        if ended and not status:
            status = ended if ended > 0 else 128 - ended
            for other in started:
                os.kill(other, signal.SIGTERM)
                os.kill(other, signal.SIGCONT)
    return status


if __name__ == "__main__":
    # Not sys.exit: taking torch apart takes most of a second, which is not the ranks'.
    os._exit(launch(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]))
