"""A long dag is read by rows: the same dag, or refused at the line that is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from helixctl.cli.documents import load_document, mapping_of
from helixctl.dag import Dag, dag_from_json
from helixctl.dag.rows import read_rows
from helixctl.errors import HelixError
from helixctl.spec.load import validate_document
from tests.attack import bases

TEXT = bases.dag("paper").to_json()


def read(text: str) -> Dag:
    return validate_document(Dag, read_rows(text, "x.dag.json"), text, "x.dag.json", malformed="HX401")


@pytest.mark.parametrize("name", bases.PLANS)
def test_the_same_dag(name: str) -> None:
    text = bases.dag(name).to_json()
    assert read(text) == dag_from_json(text)


def test_only_long_texts_are_read_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(mapping_of(TEXT, "x")["tasks"][0], dict)
    monkeypatch.setattr("helixctl.cli.documents.MAX_NBYTES", 1000)
    assert not isinstance(mapping_of(TEXT, "x")["tasks"][0], dict)


def test_a_long_dag_is_proved(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path_factory.mktemp("long") / "x.dag.json"
    file.write_text(TEXT)
    monkeypatch.setattr("helixctl.cli.documents.MAX_NBYTES", 1000)
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
    "compact": (lambda t: json.dumps(json.loads(t)), "HX401 a dag of more than"),
    "indented": (lambda t: json.dumps(json.loads(t), indent=1), "HX401 a dag of more than"),
    "no comma": (lambda t: re.sub(r'\},\n\{"id"', '}\n{"id"', t, count=1), "HX401 a dag of more than"),
    "a comma too many": (lambda t: t.replace("}\n],\n", "},\n],\n", 1), "HX102 is no JSON"),
    "a table twice": (lambda t: t.replace('"order": [', '"tasks": ['), "HX401 a dag of more than"),
    "a table in the head": (lambda t: t.replace('"plan_digest"', '"tasks": 1,\n"plan_digest"'), "HX107 key 'tasks'"),
    "an unknown table": (lambda t: t.replace('"order": [', '"orders": ['), "HX401 a dag of more than"),
    "a missing table": (lambda t: t[: t.index('],\n"order": [')] + "]}", "HX401 missing key 'order'"),
    "cut off": (lambda t: t[: len(t) // 2], "HX102 is no JSON"),
    "cut off at a line": (lambda t: t[: t.index("\n", len(t) // 2)], "HX401 a dag of more than"),
    "more after the end": (lambda t: t + "{}", "HX401 a dag of more than"),
    "a key twice": (lambda t: t.replace('"rank":0', '"rank":0,"rank":0', 1), r"x\.dag\.json:\d+: HX107 key 'rank'"),
    "NaN": (lambda t: t.replace('"rank":0', '"rank":NaN', 1), "HX102 is no JSON: NaN"),
    "a bad head": (lambda t: t.replace('"plan_digest": "', '"plan_digest": '), "HX102"),
    "empty lines": (lambda t: t[: len(t) // 2] + "\n" * 100 + t[len(t) // 2 :], "HX102 is no JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_refused(name: str) -> None:
    broken, said = CASES[name]
    text = broken(TEXT)
    assert text != TEXT
    with pytest.raises(HelixError) as caught:
        read(text)
    found = re.search(said, str(caught.value))
    assert found, str(caught.value)
    if name == "a bad row":
        assert '"concrete"' in text.splitlines()[int(found[1]) - 1]


def test_a_long_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helixctl.dag.rows._LONGEST_LINE", 1000)
    with pytest.raises(HelixError, match="HX401 a dag of more than"):
        read(TEXT)


def test_a_long_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helixctl.dag.rows.MAX_NBYTES", 10)
    with pytest.raises(HelixError, match="HX401 a dag of more than"):
        read(TEXT)
