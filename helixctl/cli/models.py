"""helixctl models: the published models that are known by name, and the families of those that are read."""

from __future__ import annotations

from textwrap import wrap
from typing import Final

import click

from helixctl.cli.console import answers, say, table
from helixctl.cli.tables import Column
from helixctl.dag.retype import dequantised
from helixctl.solve.work import LayoutCosts
from helixctl.spec import DTYPE_NBYTES, ModelDocument, ModelSpec
from helixctl.spec.hugging_face import model_types
from helixctl.spec.load import document_path, load_cluster, load_model
from helixctl.spec.named_models import model_names

_WIDTH: Final = 76  # of the list of families


@click.command(name="models", short_help="List the models that have a name.")
def command() -> None:
    """List the published models that MODEL may name: their config.json comes with helixctl.

    A file or a folder of such a name comes first: it has the config of the weights that are in it. Behind them stand
    the families whose config.json is read: what such a file may say in model_type.
    """
    out = answers()
    rows = table(
        "name",
        ">layers",
        Column("hidden", right=True, drop=2),
        Column("heads/kv", right=True, drop=3),
        ">experts",
        ">parameters",
        Column("weights", drop=4),
    )
    for name in model_names():
        document = load_model(document_path(name))
        model, attention, experts = document.model, document.attention, document.feed_forward.experts
        heads = f"{attention.heads}/{attention.kv_heads or attention.heads}"
        number = f"{experts.top_k} of {experts.count}" if experts else "-"
        size = f"{_parameters(document) / 1e9:.2f} B"
        rows.add_row(name, str(model.layers), str(model.hidden_size), heads, number, size, _stored(model))
    out.print(rows)
    out.print()
    out.print("helixctl plan Llama-3.1-8B h100:1x8 --batch 8 --seq-len 2048")
    out.print()
    out.print("config.json files of these model_types are read:")
    say([f"  {line}" for line in wrap(", ".join(model_types()), _WIDTH)])


def _stored(model: ModelSpec) -> str:
    """The numbers of quantised matrices, or else those of all weights."""
    of_blocks = (block.stored for block in model.blocks or ())
    numbers = (spec.number for stored in (model.stored, *of_blocks) for spec in stored or ())
    return ", ".join(dict.fromkeys(numbers)) or model.dtype


def _parameters(document: ModelDocument) -> int:
    """Elements of all weights, each once."""
    costs = LayoutCosts(dequantised(document.model), load_cluster("h100:1"), document.workload)
    return costs.weights_nbytes() // DTYPE_NBYTES[document.dtype]
