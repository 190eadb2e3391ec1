"""The variables that must not reach a test: those of the launcher, CI system or terminal that runs the tests."""

from __future__ import annotations

import os

# Beginnings of their names. The machine that runs the tests may itself be a rank of torchrun or a node of Slurm.
_LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "TORCHELASTIC_", "SLURM_", "OMPI_", "PMI", "MPI_", "MV2_",
              "JSM_", "FLUX_")  # fmt: skip
# pytest-xdist tells its workers how wide its terminal is; what a command prints into a pipe is not wrapped.
_TERMINAL = ("COLUMNS", "LINES")
_OUTER = (*_LAUNCHERS, *_TERMINAL, "GITHUB_", "CI_")


def outer_variables() -> list[str]:
    """The names of those that are set."""
    return [name for name in os.environ if name.startswith(_OUTER)]
