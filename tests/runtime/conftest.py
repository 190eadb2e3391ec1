"""Two test processes share two cores: one torch thread each."""

import os
from collections.abc import Iterator

import pytest
import torch

from tests.cli.command import LAUNCHERS

torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def no_launcher() -> Iterator[None]:
    """The machine that runs the tests may itself be a rank of torchrun or a SLURM node."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(LAUNCHERS):
                patch.delenv(name)
        yield
