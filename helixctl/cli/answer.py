"""The first line of an answer: what a layout is in the field's terms, how long it takes, and what it holds."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from helixctl.plan import Plan
from helixctl.plan.terms import in_field_terms
from helixctl.simulate import Forecast
from helixctl.solve.verdict import held_by
from helixctl.spec import ClusterSpec
from helixctl.units import counted, human_bytes, human_rate, human_seconds

# What a person calls a GPU, in the name that its maker gives it: H100 of "NVIDIA H100 80GB HBM3".
_MODEL: Final = re.compile(r"\b(?!HBM)(?:RTX \d{4}|[A-Z]{1,3}\d{2,4}[A-Z]{0,2})\b(?!\s*GB)")


def first_line(plan: Plan, found: Forecast) -> str:
    """``TP 4 x DP 2 on 8 H100: 413 ms a prefill, 31 ms a token, 71 of 80 GB, 9 GB to spare``.

    Args:
        plan: whose layout, cluster and workload it is.
        found: its forecast; of a plan with steps that of the generation.
    """
    where = devices(plan.cluster, plan.layout.devices)
    return f"{in_field_terms(plan.layout)} on {where}: {_times(found)}, {memory(plan, found)}"


def devices(cluster: ClusterSpec, used: int | None = None) -> str:
    """``8 H100``, ``4 CPU ranks``: the devices of a cluster, or the first that are used, as people name them."""
    used = cluster.devices if used is None else used
    if cluster.device_kind == "cpu":
        return counted(used, "CPU rank")
    found = Counter(short_name(cluster.device_of(rank).name) for rank in range(used))
    return " and ".join(f"{count} {name}" for name, count in found.items())


def short_name(device: str) -> str:
    """``H100``, of "NVIDIA H100 80GB HBM3"; of a name that has no such word all of it."""
    name = _MODEL.search(device)
    return name[0] if name else device


def _times(found: Forecast) -> str:
    its = found.generation
    if its is None:
        return f"{human_seconds(found.step_s)} a step, {human_rate(found.tokens_per_s)} tokens/s"
    return f"{human_seconds(its.ttft_s)} a prefill, {human_seconds(its.time_per_output_token_s)} a token"


def memory(plan: Plan, found: Forecast) -> str:
    """``71 of 80 GB, 9 GB to spare``: what the fullest device holds, and what it has left beside the reserve.

    Where hosts differ it is the device that has least to spare among those that the layout uses, by its name.
    """
    cluster = plan.cluster
    at_work = [its for its in held_by(found, cluster) if its[1]]
    device, nbytes = min(at_work, key=lambda its: its[0].available - its[1])
    held, of = human_bytes(nbytes), human_bytes(device.memory)
    if held.partition(" ")[2] == of.partition(" ")[2]:
        held = held.partition(" ")[0]
    free = human_bytes(max(0, device.available - nbytes))
    return f"{held} of {of}{f' on {short_name(device.name)}' if cluster.differs else ''}, {free} to spare"
