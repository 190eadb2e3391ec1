"""A wrong region is said once, at the value that declares it, wherever in the dag it is and however the file looks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helixctl.dag import Dag, Value, dag_from_json
from helixctl.documents import load_document
from helixctl.errors import HelixError
from helixctl.verify import verify
from tests.attack import bases
from tests.documents import tiny

DAGS = {"tiny": tiny(2, 1), "paper": bases.dag("paper")}


def shorter(value: Value) -> list[list[list[int]]]:
    """The value's region with the last of one dim left out, for every dim that has two."""
    cut = [d for d, (a, b) in enumerate(value.region) if b - a > 1]
    return [[[a, b - (i == d)] for i, (a, b) in enumerate(value.region)] for d in cut]


def broken(dag: Dag, value: Value, region: list[list[int]]) -> Dag:
    data: dict[str, Any] = json.loads(dag.to_json())
    next(v for v in data["values"] if v["id"] == value.id)["region"] = region
    return dag_from_json(json.dumps(data))


CASES = [(name, v.id) for name, dag in DAGS.items() for v in dag.values if shorter(v)]


@pytest.mark.parametrize(("name", "value"), CASES)
def test_a_wrong_region_is_said_once_at_its_value(name: str, value: str) -> None:
    dag = DAGS[name]
    for region in shorter(dag.value[value])[: 1 if name == "paper" else None]:
        found = verify(broken(dag, dag.value[value], region))
        assert [d.path for d in found] == [value], found


@pytest.mark.parametrize("indent", [None, 1])
def test_every_finding_of_a_dag_has_a_line(indent: int | None, tmp_path: Path) -> None:
    """Also where another program has laid out the file; what is of the dag as a whole has none."""
    for path in sorted(Path("tests/invalid").glob("HX4*.dag.json")):
        text = path.read_text()
        file = tmp_path / path.name
        file.write_text(json.dumps(json.loads(text), indent=indent))
        with pytest.raises(HelixError) as caught:
            load_document(str(file))
        of_the_whole = path.name.startswith(("HX402", "HX410"))
        assert all((d.line is None) == of_the_whole for d in caught.value.diagnostics), path


def test_a_region_is_said_by_dim() -> None:
    dag = tiny(2, 1)
    weight = dag.value["l0.w_q@0"]
    (found,) = verify(broken(dag, weight, [[0, 8], [0, 1], [0, 3]]))
    assert (found.code, found.message) == (
        "HX406",
        (
            "value l0.w_q@0 is declared [hidden 0:8, head 0:1, head_dim 0:3], which cannot be: "
            "weight l0.w_q: no rank holds [hidden 0:8, head 0:1, head_dim 3:4]"
        ),
    )
