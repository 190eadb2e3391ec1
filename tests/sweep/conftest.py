"""One small sweep for all tests of a process, and the browser of the drawings' tests."""

from __future__ import annotations

import pytest

from tests.emit.conftest import browser, driver
from tests.sweep.swept import Swept, made

__all__ = ["browser", "driver"]


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    return made(tmp_path_factory.mktemp("sweep"))
