"""The dag in GraphML, without positions, for programs that work with graphs: yEd, Gephi, networkx, igraph."""

from __future__ import annotations

import re
from io import BytesIO
from typing import Final

from helixctl.dag import Dag
from helixctl.emit.svg import xml_text

# The text is UTF-8, in which only half of a surrogate pair is written as a number of five digits.
_SURROGATE: Final = re.compile(r"&#5\d{4};")


def graphml(dag: Dag, layer: int | None = None) -> str:
    """GraphML text of ``Dag.to_networkx``: a vertex for every task, an edge for every dependency.

    Args:
        dag: the dag.
        layer: write the tasks of this layer only, and the edges between them; None writes all.
    """
    import networkx as nx  # 0.4 s: for this format alone

    graph = dag.to_networkx()
    # Not subgraph(), which would order the vertices as a set does.
    graph.remove_nodes_from([task.id for task in dag.tasks if layer not in {None, task.layer}])
    text = BytesIO()
    nx.write_graphml_xml(graph, text)
    return xml_text(_SURROGATE.sub("\ufffd", text.getvalue().decode())) + "\n"
