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

    - A compute task starts when the rank's task before it has ended and the collectives whose outputs it reads have
      ended; the rank stands still for them, in the order of the inputs.
    - A collective is issued when the rank comes to it: after its compute task before, and after the collectives whose
      outputs this one reads, for which the rank stands still as well. The rank goes on at once. The collective begins
      when all its ranks have issued it and on each of them the collective issued before it has ended; it ends for all
      its ranks at the same time.
    - A rank that sends goes on, and waits for it at its next send: what it sends is kept until then.
    - The copies that a task needs (what a collective has brought is unpacked for the task that reads it, what it sends
      is packed) take the rank's time after these waits: a computation is the longer for them, a collective is issued
      later.
    - At the end of its order a rank waits for the collectives that are still on their way, in the order of issue. The
      step ends with the last rank.

    A partial dag has the orders and values of some ranks alone, such as one rank of every pipeline stage. Its
    collectives then wait only for the ranks that are there, and cost what they cost among all of their ranks.

    Where the devices of a host share its cores (``cores_per_host``), tasks go slower while there are too few of them:
    see ``simulate_shared``.

    Raises:
        ValueError: the dag deadlocks; a proved one does not.
    """
    cluster = dag.plan.cluster
    cores, most = cluster.cores_per_host, cluster.devices_per_host * (1 + collective_load(dag).value)
    return simulate_dedicated(dag) if cores is None or cores >= most else simulate_shared(dag, cores)
