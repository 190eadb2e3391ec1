"""Reading, parsing, validating: what is accepted, and where errors are laid."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, with_config

from helixctl.dag import Dag
from helixctl.errors import Diagnostic, HelixError
from helixctl.plan import Layout, Plan
from helixctl.spec import yaml_reader
from helixctl.spec.cluster import ClusterSpec
from helixctl.spec.load import (
    document_kind,
    load_cluster,
    load_model,
    load_specs,
    parse_mapping,
    read_text,
    validate_document,
)
from helixctl.spec.model import ModelDocument
from helixctl.spec.positions import locate, position
from helixctl.spec.yaml_reader import YamlReader
from tests.attack import bases

ROOT = Path(__file__).parent.parent.parent
MODEL_FILE = str(ROOT / "plans/paper/dense.model.yaml")
CLUSTER_FILE = str(ROOT / "plans/paper/h100x16.cluster.yaml")


class PlainDumper(yaml.SafeDumper):
    """Writes a value that stands twice out twice."""

    def ignore_aliases(self, _: object) -> bool:
        return True


STRICT = ConfigDict(extra="forbid")


def diagnostics(call: Any, *args: Any, **kwargs: Any) -> tuple[Diagnostic, ...]:
    with pytest.raises(HelixError) as caught:
        call(*args, **kwargs)
    return caught.value.diagnostics


def printed(call: Any, *args: Any, **kwargs: Any) -> list[str]:
    return [str(d) for d in diagnostics(call, *args, **kwargs)]


def test_only_the_first_of_very_many_findings_are_said() -> None:
    text = "{" + ", ".join(f'"unknown{i}": {i}' for i in range(1000)) + "}"
    found = diagnostics(validate_document, ClusterSpec, json.loads(text), text, "x.json")
    assert len(found) == 101
    assert (found[-1].message, found[-1].line) == ("905 more findings are not shown", None)
    twice = diagnostics(parse_mapping, "{" + "a: 1, " * 1000 + "}", "x.yaml")
    assert len(twice) == 101
    assert twice[-1].message == "reading ended here: too much is wrong"


def test_the_rows_of_a_long_dag_are_found() -> None:
    data = json.loads(bases.text("paper", "dag"))
    row = data["tensors"].index(next(t for t in data["tensors"] if t["role"] == "output"))
    text = bases.text("paper", "dag").replace('"role":"output"', '"role":"outcome"' + " " * 2**18)
    (found,) = diagnostics(validate_document, Dag, json.loads(text), text, "x.dag.json")
    assert (found.code, found.path) == ("HX105", f"tensors[{row}].role")
    assert '"outcome"' in text.splitlines()[(found.line or 0) - 1]


class TestReadText:
    def test_a_byte_order_mark_is_dropped(self, tmp_path: Path) -> None:
        path = tmp_path / "x.yaml"
        path.write_bytes(b"\xef\xbb\xbfa: 1\r\n")
        assert read_text(str(path)) == "a: 1\r\n"
        assert parse_mapping(read_text(str(path)), "x.yaml") == {"a": 1}

    def test_standard_input(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("é: 1".encode())))
        assert read_text("-") == "é: 1"

    def test_missing(self) -> None:
        assert printed(read_text, "no/such.yaml") == ["no/such.yaml: HX101 cannot be read: no such file or directory"]

    def test_a_directory(self, tmp_path: Path) -> None:
        assert printed(read_text, str(tmp_path)) == [f"{tmp_path}: HX101 cannot be read: is a directory"]

    def test_no_path(self) -> None:
        (found,) = diagnostics(read_text, "a\0b")
        assert found.code == "HX101"

    def test_no_permission(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)  # chmod does not stop root, who runs tests in containers
        assert printed(read_text, "x.yaml") == ["x.yaml: HX101 cannot be read: permission denied"]

    def test_too_large(self, tmp_path: Path) -> None:
        path = tmp_path / "x.yaml"
        path.write_bytes(b" " * (2**20 + 1))
        (found,) = diagnostics(read_text, str(path))
        assert (found.code, found.message) == (
            "HX101",
            "is larger than 1 MiB, the most that is read of anything but a dag",
        )
        path.write_bytes(b" " * 2**20)
        assert len(read_text(str(path))) == 2**20

    def test_a_dag_may_be_larger(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        head = b'{ "$schema": "urn:helixctl:dag:1",'
        path = tmp_path / "x.json"
        for data in (head.ljust(2**20 + 9), b"\xef\xbb\xbf" + head.ljust(2**20 + 9)):
            path.write_bytes(data)
            assert len(read_text(str(path), dags=True)) == 2**20 + 9
        monkeypatch.setattr("helixctl.spec.parse.MAX_DAG_NBYTES", 2**20 + 20)
        path.write_bytes(head.ljust(2**20 + 21))
        (found,) = diagnostics(read_text, str(path), dags=True)
        assert found.code == "HX101"
        assert found.message.endswith("the most that is read of a dag")

    def test_not_utf8(self, tmp_path: Path) -> None:
        path = tmp_path / "x.yaml"
        path.write_bytes("a: 1\n".encode("utf-16"))
        (found,) = diagnostics(read_text, str(path))
        assert (found.code, found.line, found.col) == ("HX101", 1, 1)


class TestParse:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("a: no", "no"),
            ("a: on", "on"),
            ("a: 2024-01-01", "2024-01-01"),
            ("a: 1:30", "1:30"),
            ("a: 1_000", "1_000"),
            ("a: 010", "010"),
            ("a: 0x10", "0x10"),
            ("a: 1e-5", 1e-5),
            ("a: -.5", -0.5),
            ("a: +3", 3),
            ("a: 3.", 3.0),
            ("a: TRUE", True),
            ("a: ~", None),
            ("a:", None),
            ("a: 450 GB/s", "450 GB/s"),
            ("a: '3'", "3"),
            ("a: !!str 3", "3"),
            ("a: |\n  3\n", "3\n"),
            ("a: [1, {b: 2}]", [1, {"b": 2}]),
            ("a:\n- 1\n- b: 2\n", [1, {"b": 2}]),
            ("{a: 1}", 1),
            ('{"a": 1,}', 1),
            ('{"a": 1} # note', 1),
            ("--- {a: 1}", 1),
            ('{"a": "\\ud83d\\ude00"}', "\U0001f600"),
        ],
    )
    def test_scalars_mean_what_they_mean_in_json(self, text: str, value: object) -> None:
        found = parse_mapping(text, "x")["a"]
        assert found == value
        assert type(found) is type(value)

    @pytest.mark.parametrize(
        ("text", "code", "line", "col"),
        [
            ("a: 1\nb: [1, 2\nc: 3\n", "HX102", 3, 2),
            ("a: 1\n\tb: 2\n", "HX102", 2, 1),
            ("a:\n\tb: 2\n", "HX102", 2, 1),
            ("a: b: c\n", "HX102", 1, 5),
            ("é: 'ü' é: c\n", "HX102", 1, 8),
            ("a: 'x\n", "HX102", 2, 1),
            ("a: x\x00\n", "HX102", 1, 5),
            ("a: 1\nb: \x1b[31m\n", "HX102", 2, 4),
            ("a: *x\n", "HX102", 1, 4),
            ("a: &x 1\n", "HX102", 1, 4),
            ("a: 1\n<<: *x\n", "HX102", 2, 5),
            ("a: !!python/object:os.system x\n", "HX102", 1, 4),
            ("a: !!timestamp 2024-01-01\n", "HX102", 1, 4),
            ("a: !!int x\n", "HX102", 1, 4),
            ("!!set {a, b}", "HX102", 1, 1),
            ("a: 1\n---\nb: 2\n", "HX102", 2, 1),
            ("1: a\n", "HX102", 1, 1),
            ("a: 1\ntrue: a\n", "HX102", 2, 1),
            ("? [1]\n: 2\n", "HX102", 1, 3),
            ("a: " + "9" * 5000, "HX102", 1, 4),
            ('{"a": ' + "9" * 5000 + "}", "HX102", 1, 7),
            ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "HX102", 1, 107),
            ("a: " + "[" * 100_000, "HX102", 1, 104),
            ("a: " + "[" * 1_000_000, "HX102", None, None),
            ('{"a": ' + "[" * 300_000 + "]" * 300_000 + "}", "HX102", 1, 107),
            ('{"a":\n ' + "1," * 300_000 + "}", "HX102", 2, 4),
            ('{"a": 1e5000, "b": NaN, "c": ' + "1" * 300_000 + "}", "HX102", 1, 20),
            ('{"b": 1, "a": 2, "a": "' + "x" * 300_000 + '"}', "HX107", 1, 18),
            ("a:\n" + "- " * 5000, "HX102", 2, 201),
            ('{\n "a": 1\n "b": 2}', "HX102", 2, 8),
            ("%YAML 3.0\n---\na: 1\n", "HX102", 1, 1),
            ("a: 1\na: 2\n", "HX107", 2, 1),
            ("a:\n  b: 1\n  c: 2\n  b: 3\n", "HX107", 4, 3),
            ('a: 1\n"a": 2\n', "HX107", 2, 1),
            ('{"a": 1,\n "a": 1}', "HX107", 2, 2),
            ('{"a": {"b": 1, "b": 2}}', "HX107", 1, 16),
            ('{"e": "\\ud83d\\ude00", "a": 1, "a": 2}', "HX107", 1, 31),
            ('{"a": "\\ud800"}', "HX102", 1, 10),
            ("", "HX110", None, None),
            ("# nothing\n", "HX110", None, None),
            ("null", "HX110", None, None),
            ("- a\n", "HX110", None, None),
            ("[]", "HX110", None, None),
            ("text", "HX110", None, None),
        ],
    )
    def test_refuses(self, text: str, code: str, line: int | None, col: int | None) -> None:
        found = diagnostics(parse_mapping, text, "x.yaml")[0]
        assert (found.code, found.file, found.line, found.col) == (code, "x.yaml", line, col)

    def test_nan_and_infinity_are_no_json(self) -> None:
        assert parse_mapping('{"a": NaN, "b": -Infinity}', "x") == {"a": "NaN", "b": "-Infinity"}

    def test_all_duplicates_are_reported(self) -> None:
        assert [d.line for d in diagnostics(parse_mapping, "a: 1\na: 2\nb: 1\nb: 2\na: 3\n", "x")] == [2, 4, 5]

    def test_an_alias_bomb_is_refused_at_once(self) -> None:
        bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
        assert {d.code for d in diagnostics(parse_mapping, bomb, "x")} == {"HX102"}

    JSON_VALUES = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text("ab ü:#-"),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc ü:", max_size=4), inner, max_size=3),
        max_leaves=10,
    )

    @given(st.dictionaries(st.text("abc", max_size=3), JSON_VALUES, max_size=4))
    def test_json_reads_the_same_by_either_way(self, value: dict[str, Any]) -> None:
        text = json.dumps(value)
        assert parse_mapping(text, "x") == value
        assert YamlReader(text).read() == value

    @given(st.dictionaries(st.text("abc", min_size=1), JSON_VALUES, min_size=1, max_size=4))
    def test_what_yaml_writes_is_read_back(self, value: dict[str, Any]) -> None:
        assert parse_mapping(yaml.dump(value, Dumper=PlainDumper, allow_unicode=True), "x") == value

    @given(st.text(max_size=60))
    def test_no_text_crashes_it(self, text: str) -> None:
        try:
            parse_mapping(text, "x")
        except HelixError as error:
            assert {d.code for d in error.diagnostics} <= {"HX102", "HX107", "HX110"}  # noqa: PT017

    def test_without_libyaml(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(yaml_reader, "_LOADER", yaml.SafeLoader)
        assert parse_mapping(Path(MODEL_FILE).read_text(), "x")["layers"] == 4
        assert diagnostics(parse_mapping, "a: 1\na: 2\n", "x")[0].line == 2
        assert diagnostics(parse_mapping, "a: 1\n\tb: 2\n", "x")[0].hint == "indent with spaces"
        assert diagnostics(parse_mapping, "a: " + "[" * 5000, "x")[0].col == 104


class TestPositions:
    TEXT = "# note\na:\n  b: 1\n  c:\n    - x\n    - d: {e: 2}\n"

    def test_keys_and_values(self) -> None:
        paths: list[tuple[str | int, ...]] = [("a", "b"), ("a", "c", 0), ("a", "c", 1, "d", "e"), ("a", "nope")]
        places = locate(self.TEXT, paths)
        assert [position(places, path, of_key=False) for path in paths] == [(3, 6), (5, 7), (6, 14), (2, 1)]
        assert [position(places, path, of_key=True) for path in paths] == [(3, 3), (5, 7), (6, 11), (2, 1)]
        assert position(places, (), of_key=True) == (2, 1)

    def test_in_json(self) -> None:
        text = json.dumps({"a": [{"b": 1}, {"b": 2}]}, indent=2)
        assert position(locate(text, [("a", 1, "b")]), ("a", 1, "b"), of_key=False) == (7, 12)

    def test_json_that_yaml_cannot_read(self) -> None:
        text = '{"a": 1,\n "b": "\\ud83d\\ude00",\n "c": 1}'
        places = locate(text, [("a",), ("c",)])
        assert position(places, ("a",), of_key=True) == (1, 2)
        assert position(places, ("c",), of_key=True) == (3, 2)
        assert position({}, ("c",), of_key=True) is None


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Gather:
    dim: str
    kind: Literal["gather"] = "gather"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Sum:
    kind: Literal["sum"] = "sum"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Vertex:
    id: str
    op: Annotated[Gather | Sum, Field(discriminator="kind")]
    region: tuple[tuple[int, int], ...]
    ranks: tuple[int, ...] = ()
    extents: dict[str, int] | None = None


@with_config(STRICT)
@dataclass(frozen=True)
class Graph:
    tasks: tuple[Vertex, ...]


def check(text: str, cls: type[Any] = Graph, malformed: str | None = "HX401") -> list[str]:
    return printed(validate_document, cls, parse_mapping(text, "x"), text, "x", malformed=malformed)


class TestValidate:
    def test_a_dataclass_document(self) -> None:
        text = '{"$schema": "urn:x", "tasks": [{"id": "a", "op": {"kind": "gather", "dim": "b"}, "region": [[0, 1]]}]}'
        graph = validate_document(Graph, parse_mapping(text, "x"), text, "x")
        assert graph == Graph((Vertex("a", Gather("b"), ((0, 1),)),))

    def test_errors_inside_a_dataclass_document(self) -> None:
        text = """\
