"""helixctl calibrate: the file it writes, what it prints, and its errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from helixctl.spec.load import load_cluster
from tests.cli.command import helixctl
from tests.documents import PAPER, SMALL


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.sweep)])
def test_ranks_write_a_cluster_file(ranks: int, tmp_path: Path) -> None:
    path, groups = tmp_path / "my.cluster.yaml", range(2, ranks + 1, 2)
    done = helixctl("calibrate", "--ranks", str(ranks), "--quick", "--cluster", SMALL[1], "-o", path)
    assert done.status == 0, done.err
    text = path.read_text()
    assert text.startswith("# yaml-language-server: $schema=")
    assert "# Written by helixctl calibrate" in text
    cluster, base = load_cluster(str(path)), load_cluster(SMALL[1])
    assert cluster.calibration is not None
    assert (cluster.name, cluster.devices_per_host, cluster.within_host) == (
        base.name,
        base.devices_per_host,
        base.within_host,
    )
    assert {(t.kind, t.ranks) for t in cluster.calibration.collectives} == {
        *(
            (kind, group)
            for kind in ("broadcast", "all_to_all", "all_gather", "all_reduce", "reduce_scatter")
            for group in groups
        ),
        ("send_receive", 2),
    }
    assert helixctl("validate", path).status == 0
    for part in (f"{ranks} ranks sharing", "best matrix product, float32", "memory bandwidth", "start of a task",
                 f"all_gather of {ranks} ranks", f"all_reduce of {ranks} ranks, 1.05 MB", f"wrote {path}"):  # fmt: skip
        assert part in done.said + done.err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--ranks", "2"), "Missing option '-o'"),
        (("--ranks", "0", "-o", "x"), "--ranks"),
        (("--timeout", "nan", "-o", "x"), "not a number of seconds"),
        (("--device", "cpu", "--cluster", PAPER[1], "-o", "x"), "is made of cuda devices"),
        (("--cluster", PAPER[0], "-o", "x"), "HX110"),
        (("--cluster", "no.yaml", "-o", "x"), "HX101"),
        (("-o", "no/folder/x.yaml"), "HX511"),
    ],
)
def test_what_it_cannot_begin(args: tuple[str, ...], words: str, tmp_path: Path) -> None:
    done = helixctl("calibrate", *args, cwd=tmp_path)
    assert (done.status in (1, 2), done.out) == (True, b"")
    assert words in done.err
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []
