"""What the command lines of all serving engines are made of: sizes of a workload, replicas on hosts, a script."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from helixctl.plan import Plan

Arguments = Sequence[tuple[str, ...]]  # an option with its value, or alone
_MEET: Final = 29500  # the port at which the hosts of the first replica meet


class Sizes(NamedTuple):
    """What a replica has room for.

    Attributes:
        sequences: that it works on at a time.
        positions: tokens of a sequence in the end, at least one generated one among them.
        tokens: of all sequences in one step of the prefill.
    """

    sequences: int
    positions: int
    tokens: int


class Part(NamedTuple):
    """The devices of a replica on one host.

    Attributes:
        replica, host: their numbers.
        node: the number of the host among those of the replica.
        first: the number of the replica's first host.
        hosts: how many hosts the replica has.
        devices: the numbers of the devices on the host.
        nth: the number of the replica among those of the host.
    """

    replica: int
    host: int
    node: int
    first: int
    hosts: int
    devices: tuple[int, ...]
    nth: int


def sizes(plan: Plan) -> Sizes:
    """What a replica of a plan has room for."""
    work = plan.workload
    sequences = plan.layout.most_sequences(work.batch)
    positions = work.seq_len + (work.output_len or 1)
    return Sizes(sequences, positions, max(sequences, sequences * plan.step().seq_len))


def parts(plan: Plan) -> list[Part]:
    """The replicas, host by host."""
    layout, cluster = plan.layout, plan.cluster
    found: list[Part] = []
    on_host = dict.fromkeys(range(cluster.host_count), 0)
    for replica in range(layout.data):
        ranks = [rank for stage in range(layout.pipeline) for rank in layout.team(stage, replica)]
        hosts = list(dict.fromkeys(cluster.host_of(rank) for rank in ranks))
        for node, host in enumerate(hosts):
            devices = tuple(cluster.place_of(rank) for rank in ranks if cluster.host_of(rank) == host)
            found.append(Part(replica, host, node, hosts[0], len(hosts), devices, on_host[host]))
            on_host[host] += 1
    return sorted(found, key=lambda part: (part.host, part.replica))


def heading(plan: Plan, engine: str) -> list[str]:
    """The first lines of a file: by what, for what it was written."""
    cluster = plan.cluster
    devices = " and ".join(map(str, cluster.kinds))
    return [
        f"# written by helixctl export --to {engine}",
        f"# {plan.model.name} on {cluster.name} ({devices}), {plan.workload}",
        f"# layout {plan.layout}",
    ]


def quoted(command: Sequence[str], arguments: Arguments, indent: str = "", before: str = "") -> str:
    """A command with an option a line. Words that begin with $ or a double quote are left to the shell.

    Args:
        command: its first words.
        arguments: its options.
        indent: of every line.
        before: what stands before the command, as it is.
    """
    words = [" ".join(map(_word, option)) for option in arguments]
    return f"{indent}{before}{' '.join(map(_word, command))}" + "".join(f" \\\n{indent}  {word}" for word in words)


def _word(text: str) -> str:
    return text if text.startswith(("$", '"')) else shlex.quote(text)


def stage_sizes(plan: Plan) -> str | None:
    """The layers of every stage, ``11,10,10``; None where all stages have as many."""
    layout = plan.layout
    found = [len(layout.layers(stage, plan.model)) for stage in range(layout.pipeline)]
    return ",".join(map(str, found)) if len(set(found)) > 1 else None


@dataclass(frozen=True)
class Server:
    """How an engine is started.

    Attributes:
        command: the first words.
        arguments: the options of every replica.
        port: the port of the first replica of a host.
        together: the option by which one command starts all replicas of one host; None: there is none.
        across: the options of a replica over several hosts; of the arguments of ``serve`` (see ``script``) $3 is the
            port at which its hosts meet, $4 the number of the host among them, $5 the address of the first.
        hosts_option: the option that says how many hosts a replica has.
    """

    command: tuple[str, ...]
    arguments: Arguments
    port: int
    together: str | None
    across: Arguments
    hosts_option: str


def script(plan: Plan, engine: str, notes: Sequence[str], server: Server) -> str:
    """A shell script that starts the replicas of a plan: one command where that is enough.

    Else a shell function ``serve`` starts one replica, or its part on one host, and NODE_RANK says which host this is.

    Args:
        plan: what is served.
        engine: as ``--to`` has it.
        notes: lines after the heading.
        server: how the engine is started.
    """
    lines = ["#!/bin/sh", *heading(plan, engine), *notes]
    if plan.model.stored or any(block.stored for block in plan.model.blocks or ()):
        lines.append("# the weights are quantised: the engine reads how from the checkpoint's config")
    replicas, hosts = plan.layout.data, plan.cluster.host_count
    if hosts == 1 and (replicas == 1 or server.together):
        more = [(server.together, str(replicas))] if server.together and replicas > 1 else []
        return "\n".join([*lines, quoted(server.command, [*server.arguments, *more]), ""])
    found = parts(plan)
    if replicas > 1:
        lines.append("# every replica is a server of its own: put a load balancer before their ports")
    options = [*server.arguments, ("--port", '"$2"')]
    if (most := max(part.hosts for part in found)) > 1:
        options += [(server.hosts_option, str(most)), *server.across]
    body = quoted(server.command, options, "  ", 'CUDA_VISIBLE_DEVICES="$1" ')
    cases = [line for host in dict.fromkeys(part.host for part in found) for line in _case(found, host, server.port)]
    number = "${NODE_RANK:?the number of this host, from 0}" if hosts > 1 else "0"
    comment = "serve() { # devices, port, port of its hosts, number among its hosts, first of its hosts"
    return "\n".join([*lines, comment, body, "}", f'case "{number}" in', *cases, "esac", "wait", ""])


def _case(found: Sequence[Part], host: int, port: int) -> list[str]:
    """What is started on one host."""
    lines = [f"{host})"]
    for part in (part for part in found if part.host == host):
        first = f'"${{HOST_{part.first}:?the address of host {part.first}}}"' if part.hosts > 1 else "127.0.0.1"
        devices, meet = ",".join(map(str, part.devices)), _MEET + part.replica
        lines.append(f"  serve {devices} {port + part.nth} {meet} {part.node} {first} & # replica {part.replica}")
    return [*lines, "  ;;"]
