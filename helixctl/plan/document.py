"""Plan: the document that says what was decided, with the specs it came from and their digests."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from helixctl.plan.asked import Asked
from helixctl.plan.key_order import in_digested_order
from helixctl.plan.layout import Layout
from helixctl.plan.steps import step_of, steps_of
from helixctl.spec import ClusterSpec, Dtype, ModelSpec, Step, StepName, WorkloadSpec, accumulator
from helixctl.spec.base import added

PLAN_SCHEMA: Final = "urn:helixctl:plan:1"
FORMAT_VERSION = "1.0"
# One for all calls: json.dumps would make a new one for each of the thousands of lines of a dag.
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def canonical_json(value: Any) -> str:
    """JSON with no spaces, keys in the given order, ASCII only: equal documents have equal bytes."""
    return _ENCODER.encode(value)


def digest(value: BaseModel) -> str:
    """``sha256:`` of a model's canonical JSON."""
    text = canonical_json(value.model_dump(mode="json", by_alias=True))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


class SpecDigests(BaseModel):
    """The digests of the specs inside a plan."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    cluster: str
    workload: str


class Plan(BaseModel):
    """A layout for one model on one cluster under one workload."""

    # What validates plans is made for the first one, of what then validates its specs.
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)

    schema_: Annotated[Literal["urn:helixctl:plan:1"], Field(alias="$schema")] = PLAN_SCHEMA
    format_version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+$")] = FORMAT_VERSION
    digests: SpecDigests
    layout: Layout
    model: ModelSpec
    workload: WorkloadSpec
    cluster: ClusterSpec
    # No part of what was decided: no digest has it, and it is in plans on disk alone (``without_request``).
    asked: Asked | None = added(None)

    @field_validator("cluster")
    @classmethod
    def _in_the_order_of_its_digest(cls, cluster: ClusterSpec, info: ValidationInfo) -> ClusterSpec:
        digests = info.data.get("digests")
        return in_digested_order(cluster, digests.cluster, digest) if isinstance(digests, SpecDigests) else cluster

    @classmethod
    def of(cls, model: ModelSpec, cluster: ClusterSpec, workload: WorkloadSpec, layout: Layout) -> Plan:
        """A plan with the digests of its specs."""
        digests = SpecDigests(model=digest(model), cluster=digest(cluster), workload=digest(workload))
        return cls(digests=digests, layout=layout, model=model, workload=workload, cluster=cluster)

    @classmethod
    def sketch(cls, model: ModelSpec, cluster: ClusterSpec, workload: WorkloadSpec | Step, layout: Layout) -> Plan:
        """A plan without digests, or one step of it: quick to make, to be priced and never written."""
        none = SpecDigests(model="", cluster="", workload="")
        its: Any = workload
        return cls.model_construct(digests=none, layout=layout, model=model, workload=its, cluster=cluster)

    @property
    def digest(self) -> str:
        """The digest of the whole document, but for what it was asked for with."""
        return digest(self.without_request())

    def without_request(self) -> Plan:
        """The plan without what it was asked for with, as dags have it."""
        return self if self.asked is None else self.model_copy(update={"asked": None})

    @property
    def steps(self) -> tuple[StepName, ...]:
        """The names of the plan's steps, in the order in which they run."""
        return steps_of(self.workload)

    def step(self, name: StepName | None = None) -> Step:
        """A step of the plan by its name, by default the first; of a sketch it is what the sketch is of.

        Raises:
            ValueError: the plan has no such step.
        """
        if isinstance(self.workload, Step):
            return self.workload
        return step_of(self.workload, self.layout, name)

    @property
    def partial_dtype(self) -> Dtype:
        """The dtype of partial sums."""
        return accumulator(self.model.dtype) if self.layout.reduction_dtype == "accumulator" else self.model.dtype

    def to_json(self) -> str:
        """The document as a file holds it: indented, byte-stable, newline at the end."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=True) + "\n"
