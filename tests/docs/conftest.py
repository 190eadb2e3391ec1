"""The folder in which a reader of the pages is, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.kit import make_kit


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kit")
    make_kit(folder)
    return folder
