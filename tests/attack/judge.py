"""The verdict on a mutant: the codes with which it is refused, or an argument that it is still a true document.

The argument does not use the verifier. Either the mutant's own plan is lowered to exactly this dag; or the numpy
interpreter, which was written from docs/formats.md, computes the same bits with it as with the good dag.
test_mutants.py compares the numbers of the good dags with the reference.
"""

from __future__ import annotations

import json
import traceback
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from helixctl.dag import Dag
from helixctl.documents import load_document
from helixctl.errors import HelixError
from helixctl.lower import lower
from helixctl.plan import Plan
from tests.attack import bases
from tests.attack.mutation import Data, Mutation
from tests.interpreter import execute, seeded

Verdict = str  # refused, harmless, wrong code, survived, crashed


@dataclass(frozen=True)
class Judgement:
    """The verdict on a mutant, with the codes, or with the text of an error."""

    verdict: Verdict
    codes: frozenset[str] = frozenset()
    text: str = ""


def judge(mutation: Mutation, base: str, data: Data, file: Path) -> Judgement:
    """Load the mutant as the commands do, and judge the result."""
    file.write_text(json.dumps(data), encoding="utf-8")
    try:
        document = load_document(str(file))
    except HelixError as error:
        codes = frozenset(d.code for d in error.diagnostics)
        verdict = "refused" if codes <= mutation.codes else "wrong code"
        return Judgement(verdict, codes, "" if verdict == "refused" else str(error))
    except Exception:  # noqa: BLE001  any other exception is a bug, and this test looks for bugs
        return Judgement("crashed", text=traceback.format_exc())
    if mutation.harmless and (_is_lowered(document) or _computes_the_same(base, data)):
        return Judgement("harmless")
    return Judgement("survived")


def _is_lowered(document: object) -> bool:
    """Whether a dag is the one that its own plan is lowered to."""
    if not isinstance(document, Dag):
        return isinstance(document, Plan)  # a plan that is legal is a plan
    good = lower(document.plan, step=document.step)
    return (good.tensors, good.values, good.tasks, good.order) == (
        document.tensors,
        document.values,
        document.tasks,
        document.order,
    )


def _computes_the_same(base: str, data: Data) -> bool:
    try:
        mine, good = outputs(data), _good_outputs(base)
    except (ValueError, KeyError, IndexError):  # the interpreter cannot make sense of it
        return False
    return mine.keys() == good.keys() and all(np.array_equal(mine[place], good[place]) for place in good)


def outputs(data: Data) -> dict[Any, np.ndarray]:
    """The numbers of every region of the model's output, and of what is left of a state, by rank."""
    kept = {tensor["name"] for tensor in data["tensors"] if tensor["role"] == "output"}
    kept |= {tensor["next"] for tensor in data["tensors"] if "next" in tensor}
    numbers = execute(data, given=_in_use(data))
    found = {}
    for value in data["values"]:
        if value["tensor"] in kept:
            place = (value["rank"], value["tensor"], json.dumps(value["region"]))
            if not np.array_equal(found.setdefault(place, numbers[value["id"]]), numbers[value["id"]]):
                raise ValueError(f"a rank has {place} twice, with different numbers")
    return found


def _in_use(data: Data) -> dict[str, np.ndarray]:
    """A cache in the midst of its use: sequences of different lengths, not all of them with new tokens; by position.

    It is the same whatever the lanes and blocks of a cache, of as many tokens as there is room for.
    """
    shapes = {tensor["name"]: tensor["shape"] for tensor in data["tensors"]}
    if "count" not in shapes:
        return {}
    (batch,) = shapes["count"]
    new = shapes[next(name for name in ("input_ids", "input") if name in shapes)][1]
    given = {"length": 3 + np.arange(batch) % 3, "count": np.maximum(new - np.arange(batch) % 2, 0)}
    for tensor in data["tensors"]:
        if tensor["role"] == "state":
            _, cycles, lanes, block, *rest = tensor["shape"]
            region = [(0, batch), (0, 64), *((0, size) for size in rest)]
            by_position = seeded(tensor["name"], (batch, 64, *rest), (0.0, 1.0), region, 0)
            given[tensor["name"]] = by_position[:, : cycles * lanes * block].reshape(tensor["shape"])
    return given


@cache
def _good_outputs(base: str) -> dict[Any, np.ndarray]:
    return outputs(json.loads(bases.text(base, "dag")))
