"""The dag in GraphML, for programs that work with graphs: yEd, Gephi, networkx, igraph. No positions are in it."""

from __future__ import annotations

import re
from io import BytesIO
from typing import Final

from helixctl.dag import Dag
from helixctl.emit.svg import as_xml_holds_it

# Written in UTF-8, so that of all characters half a surrogate pair alone comes as a number of five digits.
_SURROGATE: Final = re.compile(r"&#5\d{4};")


def graphml(dag: Dag, layer: int | None = None) -> str:
    """GraphML text of ``Dag.to_networkx``: a vertex for every task, an edge where one reads what another makes.

    Args:
        dag: what is written.
        layer: this layer's tasks alone, with the edges between them.
    """
    import networkx as nx  # 0.4 s: for this format alone

    graph = dag.to_networkx()
    # Not subgraph(), whose order is that of a set.
    graph.remove_nodes_from([task.id for task in dag.tasks if layer not in {None, task.layer}])
    text = BytesIO()
    nx.write_graphml_xml(graph, text)
    return as_xml_holds_it(_SURROGATE.sub("\ufffd", text.getvalue().decode())) + "\n"
