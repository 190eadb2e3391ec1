"""Launchers: whether torchrun, srun or one of MPI has started this process, and as which rank of how many."""
