"""No command replaces a file that it reads, or a file of another kind; the error comes before any work is done."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from helixctl.cli.replaced import holds
from helixctl.cli.visualize import _KINDS
from helixctl.emit import FORMATS
from helixctl.report import FORMATS as REPORTS
from helixctl_runtime.tensors.tensor_source import write_tensor
from tests.cli.command import Done, helixctl
from tests.documents import ROOT, SMALL

NOTES = "my notes\nHX is a nice prefix\n"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with specs, a plan, a dag, a model folder, and somebody's notes under the names of documents."""
    shutil.copy(SMALL[0], tmp_path / "m.yaml")
    shutil.copy(SMALL[1], tmp_path / "c.yaml")
    shutil.copy(ROOT / "plans/small/dense.4x4.plan.json", tmp_path / "p.json")
    shutil.copy(ROOT / "plans/small/dense.4x4.dag.json", tmp_path / "d.json")
    (tmp_path / "model").mkdir()
    shutil.copy(ROOT / "plans/models/Llama-3.1-8B/config.json", tmp_path / "model/config.json")
    for name in ("notes.plan.json", "notes.txt", "notes.html", "notes.yaml"):
        (tmp_path / name).write_text(NOTES)
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    (tmp_path / "ids.safetensors").write_bytes(b"ids")
    (tmp_path / "report.json").write_text('{"report": "helixctl run"}')
    return tmp_path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


PLAN = ("plan", "m.yaml", "c.yaml", "--plain", "--groups", "4", "--slices", "4")
INPUTS = [
    (*PLAN, "-o", "m.yaml"),
    (*PLAN, "-o", "./c.yaml"),
    (*PLAN, "--dag", "c.yaml"),
    (*PLAN, "--json", "m.yaml"),
    (*PLAN, "--check", "p.json", "--json", "p.json"),
    (*PLAN, "-o", "link.yaml"),
    (*PLAN, "-o", "hard.yaml"),
    ("plan", "linked", "c.yaml", "-o", "model/config.json"),
    ("plan", "model", "c.yaml", "-o", "model/config.json"),
    ("validate", "p.json", "-o", "p.json"),
    ("validate", "m.yaml", "d.json", "-o", "d.json"),
    ("visualize", "d.json", "-o", "d.json"),
    ("visualize", "p.json", "-o", "p.json"),
    ("visualize", "p.json", "--report", "report.json", "-f", "html", "-o", "report.json"),
    ("simulate", "p.json", "--json", "p.json"),
    ("simulate", "p.json", "--trace", "p.json"),
    ("simulate", "p.json", "--against", "report.json", "--json", "report.json"),
    ("run", "p.json", "--report", "p.json"),
    ("run", "p.json", "--trace", "p.json"),
    ("run", "p.json", "--weights", "w.safetensors", "--output", "w.safetensors"),
    ("run", "p.json", "--input", "ids.safetensors", "--output", "ids.safetensors"),
    ("calibrate", "--cluster", "c.yaml", "-o", "c.yaml"),
    ("export", "p.json", "--to", "slurm", "-o", "p.json"),
    ("export", "x.0.et", "--to", "chakra", "-o", "x"),
]


@pytest.mark.parametrize("args", INPUTS, ids=" ".join)
@pytest.mark.parametrize("force", [(), ("--force",)], ids=["", "force"])
def test_an_input_is_never_replaced(files: Path, args: tuple[str, ...], force: tuple[str, ...]) -> None:
    (files / "link.yaml").symlink_to("m.yaml")
    os.link(files / "c.yaml", files / "hard.yaml")
    (files / "linked").symlink_to("model")
    (files / "x.0.et").symlink_to("p.json")
    before = tree(files)
    done = helixctl(*args, *force, cwd=files)
    assert done.status == 2
    assert "HX511" in done.err
    assert "the command reads it" in done.err
    assert tree(files) == before


OTHERS = [
    (*PLAN, "-o", "notes.plan.json"),
    (*PLAN, "-o", "d.json"),
    (*PLAN, "-o", "notes.txt"),
    (*PLAN, "--dag", "p.json"),
    (*PLAN, "--json", "report.json"),
    (*PLAN, "--dag", "report.json"),
    ("validate", "p.json", "-o", "notes.txt"),
    ("validate", "p.json", "-f", "json", "-o", "report.json"),
    ("validate", "p.json", "-f", "sarif", "-o", "d.json"),
    ("visualize", "p.json", "-o", "notes.html"),
    ("visualize", "p.json", "-f", "svg", "-o", "m.yaml"),
    ("simulate", "p.json", "--json", "report.json"),
    ("simulate", "p.json", "--trace", "d.json"),
    ("run", "p.json", "--report", "notes.txt"),
    ("run", "p.json", "--output", "w.safetensors"),
    ("calibrate", "-o", "notes.yaml"),
    ("calibrate", "-o", "m.yaml"),
    ("export", "p.json", "--to", "slurm", "-o", "m.yaml"),
]  # fmt: skip


@pytest.mark.parametrize("args", OTHERS, ids=" ".join)
def test_another_file_is_replaced_by_force_alone(files: Path, args: tuple[str, ...]) -> None:
    before = tree(files)
    done = helixctl(*args, cwd=files)
    assert done.status == 2
    assert "HX511" in done.err
    assert "it holds something else than a" in done.err
    assert "--force" in done.err
    assert tree(files) == before


