"""The first line of an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from helixctl.cli.answer import devices
from tests.cli.command import helixctl
from tests.documents import PAPER, SMALL, TINY, specs

MEMORY = ("high, memory: 4 GB", "low, memory: 1 GB")
PASS = ("--set", "devices_per_host=2", *(word for text in TINY for word in ("--set", text)))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NVIDIA H100 80GB HBM3", "16 H100"),
        ("NVIDIA L40S", "16 L40S"),
        ("NVIDIA GB200 NVL72", "16 GB200"),
        ("NVIDIA GeForce RTX 4090", "16 RTX 4090"),
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


def test_hosts_that_differ_name_the_fullest_device(tmp_path: Path) -> None:
    links = "within_host: {bandwidth: 4 GB/s, latency: 5 us}"
    device = "kind: cpu, memory_bandwidth: 20 GB/s, peak: {float32: 100 GFLOP/s}"
    hosts = [f"{{count: 1, devices: 1, device: {{name: {its}, {device}}}, {links}}}" for its in MEMORY]
    file = tmp_path / "two.cluster.yaml"
    between = "between_hosts: {bandwidth: 1 GB/s, latency: 5 us}"
    file.write_text(f"name: two\nhosts: [{', '.join(hosts)}]\n{between}\n", encoding="utf-8")
    small = [word for text in TINY for word in ("--set", text)]
    first = helixctl("plan", SMALL[0], str(file), *small, "--layout", "data=2").said.splitlines()[0]
    assert " of 1 GB on low, " in first
