"""helixctl validate: exit statuses, streams, files and folders.

The findings themselves are in tests/verify and tests/spec, the formats of reports in test_validate_formats.py.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.cli.command import helixctl, modules
from tests.documents import ROOT, SMALL

SHIPPED = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "plans").rglob("*") if p.is_file() and p.suffix != ".md")


def test_all_that_is_shipped_is_valid() -> None:
    done = helixctl("validate", "-v", *SHIPPED)
    assert (done.status, done.err) == (0, "")
    assert done.said.count(": valid ") == len(SHIPPED)


VALID = str(ROOT / "plans/small/dense.4x4.plan.json")
REFUSED, REFUSED_DAG = "HX302-edited-model.plan.json", "HX406-region-moved.dag.json"
MALFORMED, UNREADABLE = "HX103-unknown-key.model.yaml", "nothing-here.json"


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ((VALID,), 0),
        ((VALID, VALID), 0),
        ((REFUSED,), 1),
        ((REFUSED_DAG,), 1),
        ((VALID, REFUSED), 1),
        ((REFUSED, VALID), 1),
        ((MALFORMED,), 2),
        ((UNREADABLE,), 2),
        (("HX401-no-order.dag.json",), 2),
        (("HX304-version.plan.json",), 2),
        ((VALID, MALFORMED), 2),
        ((MALFORMED, REFUSED), 2),
        ((REFUSED, MALFORMED), 2),
        ((REFUSED_DAG, UNREADABLE, VALID), 2),
    ],
)
def test_exit_status(files: tuple[str, ...], status: int) -> None:
    """Malformed outranks refused, in whatever order; all of it goes to standard output."""
    done = helixctl("validate", *files, cwd=ROOT / "tests/invalid")
    assert (done.status, done.err) == (status, "")
    assert all((f"{file}:" in done.said) == (file != VALID or len(files) == 1) for file in files)
    assert all(f"{file}:" in helixctl("validate", "-v", *files, cwd=ROOT / "tests/invalid").said for file in files)
    quiet = helixctl("validate", "-q", *files, cwd=ROOT / "tests/invalid")
    assert (quiet.status, quiet.err) == (status, "")
    assert ": valid " not in quiet.said
    assert (quiet.said == "") == (status == 0)


def test_every_file_is_checked_and_said() -> None:
    done = helixctl("validate", "-v", "tests/invalid/HX412-flops.dag.json", "plans/paper/dense.4x4.plan.json")
    assert done.status == 1
    assert "HX412-flops.dag.json:85:1: HX412 task l0.attend.g0s0: declares 1 flops" in done.said
    assert "plans/paper/dense.4x4.plan.json: valid plan, layout 4 x 4" in done.said


def test_standard_input() -> None:
    done = helixctl("validate", "-", stdin=(ROOT / "plans/paper/dense.4x4.dag.json").read_bytes())
    assert done.status == 0
    assert "-: valid dag, layout 4 x 4, 681 tasks proved" in done.said


def test_a_bug_is_said_to_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from helixctl.cli import validate
    from helixctl.cli.main import _status

    def broken(_: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(validate, "read_document", broken)
    assert _status(["validate", str(tmp_path / "x")]) == 3
    assert "this is a bug" in capsys.readouterr().err


# --- folders ---------------------------------------------------------------------------------------------------------


def test_a_folder_is_all_documents_below_it() -> None:
    done = helixctl("validate", "-v", "plans/")
    assert (done.status, done.err) == (0, "")
    assert sorted(line.partition(": valid ")[0] for line in done.said.splitlines()[:-1]) == SHIPPED
    assert done.said.splitlines()[-1] == f"{len(SHIPPED)} documents: {len(SHIPPED)} valid"


FOREIGN = {
    "package.json": '{"name": "x", "version": "1.0.0"}',
    "list.json": "[1, 2]",
    "broken.json": '{"a": 1,,}',
    "latin.yaml": b"caf\xe9: 1",
    "empty.yml": "",
    "compose.yaml": "x: &x 1\ny: *x\n",
    "Taskfile.yml": "version: 3\ntasks: {}\n",
    "playbook.yaml": "hosts: all\n",
    "report.json": '{"report": "helixctl run", "layout": {}, "tasks": []}',
    "plan.schema.json": '{"properties": {"$schema": {"const": "urn:helixctl:plan:1"}, "layout": {}, "digests": {}}}',
    "tokenizer.json": '{"model": {"vocab": {"layers": 1, "attention": 2, "model_type": 3}}}',
    "foreign.model.json": '{"weights": 3}',
    "notes.txt": "layers attention",
    ".hidden/x.plan.json": "{",
    ".hidden.yaml": "layers: 1\nattention: 2\n",
    "node_modules/x.plan.json": "{",
}


def fill(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def test_files_of_others_in_a_folder_are_skipped_and_counted(tmp_path: Path) -> None:
    fill(tmp_path, FOREIGN | {"deep/er/specs.yaml": Path(SMALL[0]).read_text()})
    done = helixctl("validate", tmp_path)
    assert (done.status, done.err) == (0, ""), done.said
    assert done.said.splitlines()[-1] == "1 document: 1 valid; 12 other files skipped"
    named = helixctl("validate", "-v", tmp_path).said
    assert named.count(": skipped, ") == 12
    assert f"{tmp_path}/package.json: skipped, no document that helixctl knows" in named


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("x.plan.json", '{"$schema": "urn:helixctl:plan:1",\n<<<<<<< HEAD\n', "HX102"),
        ("x.dag.json", "", "HX110 is empty"),
        ("renamed.json", '{\n  "$schema": "urn:helixctl:plan:1", "layout": {', "HX102"),
        ("renamed.json", '{"$schema": "urn:helixctl:plan:2"}', "HX304"),
        ("x.model.yaml", b"name: caf\xe9", "HX101"),
        ("x.model.yaml", "layers: 4\nattenton: {}\n", "HX103"),
        ("llama.yaml", "layers: 4\n\tattention: {}\nattention:\n  heads: 4\n", "HX102"),
        ("llama.json", '{"layers": 4, "attention": {},}', "HX10"),
        ("cluster.yml", "hosts: 1\ndevices_per_host: none\n", "HX105"),
        ("config.json", '{"model_type": "llama"}', "HX104"),
        ("config.json", '{"model_type": "llama",, }', "HX102"),
    ],
)
def test_a_broken_document_in_a_folder_is_an_error(tmp_path: Path, name: str, content: str | bytes, code: str) -> None:
    fill(tmp_path, {name: content})
    done = helixctl("validate", tmp_path)
    assert done.status == 2
    assert f"{tmp_path}/{name}:" in done.said
    assert code in done.said


def test_a_file_that_is_named_must_be_a_document(tmp_path: Path) -> None:
    fill(tmp_path, {name: FOREIGN[name] for name in ("package.json", "Taskfile.yml")})
    for name in ("package.json", "Taskfile.yml"):
        assert helixctl("validate", tmp_path / name).status == 2
    both = helixctl("validate", VALID, tmp_path / "package.json")
    assert both.status == 2
    assert f"{tmp_path}/package.json: HX110 is neither" in both.said


def test_a_model_of_others_in_a_folder_is_skipped(tmp_path: Path) -> None:
    """Unless it is named: what nobody asked for by name is no error of the folder's."""
    llama = json.loads((ROOT / "plans/models/Llama-3.1-8B/config.json").read_text())
    others = {
        "whisper": {"model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"], "d_model": 384},
        "bert": {"model_type": "bert"},
        "classifier": llama | {"architectures": ["LlamaForSequenceClassification"]},
        "sliced": llama | {"pretraining_tp": 2},
        "unknown": llama | {"use_qk_norm": True},
    }
    configs: dict[str, str | bytes] = {f"{name}/config.json": json.dumps(data) for name, data in others.items()}
    fill(tmp_path, configs | {"llama/config.json": json.dumps(llama), "c.cluster.yaml": Path(SMALL[1]).read_text()})
    done = helixctl("validate", tmp_path)
    assert (done.status, done.err) == (0, ""), done.said
    assert done.said.splitlines()[-1] == "2 documents: 2 valid; 5 other files skipped"
    assert (
        "whisper/config.json: skipped, another model: model_type 'whisper' is not modelled"
        in helixctl("validate", "-v", tmp_path).said
    )
    assert helixctl("validate", tmp_path / "whisper/config.json").status == 2
    assert json.loads(helixctl("validate", tmp_path, "-f", "json").out)["skipped"] == [
        f"{tmp_path}/{name}/config.json" for name in sorted(others)
    ]


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        (["bad"], ["good/a.plan.json", "x.plan.json"]),
        (["bad/"], ["good/a.plan.json", "x.plan.json"]),
        (["bad/*"], ["good/a.plan.json", "x.plan.json"]),
        (["FOLDER/bad/*.json"], ["good/a.plan.json", "x.plan.json"]),
        (["b.plan.json", "x.*"], ["good/a.plan.json"]),
        (["*/b.plan.json", "good"], ["x.plan.json"]),
    ],
)
def test_what_is_excluded_is_not_looked_at(tmp_path: Path, exclude: list[str], left: list[str]) -> None:
    good = Path(VALID).read_text()
    fill(tmp_path / "f", {"x.plan.json": good, "good/a.plan.json": good, "bad/b.plan.json": "{"})
    options = [part for glob in exclude for part in ("--exclude", glob.replace("FOLDER", "f"))]
    done = helixctl("validate", "-v", "f", *options, cwd=tmp_path)
    assert done.status == 0, done.said
    valid = {line.partition(":")[0] for line in done.said.splitlines() if ": valid " in line}
    assert valid == {f"f/{name}" for name in left}
    everything = helixctl("validate", "f", "--exclude", "*", cwd=tmp_path)
    assert (everything.status, "holds no document" in everything.said) == (2, True)


