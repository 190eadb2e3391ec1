"""The first line of an answer."""

from __future__ import annotations

import pytest

from helixctl.cli.answer import devices
from tests.cli.command import helixctl
from tests.documents import PAPER, SMALL, TINY, specs

PASS = ("--set", "devices_per_host=2", *(word for text in TINY for word in ("--set", text)))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NVIDIA H100 80GB HBM3", "16 H100"),
        ("NVIDIA L40S", "16 L40S"),
        ("NVIDIA GB200 NVL72", "16 GB200"),
        ("AMD Instinct MI300X", "16 MI300X"),
        ("a card of ours", "16 a card of ours"),
    ],
)
def test_devices_are_named_as_people_do(name: str, said: str) -> None:
    _, cluster, _ = specs(PAPER)
    assert devices(cluster.model_copy(update={"device": cluster.device.model_copy(update={"name": name})})) == said


def test_of_a_pass() -> None:
    first = helixctl("plan", *SMALL, *PASS, "--layout", "groups=2").said.splitlines()[0]
    assert first.startswith("TP 2 on 2 CPU ranks: ")
    assert " a step, " in first
    assert " tokens/s, " in first
    assert " of 1 GB, " in first
    assert first.endswith(" to spare")
