"""Simulation of one step of a dag on its cluster."""

from __future__ import annotations

from helixctl.cost.tasks import collective_load
from helixctl.dag import Dag
from helixctl.simulate.dedicated import simulate_dedicated
from helixctl.simulate.shared import simulate_shared
from helixctl.simulate.timeline import Timeline


def simulate(dag: Dag) -> Timeline:
    """Predict when every task of a step runs, as the executor runs it.

    Every rank issues its tasks in its order, and has two lanes:

    - A computation starts when the rank's previous task and the collectives that make its inputs have ended; the rank
      waits for these collectives in the order of the inputs.
    - A collective is issued when the rank reaches it: after the rank's previous computation, and after the collectives
      that make its inputs, for which the rank waits as well. The rank then continues at once. The collective begins
      when all its ranks have issued it and, on each of them, the previous collective has ended; it ends at the same
      time for all its ranks.
    - A rank that sends continues, and waits for the send at its next send: the data is kept until then.
    - The copies of a task take the rank's time after these waits: data that a collective has received is unpacked for
      the task that reads it, and data to send is packed. They prolong a computation, and delay the issue of a
      collective.
    - At the end of its order a rank waits for the collectives that are still in flight, in the order of issue. The
      step ends with the last rank.

    A partial dag has the orders and values of some ranks only, such as one rank of every pipeline stage. Its
    collectives wait only for these ranks, and cost as much as among all of their ranks.

    If the devices of a host share its cores (``cores_per_host``), tasks slow down while cores are scarce: see
    ``simulate_shared``.

    Args:
        dag: the dag; it may be partial.

    Raises:
        ValueError: the dag deadlocks; a proved one does not.
    """
    load = collective_load(dag).value
    scarce = any(
        kind.cores_per_host is not None and kind.cores_per_host < kind.devices_per_host * (1 + load)
        for kind in dag.plan.cluster.kinds
    )
    return simulate_shared(dag) if scarce else simulate_dedicated(dag)
