"""A long dag is read by rows: the same dag, or refused at the line that is wrong."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from helixctl.dag import Dag, dag_from_json
from helixctl.dag.rows import read_rows
from helixctl.documents import load_document, read_mapping
from helixctl.errors import HelixError
from helixctl.spec.json_text import JsonCursor
from helixctl.spec.load import validate_document
from tests.attack import bases
from tests.plan.test_key_order import shuffled

TEXT = bases.dag("paper").to_json()


def read(text: str) -> Dag:
    return validate_document(Dag, read_rows(text, "x.dag.json"), text, "x.dag.json", malformed="HX401")


@pytest.mark.parametrize("name", bases.PLANS)
def test_the_same_dag(name: str) -> None:
    text = bases.dag(name).to_json()
    assert read(text) == dag_from_json(text)


def test_only_long_texts_are_read_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(read_mapping(TEXT, "x")["tasks"][0], dict)
    monkeypatch.setattr("helixctl.documents.MAX_NBYTES", 1000)
    assert not isinstance(read_mapping(TEXT, "x")["tasks"][0], dict)


def test_a_long_dag_is_proved(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path_factory.mktemp("long") / "x.dag.json"
    file.write_text(TEXT)
    monkeypatch.setattr("helixctl.documents.MAX_NBYTES", 1000)
    assert load_document(str(file)) == dag_from_json(TEXT)
    file.write_text(TEXT.replace('"flops":', '"flops":1', 1))
    with pytest.raises(HelixError, match="HX412"):
        load_document(str(file))


CASES: dict[str, tuple[Callable[[str], str], str]] = {
    "a bad row": (
        lambda t: t.replace('"level":"concat"', '"level":"concrete"', 1),
        r"x\.dag\.json:(\d+):\d+: HX401 tasks\[\d+\]\.level must be one of .*, not 'concrete'",
    ),
    "a row that is no mapping": (lambda t: t.replace('"tasks": [\n', '"tasks": [\n["a"],\n'), "HX401 tasks"),
    "a number too many": (lambda t: t.replace('"region":[[0,', '"region":[[0,0,', 1), "HX401 values"),
    "no comma": (lambda t: re.sub(r'\},\n\{"id"', '}\n{"id"', t, count=1), "HX102 a comma is missing after this"),
    "a comma too many": (lambda t: t.replace("}\n],\n", "},\n],\n", 1), "HX102 a comma before ']'"),
    "a table twice": (lambda t: t.replace('"order": [', '"tasks": ['), "HX107 key 'tasks' is given twice, first on"),
    "a table in the head": (lambda t: t.replace('"plan_digest"', '"tasks": 1,\n"plan_digest"'), "HX107 key 'tasks'"),
    "an unknown table": (lambda t: t.replace('"order": [', '"orders": ['), "HX401 unknown key 'orders'"),
    "a missing table": (lambda t: t[: t.index('],\n"order": [')] + "]}", "HX401 missing key 'order'"),
    "cut off": (lambda t: t[: len(t) // 2], r"x\.dag\.json:\d+:\d+: HX102 "),
    "cut off at a line": (lambda t: t[: t.index("\n", len(t) // 2)], "HX102 ends too early"),
    "more after the end": (lambda t: t + "{}", "HX102"),
    "a key twice": (lambda t: t.replace('"rank":0', '"rank":0,"rank":0', 1), r"json:(\d+):\d+: HX107 key 'rank'"),
    "a name twice": (lambda t: re.sub(r'(\{"id":"l0.*\n)', r"\1\1", t, count=1), r"x\.dag\.json:\d+:1: HX403 value l0"),
    "NaN": (lambda t: t.replace('"rank":0', '"rank":NaN', 1), r"x\.dag\.json:\d+:\d+: HX102 is no JSON: NaN"),
    "a bad head": (lambda t: t.replace('"plan_digest": "', '"plan_digest": '), "HX102"),
    "lines in a name": (lambda t: t[: len(t) // 2] + "\n" * 100 + t[len(t) // 2 :], "HX102 a line ends"),
    "a comment": (lambda t: t.replace('"tasks"', '// tasks\n"tasks"'), r"x\.dag\.json:\d+:1: HX102 a comment \(//\)"),
    "very many ranks": (lambda t: re.sub(r'"order": \[\n', '"order": [' + "[]," * 2**18, t), "HX401 the order is"),
}  # fmt: skip


def _relaid(name: str, text: str) -> str:
    """The same content as another program writes it."""
    data = json.loads(text)
    if name == "shuffled":
        return json.dumps(shuffled(data, random.Random(1)), indent=1)
    if name == "every letter escaped":
        return re.sub(r"(?<=[a-z])o(?=[a-z])", lambda m: "\\u006f", text)
    return {
        "compact": json.dumps(data),
        "indented": json.dumps(data, indent=4),
        "sorted": json.dumps(data, sort_keys=True),
        "CRLF": text.replace("\n", "\r\n"),
        "tabs and empty lines": json.dumps(data, indent="\t").replace("\n", "\n\n"),
    }[name]


LAYOUTS = ("compact", "indented", "sorted", "CRLF", "tabs and empty lines", "shuffled", "every letter escaped")


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_layout_of_a_file_does_not_count(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Read at once or by rows, with and without a byte order mark: the same dag; and broken, the same finding."""
    text = _relaid(name, TEXT)
    assert text != TEXT
    broken = _relaid(name, TEXT.replace('"level":"concat"', '"level":"project"', 1))
    for limit in (2**20, 1000):
        monkeypatch.setattr("helixctl.documents.MAX_NBYTES", limit)
        for mark in ("", "\ufeff"):
            file = tmp_path / "x.dag.json"
            file.write_bytes((mark + text).encode())
            found = load_document(str(file))
            assert isinstance(found, Dag)
            assert found.to_json() == TEXT
            file.write_bytes((mark + broken).encode())
            with pytest.raises(HelixError, match="HX414") as caught:
                load_document(str(file))
            line = caught.value.diagnostics[0].line
            assert line is not None
            place = caught.value.diagnostics[0]
            row = json.JSONDecoder().raw_decode("\n".join(broken.split("\n")[line - 1 :]), (place.col or 0) - 1)[0]
            assert row["id"] == place.path
            assert row["level"] == "project"


