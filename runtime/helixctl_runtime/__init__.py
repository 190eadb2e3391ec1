"""The executor: walks a dag on CPU ranks or GPUs through torch.distributed. It never plans."""

from __future__ import annotations

import os

# How often a thread of libgomp looks for its siblings before it sleeps; by default 300,000 times, some milliseconds.
# Where other processes have a core, that is a time slice lost at every parallel loop: a run of one rank with two
# threads took 38 s beside two busy processes, and takes 4 s with 10,000, which cost nothing on a quiet machine. libgomp
# reads it when torch loads it, which is after this module.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
