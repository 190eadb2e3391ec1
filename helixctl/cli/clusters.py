"""helixctl clusters: the GPUs that are known by name, and the cluster file of one, to edit."""

from __future__ import annotations

from textwrap import wrap
from typing import Final

import click

import helixctl
from helixctl.cli.console import answers, say, table, wrote
from helixctl.cli.outputs import Output, check_outputs, force_option
from helixctl.cli.schema_comment import schema_comment
from helixctl.cli.tables import Column
from helixctl.errors import Diagnostic, HelixError
from helixctl.output import write_output
from helixctl.spec.load import parse_mapping
from helixctl.spec.named import HOW, NamedCluster, cluster_names, named_cluster, way_to_a_cluster

_WIDTH: Final = 80
_RATES: Final = ("float16", "float32", "float64")  # that of bfloat16 is float16's in every one of them
_READ: Final = (
    "Rates are TFLOP/s of dense matrix products; that of bfloat16 is float16's. Links",
    "are of one GPU, in one direction. Latencies and what is between hosts are",
    "assumptions, the rest is of the datasheets:",
)

_MEASURED: Final = (
    "Steps are predicted by rates that were measured on such GPUs, where there are",
    "any (docs/clusters.md); with --set measured=null by the figures above alone",
)


@click.group(
    name="clusters", invoke_without_command=True, short_help="List the clusters that have a name, or print one."
)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List the GPUs that CLUSTER may name, with their figures and sources.

    h100:2x8 is 2 hosts of 8 H100, h100:8 and 8xH100 are one host of 8. Every command that takes a cluster file takes
    a name as well; a file of such a name is written ./h100:8.
    """
    if ctx.invoked_subcommand is None:
        _list()


@command.command(name="show", short_help="Print the cluster file of a name.")
@click.argument("name")
@click.option("-o", "--output", metavar="FILE", default="-", help="Write it; the default, -, is standard output.")
@force_option
def show(name: str, *, output: str, force: bool) -> None:
    """Print the cluster file that NAME stands for, to edit: helixctl clusters show h100:2x8 -o my.cluster.yaml.

    It gives the same plans as the name does, to the digest. Its comments have the source of every figure.
    """
    check_outputs([Output("-o", output, "cluster file")], (), force=force)
    found = named_cluster(name)
    if found is None:
        raise HelixError(Diagnostic("HX110", "names no cluster", way_to_a_cluster(name), name))
    written = f"# Written by helixctl clusters show {found}, helixctl {helixctl.__version__}."
    write_output(output, "\n".join([*schema_comment(output), written, found.text]))
    wrote(output, f"cluster {found.name}")


def _list() -> None:
    out = answers()
    rows = table(
        "name",
        "memory",
        Column("bandwidth", drop=2),
        *(Column(name, right=True, drop=turn) for name, turn in zip(_RATES, (None, 1, 3), strict=True)),
        "in a host",
        "between hosts",
    )
    sources = []
    for gpu in cluster_names():
        found = NamedCluster(gpu, 1, 1)
        cluster = parse_mapping(found.text, gpu)
        device = cluster["device"]
        rates = [device["peak"].get(name, "-").partition(" ")[0] for name in _RATES]
        links = [cluster[link]["bandwidth"] for link in ("within_host", "between_hosts")]
        rows.add_row(gpu, device["memory"], device["memory_bandwidth"], *rates, *links)
        sources += wrap(f"{gpu}: {device['name']}; {found.source}", _WIDTH, subsequent_indent=" " * 6)
    out.print(rows)
    out.print()
    say(
        [
            *_READ,
            *sources,
            "",
            f"{HOW};",
            "helixctl clusters show h100:2x8 prints the file, with the source of every figure",
            "",
            *_MEASURED,
        ]
    )