@pytest.mark.parametrize("name", CASES)
def test_what_is_refused(name: str) -> None:
    broken, said = CASES[name]
    text = broken(TEXT)
    assert text != TEXT
    with pytest.raises(HelixError) as caught:
        read(text)
    found = re.search(said, str(caught.value))
    assert found, str(caught.value)
    if found.groups():
        assert {"a bad row": '"concrete"', "a key twice": '"rank":0,"rank"'}[name] in text.splitlines()[
            int(found[1]) - 1
        ]


@pytest.mark.parametrize(
    "junk", ["[" + "[]," * 1000 + "[]]", '"' + "x" * 5000 + '"', "[" * 500 + "]" * 500, "1" * 4000]
)
def test_a_long_value_is_not_read_to_its_end(junk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that megabytes of junk in the place of a row cost a few."""
    monkeypatch.setattr("helixctl.spec.json_text._WINDOW", 50)
    cursor = JsonCursor('{"a": 1,\n "b": ' + junk + "}")
    with pytest.raises(HelixError, match="HX102 a value of more than 100 characters begins here") as caught:
        [cursor.value(100) for _ in cursor.members()]
    assert [(d.line, d.col) for d in caught.value.diagnostics] == [(2, 7)]


def test_a_long_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helixctl.dag.rows.MAX_NBYTES", len(json.dumps(json.loads(TEXT)["plan"])))
    with pytest.raises(HelixError, match="HX401 holds more than 0 MiB beside its tables"):
        read(TEXT)


def test_a_long_file_says_that_it_is_a_dag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever its $schema stands; what is no dag is not read."""
    for module in ("spec.parse", "documents"):
        monkeypatch.setattr(f"helixctl.{module}.MAX_NBYTES", 10_000)
    data = json.loads(TEXT)
    last = {key: data[key] for key in sorted(data, key=lambda key: key == "$schema")}
    file = tmp_path / "x.dag.json"
    file.write_text(json.dumps(last))
    assert load_document(str(file)) == dag_from_json(TEXT)
    for other in (json.dumps(last | {"$schema": "urn:other"}), "a: 1\n" + json.dumps(last)):
        file.write_text(other)
        with pytest.raises(HelixError, match="HX101 is larger than"):
            load_document(str(file))