def test_a_folder_without_documents_is_an_error(tmp_path: Path) -> None:
    assert "holds no document" in helixctl("validate", tmp_path).said
    fill(tmp_path, FOREIGN)
    done = helixctl("validate", VALID, tmp_path)
    assert done.status == 2
    assert f"{tmp_path}: HX110 holds no document that helixctl knows" in done.said


def test_the_folder_of_a_hugging_face_model_is_that_model(tmp_path: Path) -> None:
    config = (ROOT / "plans/models/Llama-3.1-8B/config.json").read_text()
    others = {name: FOREIGN[name] for name in ("tokenizer.json",)} | {"generation_config.json": '{"do_sample": true}'}
    fill(tmp_path / "Llama", {"config.json": config} | others)
    done = helixctl("validate", "-v", tmp_path / "Llama")
    assert done.status == 0
    assert done.said.splitlines()[0] == f"{tmp_path}/Llama/config.json: valid model Llama"


def test_a_file_is_checked_once(tmp_path: Path) -> None:
    shutil.copy(VALID, tmp_path / "x.plan.json")
    done = helixctl("validate", "-v", "x.plan.json", "./x.plan.json", ".", "x.plan.json", ".", cwd=tmp_path)
    assert done.status == 0
    assert done.said.count(": valid plan") == 1


def test_standard_input_beside_files() -> None:
    done = helixctl("validate", "-", VALID, "plans/models/Qwen2.5-7B", stdin=b"{")
    assert done.status == 2
    assert "-:2:1: HX102" in done.said
    assert "3 documents: 2 valid, 1 malformed" in done.said


def test_a_folder_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, since root may read everything."""
    from helixctl.cli.main import _status

    fill(tmp_path, {"inner/x.json": "{}", "x.plan.json": Path(VALID).read_text()})
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("inner"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert _status(["validate", "-v", str(tmp_path)]) == 2
    out = capsys.readouterr().out
    assert f"{tmp_path}/inner: HX101 cannot be read: permission denied" in out
    assert "x.plan.json: valid plan" in out


def test_validating_imports_nothing_heavy() -> None:
    code = "from helixctl.cli.main import _status\n_status(['validate', '-q', 'plans/'])"
    assert not {"torch", "numpy", "networkx", "safetensors", "rich"} & modules(code)
