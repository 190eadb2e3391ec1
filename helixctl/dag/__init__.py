"""What will run: tensors, values, tasks, and the document that holds them."""

from helixctl.dag.document import Dag, Lane, Level, Role, Task, Tensor, Value, dag_from_json
from helixctl.dag.ops import (
    COLLECTIVES,
    Activation,
    Add,
    AllGather,
    AllReduce,
    Attention,
    Broadcast,
    Experts,
    Linear,
    Norm,
    Op,
    Route,
    SendReceive,
)

__all__ = [
    "COLLECTIVES",
    "Activation",
    "Add",
    "AllGather",
    "AllReduce",
    "Attention",
    "Broadcast",
    "Dag",
    "Experts",
    "Lane",
    "Level",
    "Linear",
    "Norm",
    "Op",
    "Role",
    "Route",
    "SendReceive",
    "Task",
    "Tensor",
    "Value",
    "dag_from_json",
]