tasks:
- id: 3
  op: {kind: gather, dimm: x}
  region: [[0, 1, 2], [0], [a, 1]]
- id: a
  op: {kind: gahter}
  region: []
  ranks: 0
- id: b
  op: {}
  rgion: []
  extents: {a: x}
- id: c
  op: 3
  region: {}
- 4
"""
        assert check(text) == [
            'x:2:7: HX401 tasks[0].id must be text, not 3\n  hint: write "3", in quotes',
            "x:3:3: HX401 missing key 'dim' in tasks[0].op\n  hint: dim is text",
            "x:3:22: HX401 unknown key 'dimm' in tasks[0].op\n  hint: did you mean 'dim'?",
            "x:4:12: HX401 tasks[0].region[0] must be a list of 2, not a list of 3",
            "x:4:23: HX401 tasks[0].region[1] must be a list of 2, not a list of 1",
            "x:4:29: HX401 tasks[0].region[2][0] must be a whole number, not the text 'a'",
            "x:6:14: HX401 tasks[1].op.kind must be one of gather, sum, not 'gahter'\n  hint: did you mean 'gather'?",
            "x:8:10: HX401 tasks[1].ranks must be a list, not 0",
            "x:9:3: HX401 missing key 'region' in tasks[2]\n  hint: region is a list",
            "x:10:3: HX401 missing key 'kind' in tasks[2].op\n  hint: kind is one of gather, sum",
            "x:11:3: HX401 unknown key 'rgion' in tasks[2]\n  hint: did you mean 'region'?",
            "x:12:16: HX401 tasks[2].extents.a must be a whole number, not the text 'x'",
            "x:14:7: HX401 tasks[3].op must be a mapping with a 'kind' key, not 3",
            "x:15:3: HX401 tasks[3].region must be a list, not a mapping",
            "x:16:3: HX401 tasks[4] must be a mapping with the keys id, op, region, ranks, extents, not 4",
        ]

    def test_a_plan(self) -> None:
        text = """\
