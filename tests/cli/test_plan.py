"""helixctl plan: the paper's command, streams, exit statuses, and what it imports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import helixctl, modules
from tests.documents import PAPER, ROOT, SMALL, SMALL_MOE
from tests.fork import replacing

HEAVY = {"torch", "numpy", "networkx", "safetensors"}
PAIR = ("--plain", "--groups", "4", "--slices", "4")  # where the layout is of no concern: nothing is searched


def test_the_paper_s_command_gives_the_same_bytes_twice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        outputs = ("-o", tmp_path / f"{name}.plan.json", "--dag", tmp_path / f"{name}.dag.json")
        done = helixctl("plan", *PAPER, "--plain", "--groups", "4", "--slices", "4", *outputs)
        assert done.status == 0
        assert [line.split(":")[0] for line in done.err.splitlines()] == [f"wrote {p}" for p in outputs[1::2]]
    for kind in ("plan", "dag"):
        text = (tmp_path / f"a.{kind}.json").read_bytes()
        assert text == (tmp_path / f"b.{kind}.json").read_bytes()
        made, shipped = json.loads(text), json.loads((ROOT / f"plans/paper/dense.4x4.{kind}.json").read_bytes())
        asked = {"layout": {"groups": 4, "slices": 4}, "plain": True}
        assert made == (shipped | {"asked": asked} if kind == "plan" else shipped)


def test_the_table_says_why_of_every_layout() -> None:
    done = helixctl("plan", *PAPER, "--plain")
    for layout, text in (
        ("16 x 1", "chosen: the fastest searched that fits"),
        ("8 x 2", "slower: communication of concat"),
        ("4 x 4", "slower: communication of concat"),
        ("2 x 8, slicing batch", "slower: communication of "),
        ("1 x 16, slicing batch", "slower: communication of "),
    ):
        assert any(layout in line and text in line for line in done.said.splitlines()), layout
    assert "no layout with m > 1" not in done.said
    assert "another function than softmax_slices 1" in done.said
    assert "predicted" in done.said


def test_stdout_carries_only_what_is_asked_for() -> None:
    done = helixctl("plan", *SMALL, "--layout", "groups=4", "-o", "-")
    assert json.loads(done.out)["layout"]["groups"] == 4
    assert "asked for (groups 4)" in done.err
    quiet = helixctl("plan", *SMALL, *PAIR, "-q")
    assert (quiet.out, quiet.err) == (b"", "")


def test_set_overrides_any_field() -> None:
    sets = ("--set", "attention.softmax_slices=16", "--set", "hosts=2", "--set", "devices_per_host=8",
            "--set", "between_hosts.bandwidth=1 GB/s", "--set", "between_hosts.latency=9 us")  # fmt: skip
    done = helixctl("plan", *SMALL, *sets, "--plain", "--groups", "1", "--batch", "4", "--seq-len", "3", "-o", "-")
    plan = json.loads(done.out)
    assert plan["layout"]["slices"] == 16
    assert plan["workload"] == {"batch": 4, "seq_len": 3}
    assert plan["cluster"]["between_hosts"] == {"bandwidth": "1 GB/s", "latency": "9 us"}


@pytest.mark.parametrize(
    ("args", "status", "text"),
    [
        (
            (*SMALL, "--layout", "groups=2,slices=8,slicing=head_dim"),
            1,
            "HX202 layout 2 x 8: 8 slices would cut a softmax of 8 dims",
        ),
        (
            (
                *SMALL,
                "--set",
                "attention.heads=28",
                "--set",
                "attention.softmax_slices=1",
                "--layout",
                "data=1,pipeline=1,slicing=head_dim",
            ),
            0,
            "16 x 1",
        ),
        (
            (
                *SMALL,
                "--set",
                "attention.heads=1",
                "--set",
                "attention.softmax_slices=1",
                "--batch",
                "1",
                "--seq-len",
                "1",
            ),
            1,
            "HX201",
        ),
        ((*PAPER, "--set", "device.memory=1 GB", "--batch", "100000", "--layout", "microbatches=4"), 1, "HX203"),
        pytest.param(
            *((*PAPER, "--set", "device.memory=1 GB", "--batch", "100000"), 1, "HX203"), marks=pytest.mark.sweep
        ),
        ((*SMALL, "--set", "attention.softmax_slice=4"), 2, "did you mean"),
        ((SMALL[1], SMALL[0]), 2, "HX110"),
        (("nowhere.yaml", SMALL[1]), 2, "HX101"),
        ((SMALL[0],), 2, "Missing argument"),
        ((*SMALL, "--groups", "0"), 2, "Invalid value"),
        ((*SMALL, "-o", "/nowhere/x.json"), 2, "HX511"),
    ],
)
def test_exit_status(args: tuple[str, ...], status: int, text: str) -> None:
    done = helixctl("plan", *args)
    assert done.status == status
    assert text in (done.err if status else done.said)
    assert "Traceback" not in done.err


def test_routing_is_an_option_and_a_field(tmp_path: Path) -> None:
    """It is in the plan, in the notes and in the report; the layout that is priced lowest may be another."""
    path, report = tmp_path / "x.plan.json", tmp_path / "r.json"
    given = ("plan", *SMALL_MOE, "--plain", "--groups", "4", "--slices", "2", "--set", "devices_per_host=8")
    done = helixctl(*given, "--routing", "power_law(1.20)", "-o", path, "--json", report)
    assert done.status == 0, done.err
    assert "experts are priced for the fullest device under power_law(1.2);" in done.said
    assert json.loads(path.read_text())["workload"]["routing"] == "power_law(1.2)"
    assert json.loads(report.read_text())["workload"]["routing"] == "power_law(1.2)"
    even = helixctl(*given, "--set", "workload.routing=even", "-o", path, "--force")
    assert "experts are priced for an even routing;" in even.said
    assert "routing" not in json.loads(path.read_text())["workload"]


def test_planning_imports_nothing_heavy() -> None:
    assert not HEAVY & modules("from helixctl.cli.main import _status\n_status(['--help'])")
    assert not HEAVY & modules(f"from helixctl.cli.main import _status\n_status(['plan', *{PAPER!r}, '-q', '-o', '-'])")


def test_help_and_version() -> None:
    for flag in ("-h", "--help"):
        done = helixctl(flag)
        assert done.status == 0
        assert all(command in done.out.decode() for command in ("plan", "validate", "visualize", "run"))
    assert helixctl("--version").out.startswith(b"helixctl, version ")
    assert helixctl("plan", "-h").status == 0
    assert helixctl("plam").status == 2


@pytest.mark.parametrize(
    ("args", "status", "text"),
    [
        (("--groups", "4", "--layout", "groups=8"), 2, "groups given twice"),
        (("--layout", "combine=reduce,combine=concat"), 2, "HX107 --layout names combine twice"),
        (("--layout", "pipeline=two"), 2, "pipeline must be a valid integer, not 'two'"),
        (("-o", "x", "--dag", "x"), 2, "cannot go to the same place"),
        (("--set", "layers=20000"), 2, "HX105"),
        (("--set", "devices_per_host=1000000"), 2, "HX105"),
    ],
)
def test_what_contradicts_itself_or_is_beyond_bounds(args: tuple[str, ...], status: int, text: str) -> None:
    done = helixctl("plan", *SMALL, *args)
    assert done.status == status
    assert text in done.err


def test_links_and_devices_are_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert helixctl("plan", *SMALL, *PAIR, "-q", "-o", tmp_path / "link", "--force").status == 0
    assert (tmp_path / "link").is_symlink()
    assert json.loads((tmp_path / "real").read_text())["layout"]
    assert helixctl("plan", *SMALL, *PAIR, "-q", "-o", "/dev/null").status == 0
    assert Path("/dev/null").is_char_device()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "HX511" in helixctl("plan", *SMALL, "-o", tmp_path / "loop").err


def test_a_dag_that_is_too_long_to_be_read_is_not_written(tmp_path: Path) -> None:
    args = ("plan", *SMALL, "--plain", "--groups", "4", "--slices", "4", "-o", tmp_path / "x.plan.json", "--dag")
    assert helixctl(*args, tmp_path / "x.dag.json").status == 0
    for limit, size in (("documents.MAX_DAG_NBYTES", 2**18), ("api.MANY_TASKS", 600)):
        (tmp_path / "x.plan.json").unlink()
        done = helixctl(*args, tmp_path / "y.dag.json", before=replacing(f"helixctl.{limit}", size))
        assert done.status == 1
        assert "HX305 layout 4 x 4: the document of its dag has " in done.err
        assert "write the plan alone" in done.err
        assert not (tmp_path / "y.dag.json").exists()
        assert not (tmp_path / "x.plan.json").exists()
        (tmp_path / "x.plan.json").touch()
    drawn = ("visualize", tmp_path / "p.plan.json", "-f", "json", "-o", tmp_path / "z.dag.json")
    plain = ("--plain", "--groups", "4", "--slices", "4")
    assert helixctl("plan", *SMALL, *plain, "-q", "-o", tmp_path / "p.plan.json").status == 0
    less = replacing("helixctl.documents.MAX_DAG_NBYTES", 2**18)
    assert "HX305" in helixctl(*drawn, before=less).err
    assert not (tmp_path / "z.dag.json").exists()


def test_groups_and_slices_are_short_for_axes_of_the_layout(tmp_path: Path) -> None:
    """They search the same space; --plain searches another, and says what it keeps."""
    said = {}
    for name, options in {
        "short": ("--groups", "4", "--slices", "2"),
        "axes": ("--layout", "groups=4,slices=2"),
        "plain": ("--plain", "--groups", "4", "--layout", "data=2"),
    }.items():
        done = helixctl("plan", *PAPER, *options, "-o", tmp_path / f"{name}.plan.json")
        said[name] = [line for line in done.said.splitlines() if line[:3] in {"*  ", "sea", "eve"}]
    assert said["short"] == said["axes"]
    assert (tmp_path / "short.plan.json").read_bytes() == (tmp_path / "axes.plan.json").read_bytes()
    assert "searched " in said["short"][1]
    assert "4 x 2, data 2 " in said["plain"][0]
    assert said["plain"][1].startswith("every axis is fixed, so that no other layout was simulated")
