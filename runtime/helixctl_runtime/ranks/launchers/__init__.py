"""Launchers: whether torchrun, srun or one of MPI has started this process, and which rank of how many it is."""
