"""What the commands of training programs share: torchrun, and what a forecast of a forward pass says of them."""

from __future__ import annotations

from collections.abc import Sequence

from helixctl.export.serving import heading, quoted
from helixctl.plan import Plan


def torchrun(
    plan: Plan, engine: str, notes: Sequence[str], program: Sequence[str], arguments: Sequence[tuple[str, ...]]
) -> str:
    """A script that starts a program by torchrun on every host of a plan's cluster.

    Args:
        plan: what is trained.
        engine: as ``--to`` has it.
        notes: lines after the heading.
        program: the program, as torchrun has it.
        arguments: its arguments.
    """
    cluster = plan.cluster.only
    launch = ["torchrun", "--nproc-per-node", str(cluster.devices_per_host)]
    if cluster.hosts > 1:
        meet = ['"${NODE_RANK:?the number of this host, from 0}"', '"${MASTER_ADDR:?the address of host 0}"']
        launch += ["--nnodes", str(cluster.hosts), "--node-rank", meet[0], "--master-addr", meet[1]]
        launch += ["--master-port", "29500"]
    said = "# helixctl predicts a forward pass: training takes about three times as long, and more memory"
    return "\n".join(["#!/bin/sh", *heading(plan, engine), *notes, said, quoted([*launch, *program], arguments), ""])