@pytest.mark.parametrize("args", [a for a in OTHERS if a[0] not in {"run", "calibrate"}], ids=" ".join)
def test_force_replaces_it(files: Path, args: tuple[str, ...]) -> None:
    before = tree(files)
    assert helixctl(*args, "--force", cwd=files).status == 0
    after = tree(files)
    assert [name for name in before if before[name] != after[name]] == [args[-1]]


def again(args: tuple[str, ...], cwd: Path) -> list[Done]:
    return [helixctl(*args, cwd=cwd) for _ in range(2)]


@pytest.mark.parametrize(
    "args",
    [
        (*PLAN, "-o", "x.plan.json", "--dag", "x.dag.json", "--json", "x.json"),
        *(("visualize", "p.json", "-o", f"x.{name}", "--layer", "0") for name in FORMATS if name != "json"),
        ("visualize", "p.json", "-o", "x.json"),
        ("simulate", "p.json", "--json", "x.json", "--trace", "t.json"),
        *(("validate", ".", "-f", name, "-o", "x.txt") for name in REPORTS),
        ("export", "p.json", "--to", "slurm", "-o", "x.sh"),
        ("export", "p.json", "--to", "k8s", "--image", "i", "-o", "x.yaml"),
        ("export", "p.json", "--to", "chakra", "-o", "x"),
    ],
    ids=" ".join,
)
def test_a_file_of_the_same_kind_is_replaced(files: Path, args: tuple[str, ...]) -> None:
    if args[-3].endswith((".png", ".pdf")) and shutil.which("dot") is None:
        pytest.skip("no Graphviz")
    for name in ("notes.plan.json", "w.safetensors", "ids.safetensors"):
        (files / name).unlink()
    first, second = again(args, files)
    assert (first.status, second.status) == (0, 0), second.err


@pytest.mark.parametrize("kind", _KINDS.values())
def test_what_is_no_drawing_of_ours(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "x"
    for data in (
        b"<!DOCTYPE html><p>mine",
        b"<svg></svg>",
        b"digraph {a -> b}",
        b"<?xml?><graphml><graph/></graphml>",
        b"\x89PNG\r\n\x1a\n....",
        b"%PDF-1.7",
        b"{}",
    ):
        file.write_bytes(data)
        assert not holds(file, kind)  # type: ignore[arg-type]
    file.write_bytes(b"")
    assert holds(file, kind)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "args",
    [
        (*PLAN, "-o", "x.json", "--dag", "x.json"),
        (*PLAN, "-o", "x.json", "--dag", "./x.json"),
        (*PLAN, "-o", "-", "--dag", "-"),
        (*PLAN, "-o", "x.json", "--json", "./x.json"),
        (*PLAN, "-o", "a/x.json", "--dag", "b/x.json"),
        (*PLAN, "-o", "old.json", "--dag", "older.json"),
        ("simulate", "p.json", "--json", "x.json", "--trace", "./x.json"),
        ("run", "p.json", "--report", "x.json", "--trace", "./x.json"),
        ("run", "p.json", "--report", "-", "--trace", "-"),
    ],
    ids=" ".join,
)
def test_two_outputs_have_two_places(files: Path, args: tuple[str, ...]) -> None:
    (files / "a").mkdir()
    (files / "b").symlink_to("a")
    shutil.copy(files / "p.json", files / "old.json")
    os.link(files / "old.json", files / "older.json")
    before = tree(files)
    done = helixctl(*args, cwd=files)
    assert done.status == 2
    assert "cannot go to the same place" in done.err
    assert tree(files) == before


@pytest.mark.parametrize("name", ["logits", "output", "tokens"])
def test_what_run_writes_it_may_write_again(name: str, tmp_path: Path) -> None:
    """The tensors that --output says it writes, and no others."""
    write_tensor(str(tmp_path / "x"), name, torch.zeros(2, 3))
    assert holds(tmp_path / "x", "tensor file")
    write_tensor(str(tmp_path / "y"), "model.embed_tokens.weight", torch.zeros(2, 3))
    assert not holds(tmp_path / "y", "tensor file")


def test_an_empty_path_is_no_folder(files: Path) -> None:
    done = helixctl(*PLAN, "-o", "", cwd=files)
    assert (done.status, done.err) == (
        2, "HX511 cannot write to an empty path\n  hint: is a variable of the shell not set?\n"
    )  # fmt: skip


def test_a_device_takes_anything(files: Path) -> None:
    done = helixctl(*PLAN, "-o", "/dev/null", "--dag", "/dev/null", cwd=files)
    assert (done.status, Path("/dev/null").is_char_device()) == (0, True)


def test_a_folder_of_weights_is_an_input(files: Path) -> None:
    (files / "model/model.safetensors.index.json").write_text('{"weight_map": {"a": "part.safetensors"}}')
    (files / "model/part.safetensors").write_bytes(b"weights")
    before = tree(files)
    for name in ("part.safetensors", "model.safetensors.index.json", "config.json"):
        done = helixctl("run", "p.json", "--weights", "model", "--output", f"model/{name}", "--force", cwd=files)
        assert (done.status, "the command reads it" in done.err) == (2, True), done.err
    assert tree(files) == before