$schema: urn:helixctl:plan:1
digests: {model: a, cluster: b, workload: c}
layout: {groups: 4, slices: 4, slicing: head, grups: 3}
model: {name: m, layers: 1, hidden_size: 8, attention: {heads: 1, head_dim: 8, softmax_slices: 3}}
workload: {}
cluster: {}
"""
        found = check(text, Plan, "HX301")
        assert found[0].startswith(
            "x:3:41: HX301 layout.slicing must be one of head_dim, batch, query, key, not 'head'"
        )
        assert found[1].startswith("x:3:47: HX301 unknown key 'grups' in layout\n  hint: known keys: ")
        assert found[3].startswith("x:4:80: HX109 model.attention: softmax_slices 3 does not divide head_dim 8")

    def test_a_key_is_never_printed_raw(self) -> None:
        (found,) = check('{"tasks": [], "\\u001b[31m\\n": 1}')
        assert found.splitlines()[0] == "x:1:15: HX401 unknown key '\\x1b[31m\\n'"

    def test_limits_and_long_values(self) -> None:
        class Limits(BaseModel):
            model_config = ConfigDict(extra="forbid", strict=True)

            low: Annotated[int, Field(ge=3)]
            share: Annotated[float, Field(gt=0, le=0.5)]
            word: Annotated[str, Field(min_length=1)]

        text = f"low: 2\nshare: 0.75\nword: {'x ' * 100}\nwrod: {'x' * 200}\n"
        assert check(text, Limits, None) == [
            "x:1:6: HX105 low must be a whole number of at least 3, not 2",
            "x:2:8: HX105 share must be a number of at most 0.5 and over 0, not 0.75",
            "x:4:1: HX103 unknown key 'wrod'\n  hint: known keys: low, share, word",
        ]
        assert check("low: 3000000.0\nshare: .inf\nword: ''", Limits, None) == [
            "x:1:6: HX105 low must be a whole number of at least 3, not 3000000.0\n  hint: write 3000000",
            "x:2:8: HX105 share must be a number of at most 0.5 and over 0, not inf",
            "x:3:7: HX105 word must be text, not ''",
        ]

    def test_a_key_that_belongs_elsewhere(self) -> None:
        (found, *_) = check("batch: 8", ModelDocument, None)[-1:]
        assert found == "x:1:1: HX103 unknown key 'batch'\n  hint: did you mean 'workload.batch'?"

    def test_deep_json_under_a_known_key(self) -> None:
        deep = "[" * 500 + "]" * 500
        found = check(f'{{"name": {deep}, "hosts": 1, "device": {{"memory": {deep}}}}}', ClusterSpec, None)
        assert any("name must be text of at most 100 characters" in line for line in found)
        assert any("HX106 device.memory: [[[" in line for line in found)

    @given(TestParse.JSON_VALUES, st.sampled_from(["name", "attention", "norm", "dtype", "workload", "x"]))
    def test_no_value_crashes_it(self, value: object, key: str) -> None:
        text = json.dumps({key: value})
        found = diagnostics(validate_document, ModelDocument, json.loads(text), text, "x")
        assert all(d.line == 1 for d in found)

    def test_the_path_is_kept_for_machines(self) -> None:
        (found,) = diagnostics(validate_document, Layout, {"groups": 1, "slices": "x"}, "groups: 1\nslices: x", "x")
        assert (found.path, found.line, found.col) == ("slices", 2, 9)


class TestKinds:
    @pytest.mark.parametrize(
        ("data", "kind"),
        [
            ({"$schema": "urn:helixctl:plan:1"}, "plan"),
            ({"$schema": "urn:helixctl:dag:1", "layout": 1}, "dag"),
            ({"$schema": "../schemas/cluster.schema.json", "hosts": 1}, "cluster"),
            ({"$schema": 3, "layers": 1}, "model"),
            ({"hosts": 2}, "cluster"),
            ({"attention": {}}, "model"),
            ({"tasks": [], "plan": {}}, "dag"),
            ({"layout": {}, "model": {}, "cluster": {}}, "plan"),
            ({"hosts": 2, "attention": {}, "layers": 1}, "model"),
        ],
    )
    def test_by_schema_then_by_keys(self, data: dict[str, Any], kind: str) -> None:
        assert document_kind(data) == kind

    def test_an_unknown_version(self) -> None:
        assert printed(document_kind, {"$schema": "urn:helixctl:plan:2"}, "x.json") == [
            (
                "x.json: HX304 'urn:helixctl:plan:2' is a version that this helixctl does not read\n"
                "  hint: it reads urn:helixctl:plan:1; a newer helixctl may read this one"
            )
        ]

    @pytest.mark.parametrize("data", [{}, {"colour": "blue"}, {"$schema": "urn:helixctl:poem:1"}])
    def test_an_unknown_kind(self, data: dict[str, Any]) -> None:
        (found,) = diagnostics(document_kind, data)
        assert found.code == "HX110"


class TestSpecs:
    def test_the_papers(self) -> None:
        model, cluster = load_specs(MODEL_FILE, CLUSTER_FILE)
        assert (model.attention.heads, model.workload.batch) == (16, 1024)
        assert (cluster.devices, cluster.between_hosts and cluster.between_hosts.bandwidth) == (16, 50e9)

    def test_every_spec_among_the_plans_loads(self) -> None:
        for path in ROOT.glob("plans/**/*.model.yaml"):
            assert load_model(str(path)).layers
        for path in ROOT.glob("plans/**/*.cluster.yaml"):
            assert load_cluster(str(path)).devices

    def test_json_and_yaml_give_the_same(self, tmp_path: Path) -> None:
        path = tmp_path / "m.json"
        data = parse_mapping(read_text(MODEL_FILE), "")
        path.write_text(json.dumps({"$schema": "../schemas/model.schema.json"} | data))
        assert load_model(str(path)) == load_model(MODEL_FILE)

    def test_swapped(self) -> None:
        assert printed(load_specs, CLUSTER_FILE, MODEL_FILE) == [
            (
                f"{CLUSTER_FILE}: HX110 is a cluster; it was given as MODEL\n"
                "  hint: give the model first, then the cluster"
            ),
            f"{MODEL_FILE}: HX110 is a model; it was given as CLUSTER\n  hint: give the model first, then the cluster",
        ]

    def test_a_plan_given_as_model(self, tmp_path: Path) -> None:
        path = tmp_path / "p.json"
        path.write_text('{"$schema": "urn:helixctl:plan:1"}')
        assert printed(load_model, str(path)) == [f"{path}: HX110 is a plan; it was given as MODEL"]

    def test_errors_of_both_files_come_together(self, tmp_path: Path) -> None:
        bad = tmp_path / "bad.yaml"
        bad.write_text("a: [")
        found = diagnostics(load_specs, "missing.yaml", str(bad))
        assert [d.code for d in found] == ["HX101", "HX102"]

    def test_standard_input_is_read_once(self) -> None:
        assert printed(load_specs, "-", "-") == ["HX101 MODEL and CLUSTER cannot both be standard input"]

    def test_the_model_from_standard_input(self) -> None:
        script = f"from helixctl.spec.load import load_specs; print(load_specs('-', {CLUSTER_FILE!r})[0].name)"
        run = subprocess.run(
            [sys.executable, "-c", script], input=Path(MODEL_FILE).read_bytes(), capture_output=True, check=True
        )
        assert run.stdout.decode().strip() == "paper-dense"
