"""Steps of a generation, one after the other, by tests/interpreter.py: as that, from docs/formats.md alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tests.interpreter import Array, Key, Walk, execute, place_of, walk_of


def left(walk: Walk, numbers: dict[str, Array]) -> dict[Key, Array]:
    """Return what a step leaves of every state, as the next step takes it: of the tensor that is its `next`."""
    made: dict[Key, list[Array]] = {}
    for name, place in walk.places.items():
        if name not in walk.given:
            made.setdefault((place.tensor, place.rank, place.region), []).append(numbers[name])
    found: dict[Key, Array] = {}
    for name, place in walk.given.items():
        if walk.tensors[place.tensor]["role"] != "state":
            continue
        after = made.get((walk.tensors[place.tensor]["next"], place.rank, place.region), [])
        if not after or any(not np.array_equal(one, after[0], equal_nan=True) for one in after):
            raise ValueError(f"{name} is left {len(after)} times")
        found[place.tensor, place.rank, place.region] = after[0]
    return found


def whole(dag: dict[str, Any], numbers: dict[str, Array], name: str) -> Array:
    """Put a tensor together from the values of it; where several have a part of it, it is the same."""
    tensor = next(tensor for tensor in dag["tensors"] if tensor["name"] == name)
    found, seen = np.zeros(tensor["shape"]), np.zeros(tensor["shape"], bool)
    for value in dag["values"]:
        if value["tensor"] == name and not value["partial"]:
            part = tuple(slice(*interval) for interval in value["region"])
            if not np.array_equal(found[part][seen[part]], numbers[value["id"]].astype(np.float64)[seen[part]]):
                raise ValueError(f"{value['id']} differs from other values of {name}")
            found[part], seen[part] = numbers[value["id"]], True
    if not seen.all():
        raise ValueError(f"nobody has all of {name}")
    return found


def generate(
    dags: dict[str, dict[str, Any]],
    prompts: Array,
    lengths: Array,
    new: int,
    seed: int = 0,
    given: dict[str, Array] | None = None,
    ends: Sequence[int] = (),
    draws: int = 0,
) -> tuple[Array, list[Array]]:
    """Prefill prompts and decode `new` tokens after each; return tokens (batch, new) and the logits of every step.

    A sequence ends with a token of `ends`; from then on its tokens are -1. `draws` is the seed of every sequence.
    Before the first step the caches hold numbers that are none, which must not show.
    """
    batch, longest = prompts.shape
    chunk = next(tensor for tensor in dags["prefill"]["tensors"] if tensor["name"] == "input_ids")["shape"][1]
    states = _empty(dags["prefill"])
    walks = {name: walk_of(dag) for name, dag in dags.items()}
    walks = {name: replace(walk, tasks=tuple(walk.tasks)) for name, walk in walks.items()}
    logits: list[Array] = []

    def step(name: str, ids: Array, length: Array, count: Array) -> Array:
        nonlocal states
        inputs = {"input_ids": ids, "length": length, "count": count, "seed": np.full(batch, draws)}
        numbers = execute(walks[name], seed, {**(given or {}), **inputs}, states)
        states = left(walks[name], numbers)
        logits.append(whole(dags[name], numbers, "logits"))
        return whole(dags[name], numbers, "token").astype(np.int64)

    token = np.full(batch, -1)
    for first in range(0, longest, chunk):
        ids = np.zeros((batch, chunk), np.int64)
        part = prompts[:, first : first + chunk]
        ids[:, : part.shape[1]] = part
        length, count = np.minimum(lengths, first), np.clip(lengths - first, 0, chunk)
        made = step("prefill", ids, length, count)
        token = np.where((count > 0) & (length + count == lengths), made, token)
    tokens = [token]
    for j in range(new - 1):
        live = (token >= 0) & ~np.isin(token, list(ends))
        made = step("decode", np.where(live, token, 0)[:, None], lengths + j, live.astype(np.int64))
        token = np.where(live, made, -1)
        tokens.append(token)
    return np.stack(tokens, axis=1), logits


def _empty(dag: dict[str, Any]) -> dict[Key, Array]:
    """Return caches of which nothing may be read."""
    tensors = {tensor["name"]: tensor for tensor in dag["tensors"]}
    places = [place_of(value, tensors) for value in dag["values"] if tensors[value["tensor"]]["role"] == "state"]
    return {
        (place.tensor, place.rank, place.region): np.full(
            [stop - start for start, stop in place.region],
            np.nan,
            np.float32 if place.dtype == "bfloat16" else place.dtype,
        )
        for place in places
    }
