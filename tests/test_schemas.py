"""schemas/: generated from the classes, and true of every document that is shipped."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import TypeAdapter

from helixctl.dag import Dag
from helixctl.plan import Plan
from helixctl.report.shapes import REPORTS
from helixctl.spec import ClusterSpec, ModelDocument
from helixctl.sweep import Sweep
from tests.documents import ROOT

CLASSES: dict[str, Any] = {"model": ModelDocument, "cluster": ClusterSpec, "plan": Plan, "dag": Dag}
CLASSES |= {f"{name}.report": shape for name, shape in (REPORTS | {"sweep": Sweep}).items()}
# plans/models has Hugging Face's own format.
SHIPPED = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "plans").glob("[!m]*/*.*"))


def schema_of(name: str) -> dict[str, Any]:
    schema = TypeAdapter(CLASSES[name]).json_schema(mode="validation", by_alias=True)
    if name == "dag":
        # The reader takes it off before the class sees the rest.
        schema["properties"] = {"$schema": {"const": "urn:helixctl:dag:1"}} | schema["properties"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"helixctl {name}"} | schema


@pytest.mark.parametrize("name", CLASSES)
def test_schemas_are_those_of_the_classes(name: str, golden: Callable[[Path, str], None]) -> None:
    schema = schema_of(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    golden(ROOT / f"schemas/{name}.schema.json", json.dumps(schema, indent=2) + "\n")


# The library takes seconds for a dag of 16 devices: one of them in every run.
LARGE = re.compile(r"plans/paper/.*\.dag\.json")


@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=pytest.mark.sweep) if LARGE.match(path) else path for path in SHIPPED]
)
def test_shipped_documents_follow_their_schema(path: str) -> None:
    kind = path.split(".")[-2]
    # As the reader does: 1e-5 is a number, which YAML 1.1 takes for text.
    data = json.loads((ROOT / path).read_text()) if path.endswith("json") else yaml.safe_load((ROOT / path).read_text())
    jsonschema.Draft202012Validator(schema_of(kind)).validate(data)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("model", {"layers": "4"}),
        ("model", {"headz": 1}),
        ("cluster", {"hosts": 0}),
        ("cluster", {"within_host": None}),
    ],
)
def test_schemas_refuse(kind: str, change: dict[str, Any]) -> None:
    path = next(p for p in SHIPPED if p.endswith(f".{kind}.yaml"))
    data = yaml.safe_load((ROOT / path).read_text()) | change
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema_of(kind)).validate(data)
