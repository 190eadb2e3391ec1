"""Executes a dag document in one process with numpy, written from docs/formats.md alone: an independent oracle.

It shares no code with helixctl. Each formula stands where the page has it, and every result is checked against the
region its value declares. Numpy has no bfloat16: such numbers are held in float32 arrays, on the bfloat16 grid.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch  # for one power in float32, which the page leaves to torch
from numpy.typing import NDArray

Array = NDArray[Any]
Region = Sequence[Sequence[int]]
Key = tuple[str, int, tuple[tuple[int, int], ...]]  # a tensor, a rank and a region


@dataclass(frozen=True)
class Place:
    """What a value is: its tensor's name, dims and their sizes, its rank, the region it holds, and its dtype."""

    tensor: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    rank: int
    region: tuple[tuple[int, int], ...]
    dtype: str


@dataclass(frozen=True)
class Call:
    """What a formula sees of a task: its op, its widened inputs, where they and the outputs are."""

    op: dict[str, Any]
    inputs: list[Array]
    places: list[Place]
    made: list[Place]

    @property
    def outputs(self) -> int:
        """Return how many outputs there are."""
        return len(self.made)

    def axis(self, dim: str, i: int = 0) -> int:
        """Return the axis of a dim in input i."""
        return self.places[i].dims.index(dim)

    def start(self, dim: str, i: int = 0) -> int:
        """Return where the region of input i begins along a dim."""
        return self.places[i].region[self.axis(dim, i)][0]


@dataclass(frozen=True)
class Walk:
    """A dag as it is executed: what all of its steps have alike.

    `given` are the places of the values that no task makes; `kept` are their numbers where no step changes these, from
    the first step on.
    """

    tensors: dict[str, dict[str, Any]]
    places: dict[str, Place]
    given: dict[str, Place]
    tasks: Iterable[dict[str, Any]]
    kept: dict[str, Array]


def walk_of(dag: dict[str, Any]) -> Walk:
    """Read a dag; its tasks can be gone through once."""
    tensors = {tensor["name"]: tensor for tensor in dag["tensors"]}
    places = {value["id"]: place_of(value, tensors) for value in dag["values"]}
    made = {output for task in dag["tasks"] for output in task["outputs"]}
    given = {name: place for name, place in places.items() if name not in made}
    return Walk(tensors, places, given, _sequence(dag["tasks"], dag["order"]), {})


def execute(
    dag: dict[str, Any] | Walk,
    seed: int = 0,
    given: dict[str, Array] | None = None,
    states: dict[Key, Array] | None = None,
) -> dict[str, Array]:
    """Run one step of a dag and return the numbers of every value by id.

    `given` has whole tensors by name, `states` what the step before has left (tests/interpreted_steps.py).
    """
    walk = dag if isinstance(dag, Walk) else walk_of(dag)
    numbers = dict[str, Array]()
    for name, place in walk.given.items():
        tensor = walk.tensors[place.tensor]
        if states is not None and tensor["role"] == "state":
            numbers[name] = states[place.tensor, place.rank, place.region]
        elif tensor["role"] != "weight":
            numbers[name] = _given(place, tensor, seed, given or {})
        else:
            if name not in walk.kept:
                walk.kept[name] = _given(place, tensor, seed, given or {})
            numbers[name] = walk.kept[name]
    for task in walk.tasks:
        _run(task, walk.places, numbers)
    return numbers


def seeded(name: str, shape: Sequence[int], init: Sequence[float], region: Region, seed: int) -> Array:
    """Return the seeded numbers of a region of a tensor, in float64, not yet rounded to a value's dtype."""
    unit = ((words(name, shape, region, seed) >> np.uint64(48)).astype(np.float64) - 32768) / 32768
    return np.asarray(init[0] + init[1] * unit)


def seeded_ids(name: str, shape: Sequence[int], init: Sequence[float], region: Region, seed: int) -> Array:
    """Return seeded whole numbers: the upper half of every word, of offset, offset + 1, ... offset + scale - 1."""
    upper = words(name, shape, region, seed) >> np.uint64(32)
    return int(init[0]) + ((upper * np.uint64(init[1])) >> np.uint64(32)).astype(np.int64)


def words(name: str, shape: Sequence[int], region: Region, seed: int) -> Array:
    """Return z of the seeded numbers, for a region of a tensor."""
    key = np.uint64(int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big"))
    position: Array = np.zeros((), np.uint64)
    for size, (start, stop) in zip(shape, region, strict=True):
        position = position[..., None] * np.uint64(size) + np.arange(start, stop, dtype=np.uint64)
    return mixed(np.asarray(key), position)


def mixed(key: Array, i: Array) -> Array:
    """Return z of a key and a number, modulo 2^64."""
    z = key + (i + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


def rounded(x: Array, dtype: str) -> Array:
    """Round numbers once, to nearest even, to a dtype by name; bfloat16 stays in a float32 array."""
    return _bfloat16(x) if dtype == "bfloat16" else x.astype(dtype)


def _bfloat16(x: Array) -> Array:
    """Round to the upper 16 bits of float32; float64 goes to float32 by rounding to odd, so that it rounds once."""
    single = x.astype(np.float32)
    inexact_even = (single != x) & (single.view(np.uint32) & np.uint32(1) == 0)
    toward = np.where(x > single, np.inf, -np.inf).astype(np.float32)
    single = np.where(inexact_even, np.nextafter(single, toward), single)
    bits = single.view(np.uint32)
    bits = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(x), np.float32(np.nan), bits.view(np.float32))


def place_of(value: dict[str, Any], tensors: dict[str, Any]) -> Place:
    """Read a value's entry."""
    region = tuple((start, stop) for start, stop in value["region"])
    tensor = tensors[value["tensor"]]
    return Place(value["tensor"], tuple(tensor["dims"]), tuple(tensor["shape"]), value["rank"], region, value["dtype"])


def _given(place: Place, tensor: dict[str, Any], seed: int, given: dict[str, Array]) -> Array:
    """Return the numbers of a value that no task makes: a region of the given tensor, or of the seeded one."""
    if place.tensor in given:
        return rounded(given[place.tensor][tuple(slice(*interval) for interval in place.region)], place.dtype)
    if tensor["init"] is None:
        raise ValueError(f"nothing makes {place.tensor}, and it has no init")
    numbers = seeded_ids if place.dtype == "int64" else seeded
    if "lean" in tensor:
        return rounded(leaning(place, tensor, seed), place.dtype)
    return rounded(numbers(place.tensor, tensor["shape"], tensor["init"], place.region, seed), place.dtype)


def leaning(place: Place, tensor: dict[str, Any], seed: int) -> Array:
    """Return the seeded numbers of a region of a tensor that leans, in float64."""
    axis, (offset, scale) = place.dims.index("hidden"), tensor["init"]
    region = tuple((0, place.shape[i]) if i == axis else its for i, its in enumerate(place.region))
    q = (words(place.tensor, place.shape, region, seed) >> np.uint64(48)).astype(np.float64) - 32768
    s = np.where(np.arange(place.shape[axis]) % 2, -1.0, 1.0).reshape([-1 if i == axis else 1 for i in range(q.ndim)])
    lean = np.array(tensor["lean"])
    if len(lean) > 1:
        lean = lean[slice(*place.region[place.dims.index("expert")])]
    x = offset + scale / 32768 * (q - (s * q).sum(axis, keepdims=True) / place.shape[axis] * s) + lean * s
    return np.asarray(x.take(range(*place.region[axis]), axis))


def _sequence(tasks: list[dict[str, Any]], order: list[list[str]]) -> Iterator[dict[str, Any]]:
    """Go round the ranks: a task is next when it is at the front of the orders of all its ranks."""
    by_id = {task["id"]: task for task in tasks}
    done = [0] * len(order)
    while any(count < len(own) for count, own in zip(done, order, strict=True)):
        before = sum(done)
        for rank, own in enumerate(order):
            while done[rank] < len(own):
                task = by_id[own[done[rank]]]
                if any(order[other][done[other] : done[other] + 1] != [task["id"]] for other in task["ranks"]):
                    break
                yield task
                for other in task["ranks"]:
                    done[other] += 1
        if sum(done) == before:
            raise ValueError(f"the orders wait for each other, at places {done}")


def _run(task: dict[str, Any], places: dict[str, Place], numbers: dict[str, Array]) -> None:
    """Run a task: widen its inputs, apply its formula, round its results once; check their ranks and shapes.

    Token ids are no numbers to compute with, and stay as they are.
    """
    ins, outs = [places[name] for name in task["inputs"]], [places[name] for name in task["outputs"]]
    if not {place.rank for place in ins + outs} <= set(task["ranks"]):
        raise ValueError(f"{task['id']} touches values of other ranks than {task['ranks']}")
    wide = np.float64 if any(place.dtype == "float64" for place in ins + outs) else np.float32
    inputs = [x if x.dtype == np.int64 else x.astype(wide) for x in (numbers[name] for name in task["inputs"])]
    results = KINDS[task["op"]["kind"]](Call(task["op"], inputs, ins, outs))
    for name, place, result in zip(task["outputs"], outs, results, strict=True):
        if result.shape != tuple(stop - start for start, stop in place.region):
            raise ValueError(f"{task['id']} makes {result.shape} for {name} of region {place.region}")
        numbers[name] = rounded(result, place.dtype)


def _broadcast(call: Call) -> list[Array]:
    """Every output equals the input."""
    return call.inputs * call.outputs


def _embed(call: Call) -> list[Array]:
    """Return a token's row of the table, or zero if this part of the table lacks it."""
    ids, table = call.inputs
    row = ids - call.start("vocab", 1)
    held = (row >= 0) & (row < len(table))
    multiplier = np.float64(call.op.get("multiplier", 1.0))
    if call.op.get("in_dtype"):
        multiplier = rounded(multiplier[None], call.made[0].dtype)[0]
    return [np.where(held[..., None], table[np.where(held, row, 0)] * table.dtype.type(multiplier), 0)]


def _norm(call: Call) -> list[Array]:
    """Apply rms_norm or layer_norm over the last dim; then the weight and the bias, if they are there."""
    x, *weights = call.inputs
    if call.op["function"] not in {"rms_norm", "layer_norm"} or call.axis(call.op["dim"]) != x.ndim - 1:
        raise ValueError(f"no norm {call.op['function']} over {call.op['dim']}")
    if call.op["function"] == "layer_norm":
        x = x - np.mean(x, axis=-1, keepdims=True)
    y = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + call.op["eps"])
    if weights:
        y = y * (weights[0] + call.op.get("unit_offset", False))
    return [y + weights[1] if weights[1:] else y]


def _square_sums(call: Call) -> list[Array]:
    """Sum the squares of q and of k over heads and their dims; of k by the share of queries that are here."""
    q, k = call.inputs
    heads, keys = call.places[0].shape[2], call.places[1].shape[2]
    share = q.shape[2] * keys / (k.shape[2] * heads)
    return [np.stack([(q * q).sum(axis=(2, 3)), (k * k).sum(axis=(2, 3)) * q.dtype.type(share)], axis=-1)]


def _norm_by_sums(call: Call) -> list[Array]:
    """Divide q and k by the roots of their sums over N, and apply their weights."""
    sums, made = call.inputs[2], []
    for i in range(2):
        whole = call.places[3 + i].shape[0] * call.places[3 + i].shape[1]
        root = np.sqrt(sums[..., i, None, None] / whole + call.op["eps"])
        made.append(call.inputs[i] / root * (call.inputs[3 + i] + call.op.get("unit_offset", False)))
    return made


def _scaled(call: Call) -> list[Array]:
    """Multiply, and cap softly."""
    x = call.inputs[0] * call.inputs[0].dtype.type(call.op.get("multiplier", 1.0))
    cap = call.op.get("cap")
    return [x if cap is None else cap * np.tanh(x / cap)]


def _linear(call: Call) -> list[Array]:
    """Sum x[a, c] * w_i[c, b] over c for every w_i; the dims of y_i are a, then b, as tensordot has them."""
    x, *weights = call.inputs
    own, *others = ([call.axis(dim, i) for dim in call.op["contract"]] for i in range(len(call.inputs)))
    return [np.tensordot(x, w, axes=(own, other)) for w, other in zip(weights, others, strict=True)]


def _head_linear(call: Call) -> list[Array]:
    """Multiply every head's first dims with its part of the weight; the rest follows, if it is asked for."""
    x, w = call.inputs
    if call.places[0].region[-2] != call.places[1].region[call.axis("head", 1)]:
        raise ValueError("a head has no part of the weight")
    w = np.moveaxis(w, (call.axis("head", 1), call.axis(call.op["contract"], 1)), (0, 1))
    depth = w.shape[1]
    x = rounded(x, call.places[1].dtype).astype(x.dtype)
    made = np.einsum("...hd,hdn->...hn", x[..., :depth], w)
    return [np.concatenate([made, x[..., depth:]], axis=-1) if call.op["rest"] else made]


def _join(call: Call) -> list[Array]:
    """Put b, one head for all, behind every head of a, or behind a, which has none."""
    a, b = call.inputs
    a = a if a.ndim == b.ndim else a[:, :, None]
    return [np.concatenate([a, np.broadcast_to(b, (*a.shape[:3], b.shape[-1]))], axis=-1)]


def _bias(call: Call) -> list[Array]:
    """Add to every x_i its b_i, which has the last of its dims."""
    return [x + b for x, b in zip(call.inputs[: call.outputs], call.inputs[call.outputs :], strict=True)]


def _rotate(call: Call) -> list[Array]:
    """Turn the pairs of dims of every head, by the position's multiple of a frequency."""
    made = []
    for i in range(len(call.inputs)):
        kept, x = _parted(call, i)
        positions = (call.start("seq", i) + np.arange(x.shape[1]))[None]
        made.append(np.concatenate([kept, _turned(call, x, positions)], axis=-1))
    return made


def _parted(call: Call, i: int) -> tuple[Array, Array]:
    """Return the dims of input i that stay as they are, and the last ones, which are turned."""
    x, place = call.inputs[i], call.places[i]
    width = call.op.get("last") or x.shape[-1]
    if place.region[-1] != (0, place.shape[-1]):
        raise ValueError("a rotation needs whole heads")
    return x[..., : x.shape[-1] - width], x[..., x.shape[-1] - width :]


def _turned(call: Call, x: Array, positions: Array) -> Array:
    """Turn x (batch, seq, heads, D) by the angles of positions (batch or 1, seq)."""
    rotary = call.op["rotary"]
    dims = rotary.get("dims") or x.shape[-1]
    if dims % 2 or dims > x.shape[-1]:
        raise ValueError("a rotation turns pairs of dims")
    f = frequencies(rotary, x.shape[-1], call.op.get("long", False))
    angles = positions.astype(np.float32)[..., None] * f
    factor = np.float32((rotary["scaling"] or {}).get("attention_factor", 1.0))
    cos, sin = (
        (g(angles.astype(np.float64)).astype(np.float32) * factor).astype(x.dtype)[:, :, None] for g in (np.cos, np.sin)
    )
    y = x.copy()
    first, second = (
        (slice(0, dims, 2), slice(1, dims, 2))
        if rotary.get("interleaved")
        else (slice(dims // 2), slice(dims // 2, dims))
    )
    a, b = x[..., first], x[..., second]
    y[..., first], y[..., second] = a * cos - b * sin, b * cos + a * sin
    return y


def frequencies(rotary: dict[str, Any], width: int, long: bool = False) -> Array:
    """Return the frequencies of a head: float32, every operation rounded."""
    one, theta = np.float32(1), torch.tensor(rotary["theta"], dtype=torch.float32)
    width = rotary.get("dims") or width
    exponents = np.arange(0, width, 2).astype(np.float32) / np.float32(width)
    powers = torch.pow(theta, torch.from_numpy(exponents)).numpy()
    f = one / powers
    scaling = rotary["scaling"]
    if scaling is None:
        return np.asarray(f)
    if scaling["kind"] == "longrope":
        factors = np.array(scaling["long_factors" if long else "short_factors"], np.float32)
        return np.asarray(one / (factors * powers))
    if scaling["kind"] == "proportional":
        return np.where(np.arange(len(f)) < scaling["pairs"], f, np.float32(0)) / np.float32(scaling["factor"])
    if scaling["kind"] == "yarn":
        return _yarn(powers, scaling, rotary["theta"])
    factor = np.float32(scaling["factor"])
    if scaling["kind"] == "linear":
        return np.asarray(f / factor)
    low, high, length = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["original_seq_len"]
    wave = one / f * np.float32(2 * math.pi)
    g = np.where(wave > np.float32(length / low), f / factor, f)
    with np.errstate(divide="ignore", invalid="ignore"):  # where both factors are one
        s = (one / wave * np.float32(length) - np.float32(low)) / np.float32(high - low)
    between = ~(wave < np.float32(length / high)) & ~(wave > np.float32(length / low))
    with np.errstate(invalid="ignore"):
        return np.where(between, (one - s) * g / factor + s * g, g)


def _yarn(powers: Array, scaling: dict[str, Any], theta: float) -> Array:
    pairs, one = len(powers), np.float32(1)
    low, high = (
        pairs * math.log(scaling["original_seq_len"] / (waves * 2 * math.pi)) / math.log(theta)
        for waves in (scaling["beta_fast"], scaling["beta_slow"])
    )
    if scaling["truncate"]:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * pairs - 1)
    if low == high:
        high += 0.001
    ramp = (np.arange(pairs, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    kept = one - np.clip(ramp, np.float32(0), one)
    return np.asarray(one / (np.float32(scaling["factor"]) * powers) * (one - kept) + one / powers * kept)


def _rotate_at(call: Call) -> list[Array]:
    """Rotate as `rotate`, token t of sequence b by length[b] + t."""
    *xs, length = call.inputs
    made = []
    for i in range(len(xs)):
        kept, x = _parted(call, i)
        first = _of_sequences(call, length, len(xs), i)
        positions = first[:, None] + call.start("seq", i) + np.arange(x.shape[1])
        made.append(np.concatenate([kept, _turned(call, x, positions)], axis=-1))
    return made


def _scale_by(call: Call) -> list[Array]:
    """Multiply by a number."""
    return [call.inputs[0] * call.inputs[1][0]]


def _scale_queries(call: Call) -> list[Array]:
    """Multiply every query with the number of its position, a float32."""
    x, *lengths = call.inputs
    p = (call.start("seq") + np.arange(x.shape[1]))[None]
    if lengths:
        p = p + _of_sequences(call, lengths[0], 1, 0)[:, None]
    scaling = call.op["scaling"]
    numbers = 1 + scaling["factor"] * np.log(1.0 + (p + scaling.get("first", 0)) // scaling["tokens"])
    return [x * numbers.astype(np.float32).astype(x.dtype)[..., None, None]]


def _of_sequences(call: Call, counts: Array, own: int, other: int) -> Array:
    """Return, of numbers of sequences (input `own`), those of the sequences of input `other`."""
    first = call.start("batch", other) - call.start("batch", own)
    found = counts[first : first + call.inputs[other].shape[0]]
    if first < 0 or len(found) != call.inputs[other].shape[0]:
        raise ValueError("lengths are of other sequences")
    return found


def _positions(call: Call, i: int) -> Array:
    """Return the position of every (key_cycle, key_lane, key_offset) of input i."""
    place = call.places[i]
    lanes, block = (place.shape[place.dims.index(dim)] for dim in ("key_lane", "key_offset"))
    cycle, lane, offset = (
        np.arange(*place.region[place.dims.index(dim)]) for dim in ("key_cycle", "key_lane", "key_offset")
    )
    return np.asarray((cycle[:, None, None] * lanes + lane[:, None]) * block + offset)


def _cache_write(call: Call) -> list[Array]:
    """Put token t < count[b] at position length[b] + t, where the cache has it; all else stays."""
    made, each = [], call.outputs
    for i in range(each):
        x, cache = call.inputs[i], call.inputs[each + i]
        length, count = (_of_sequences(call, call.inputs[n], n, each + i) for n in (2 * each, 2 * each + 1))
        p = _positions(call, each + i)
        after = cache.copy()
        for b in range(len(cache)):
            t = p - length[b]
            new = (t >= 0) & (t < count[b])
            after[b][new] = x[b][t[new]]
        made.append(after)
    return made


def _expand(call: Call) -> list[Array]:
    """Multiply the latents of all positions with both weights; behind a head's keys stands what is rotated."""
    x, w_k, w_v = call.inputs[0][..., 0, :], *call.inputs[1:3]
    if call.places[1].region[:2] != call.places[2].region[:2]:
        raise ValueError("keys and values are of other heads")
    rank = len(w_k)
    keys, values = (np.einsum("bclor,rhn->bclohn", x[..., :rank], w) for w in (w_k, w_v))
    turned = np.broadcast_to(x[..., None, rank:], (*keys.shape[:-1], x.shape[-1] - rank))
    return [np.concatenate([keys, turned], axis=-1), values]


def _over_cache(call: Call) -> tuple[Array, Array]:
    """Attend over the positions that the cache has: (batch, seq, head, head_dim), log-sum-exps (..., head, part)."""
    width, causal = call.op["softmax_width"], call.op["causal"]
    q, k, v = call.inputs[:3]
    length, count = (_of_sequences(call, call.inputs[n], n, 0) for n in (3, 4))
    if any(call.places[i].region[-1][0] % width for i in range(2)) or call.start("seq", 0) < 0:
        raise ValueError(f"a softmax of width {width} is cut")
    parts = q.shape[3] // width
    wide = v.shape[-1] // parts
    p = _positions(call, 1).ravel()
    heads, keys = call.places[0].shape[2], call.places[1].shape[4]
    of_keys = call.places[1].dims[4]  # kv_head; of an expanded cache head
    taken = (call.start("head") + np.arange(q.shape[2])) // (heads // keys) - call.start(of_keys, 1)
    if taken.min() < 0:
        raise ValueError("queries lack their heads of keys")
    t = call.start("seq") + np.arange(q.shape[1])
    y, lse = np.zeros((*q.shape[:3], v.shape[-1]), q.dtype), np.full((*q.shape[:3], parts), -np.inf, q.dtype)
    for b in range(len(q)):
        seen = np.broadcast_to(p < length[b] + count[b], (len(t), len(p)))
        if causal:
            seen = seen & _reached(call.op, length[b] + t[:, None], p)
        if call.op.get("top_k"):
            seen = seen & _named(call, 5, p)[b]
        held = seen.any(axis=0)  # whatever the cache has elsewhere
        if not held.any():
            continue
        k_b, v_b = (x[b].reshape(len(p), *x.shape[4:])[held][:, taken] for x in (k, v))  # position, head, head_dim
        for i in range(lse.shape[-1]):
            part, its = slice(i * width, (i + 1) * width), slice(i * wide, (i + 1) * wide)
            scores = _capped(call.op, np.einsum("thd,phd->htp", q[b][..., part], k_b[..., part]) * _scale(call.op))
            scores = np.where(seen[:, held], scores, -np.inf)
            most = scores.max(axis=-1, keepdims=True)
            weights = np.exp(scores - np.where(np.isinf(most), 0, most))
            total = weights.sum(axis=-1, keepdims=True)
            shares = weights / np.where(total == 0, 1, total)
            y[b][..., its] = np.einsum("htp,phd->thd", shares, v_b[..., its])
            with np.errstate(divide="ignore"):
                lse[b][..., i] = np.where(total > 0, most + np.log(total), -np.inf)[..., 0].T
    return y, lse


def _cached_attention(call: Call) -> list[Array]:
    """Attend over all positions, and to the sinks."""
    y, lse = _over_cache(call)
    return [y * (1.0 if call.op.get("top_k") else _beside_sinks(call, 5, lse[..., :1]))]


def _partial_attention(call: Call) -> list[Array]:
    """Attend over the positions of one lane, and return the logarithms of the sums as well."""
    return [np.expand_dims(x, 1) for x in _over_cache(call)]


def _merge(call: Call) -> list[Array]:
    """Weight what the lanes made by their shares of the sum of all exponentials."""
    part, lse = call.inputs[:2]
    most = lse.max(axis=1, keepdims=True)
    weights = np.exp(lse - np.where(np.isinf(most), 0, most))
    total = weights.sum(axis=1, keepdims=True)
    if len(call.inputs) > 2:
        with np.errstate(over="ignore"):
            total = total + np.exp(_sinks(call, 2, 0, 3) - np.where(np.isinf(most), 0, most))
    shares = weights / np.where(total == 0, 1, total)
    softmax = (call.places[0].region[-1][0] + np.arange(part.shape[-1])) // call.op["softmax_width"]
    return [(part * shares[..., softmax]).sum(axis=1)]


def _best(call: Call) -> list[Array]:
    """Return the largest logit of a share of the vocabulary, and the lowest token that has it."""
    logits = call.inputs[0]
    place = logits.argmax(axis=1)  # the first of several
    return [logits.max(axis=1)[:, None], (place + call.start("vocab"))[:, None]]


def _choose(call: Call) -> list[Array]:
    """Return the token of the largest logit, of several the lowest."""
    logit, token = call.inputs
    among = np.where(logit == logit.max(axis=1, keepdims=True), token, np.iinfo(np.int64).max)
    return [among.min(axis=1)]


def _sample(call: Call) -> list[Array]:
    """Draw a token of every sequence among those that are kept, in float64."""
    how, tokens = call.op["sampling"], []
    seed, length, count = (_of_sequences(call, call.inputs[n], n, 0) for n in (1, 2, 3))
    for b, logits in enumerate(call.inputs[0].astype(np.float64)):
        s = (logits - logits.max()) / how["temperature"]
        kept = np.argsort(-logits, kind="stable")[: how["top_k"]]
        share = np.exp(s[kept]) / np.exp(s[kept]).sum()
        ahead = np.concatenate([[0], np.cumsum(share)[:-1]])
        kept = np.sort(kept[ahead < how["top_p"]])
        u = uniform(int(seed[b]), call.start("batch") + b, int(length[b] + count[b]), kept)
        tokens.append(kept[np.argmax(s[kept] - np.log(-np.log(u)))])
    return [np.array(tokens)]


def uniform(seed: int, sequence: int, position: int, tokens: Array) -> Array:
    """Return u of tokens at a position of a sequence."""
    w = np.array([seed % 2**64], np.uint64)
    for i in (sequence, position):
        w = mixed(w, np.array([i], np.uint64))
    return ((mixed(w, tokens.astype(np.uint64)) >> np.uint64(12)).astype(np.float64) + 0.5) / 2**52


def _attention(call: Call) -> list[Array]:
    """Compute softmax(Q K^T / sqrt(w)) V for every batch, head and part of w head dims alone.

    Of the heads of k and v every head takes the one that its place among all heads gives it.
    """
    width = call.op["softmax_width"]
    if any(call.start("head_dim", i) % width for i in range(2)):
        raise ValueError(f"a softmax of width {width} is cut")
    heads, keys = call.places[0].shape[2], call.places[1].shape[2]
    mine = call.start("head") + np.arange(call.inputs[0].shape[2])
    taken = mine // (heads // keys) - call.places[1].region[2][0]
    if taken.min() < 0:
        raise ValueError("queries lack their heads of keys")
    inputs = [call.inputs[0], *(x[:, :, taken] for x in call.inputs[1:3])]
    parts = inputs[0].shape[3] // width
    q, k, v = (np.moveaxis(x.reshape(*x.shape[:3], parts, -1), 1, 3) for x in inputs)  # batch, head, part, seq, w
    scores = _capped(call.op, q @ np.swapaxes(k, -1, -2) * _scale(call.op))
    if call.op["causal"]:
        i, j = (call.start("seq", n) + np.arange(call.inputs[n].shape[1]) for n in range(2))
        scores = np.where(_reached(call.op, i[:, None], j), scores, -np.inf)
    if call.op.get("top_k"):
        j = call.start("seq", 1) + np.arange(call.inputs[1].shape[1])
        scores = np.where(_named(call, 3, j)[:, None, None], scores, -np.inf)
    most = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - most)
    total = weights.sum(axis=-1, keepdims=True)
    y = np.moveaxis(weights / total @ v, 3, 1).reshape(*call.inputs[0].shape[:3], -1)
    lse = np.moveaxis((most + np.log(total))[:, :, 0], 2, 1)  # where there are sinks a head has one part
    return [y * (1.0 if call.op.get("top_k") else _beside_sinks(call, 3, lse))]


def _named(call: Call, own: int, positions: Array) -> Array:
    """Return which positions selected (input `own`) names for the tokens of q: bool (batch, seq, position)."""
    selected, place = call.inputs[own], call.places[own]
    if place.region[:2] != call.places[0].region[:2] or place.region[2] != (0, call.op["top_k"]):
        raise ValueError("keys are of other tokens")
    return np.asarray((selected[:, :, None] == positions[:, None]).any(axis=-1))


def _index_scores(call: Call, q: Array, k: Array, factor: Array) -> Array:
    """Sum, over the heads, factors times products that are above 0: q (seq, head, dim), k (position, dim)."""
    products = np.maximum(np.einsum("thd,pd->thp", q, k) * q.dtype.type(call.op["scale"]), 0)
    return np.einsum("th,thp->tp", factor, products)


def _best_keys(scores: Array, positions: Array, count: int) -> tuple[Array, Array]:
    """Return the largest scores and their positions, of equal ones the lower position; -inf and -1 for no more."""
    order = np.lexsort((np.broadcast_to(positions, scores.shape), -scores), axis=-1)[..., :count]
    best = np.take_along_axis(scores, order, axis=-1)
    keys = np.take_along_axis(np.broadcast_to(positions, scores.shape), order, axis=-1)
    keys = np.where(np.isinf(best), -1, keys)
    more = [(0, 0)] * (scores.ndim - 1) + [(0, count - keys.shape[-1])]
    return np.pad(best, more, constant_values=-np.inf), np.pad(keys, more, constant_values=-1)


def _select(call: Call) -> list[Array]:
    """Choose the best keys of every token of a pass."""
    q, k, factor = call.inputs
    i, j = (call.start("seq", n) + np.arange(call.inputs[n].shape[1]) for n in range(2))
    chosen = []
    for b in range(len(q)):
        scores = _index_scores(call, q[b], k[b, :, 0], factor[b])
        if call.op["causal"]:
            scores = np.where(j <= i[:, None], scores, -np.inf)
        chosen.append(_best_keys(scores, j, call.op["top_k"])[1])
    return [np.array(chosen)]


def _of_cached_keys(call: Call) -> tuple[Array, Array]:
    """Return the best of the keys that a cache has, of every token: scores and positions."""
    q, k, factor = call.inputs[:3]
    length, count = (_of_sequences(call, call.inputs[n], n, 0) for n in (3, 4))
    p, t = _positions(call, 1).ravel(), call.start("seq") + np.arange(q.shape[1])
    best = np.full((*q.shape[:2], call.op["top_k"]), -np.inf, q.dtype)
    keys = np.full(best.shape, -1)
    for b in range(len(q)):
        admitted = np.broadcast_to(p < length[b] + count[b], (len(t), len(p)))
        if call.op["causal"]:
            admitted = admitted & (p <= length[b] + t[:, None])
        held = admitted.any(axis=0)  # whatever the cache has elsewhere
        if held.any():
            scores = _index_scores(call, q[b], k[b].reshape(len(p), -1)[held], factor[b])
            scores = np.where(admitted[:, held], scores, -np.inf)
            best[b], keys[b] = _best_keys(scores, p[held], call.op["top_k"])
    return best, keys


def _cached_select(call: Call) -> list[Array]:
    """Choose the best keys among all positions."""
    return [_of_cached_keys(call)[1]]


def _partial_select(call: Call) -> list[Array]:
    """Choose the best keys of one lane, and return their scores as well."""
    return [np.expand_dims(x, 1) for x in _of_cached_keys(call)]


def _merge_select(call: Call) -> list[Array]:
    """Choose the best keys of all lanes."""
    scores, keys = (np.moveaxis(x, 1, 2).reshape(x.shape[0], x.shape[2], -1) for x in call.inputs)
    return [_best_keys(scores, keys, call.places[0].shape[-1])[1]]


def _scale(op: dict[str, Any]) -> float:
    """Return what products of queries and keys are multiplied with."""
    return float(op.get("scale") or 1 / math.sqrt(op["softmax_width"]))


def _capped(op: dict[str, Any], scores: Array) -> Array:
    """Bend scores towards a soft cap."""
    cap = op.get("soft_cap")
    return scores if cap is None else cap * np.tanh(scores / cap)


def _reached(op: dict[str, Any], i: Array, j: Array) -> Array:
    """Return whether a token at position i attends to position j: of its window, or of its chunk."""
    seen = j <= i
    if op.get("window") is not None:
        seen = seen & (j > i - op["window"])
    if op.get("chunk") is not None:
        seen = seen & (j // op["chunk"] == i // op["chunk"])
    return np.asarray(seen)


def _sinks(call: Call, own: int, other: int, axis: int) -> Array:
    """Return the sinks (input `own`) of the heads of input `other`, as (head, 1)."""
    place, heads = call.places[own], call.places[other].region[axis]
    if place.region != (heads,):
        raise ValueError("sinks are of other heads")
    return np.asarray(call.inputs[own][:, None])


def _beside_sinks(call: Call, own: int, lse: Array) -> Array | float:
    """Return which part of a softmax is not the sinks': (batch, seq, head, 1)."""
    if len(call.inputs) <= own:
        return 1.0
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(_sinks(call, own, 0, 2) - lse)))


def _activation(call: Call) -> list[Array]:
    """Apply gelu, relu, silu, ..., sigmoid."""
    return [_activated(call.op["function"], call.inputs[0])]


def _activated(function: str, x: Array) -> Array:
    """Return an elementwise function of x."""
    if function == "gelu":
        erf = np.vectorize(math.erf, otypes=[np.float64])
        return np.asarray(x * (1 + erf(x / math.sqrt(2)).astype(x.dtype)) / 2)
    if function == "gelu_tanh":
        return np.asarray(x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))) / 2)
    if function == "relu":
        return np.maximum(x, 0)
    if function == "relu_squared":
        return np.maximum(x, 0) ** 2
    if function == "silu":
        with np.errstate(over="ignore"):
            return np.asarray(x / (1 + np.exp(-x)))
    if function == "sigmoid":
        with np.errstate(over="ignore"):
            return np.asarray(1 / (1 + np.exp(-x)))
    raise ValueError(f"no activation {function}")


def _route(call: Call) -> list[Array]:
    """Return the gates of every token: the scores of its best top_k experts, renormalised and scaled, zero for others.

    Without `router` the scores are a softmax, chosen by the logits.
    """
    x, weight, *biases = call.inputs
    router = {"scores": "softmax", "scale": 1.0, "sum_eps": 0.0, "least_sum": 0.0, "jitter": 0.0}
    router = {"logits_scale": 1.0} | router | call.op.get("router", {})
    scale = router["scale"] * biases.pop() if router.get("gate_scales") else router["scale"]
    z = x @ weight * x.dtype.type(router["logits_scale"])
    if router.get("bias"):
        z = z + biases.pop(0)
    if router["scores"] == "sparse_mixer":
        return [scale * _sparse_mixer(z, router["jitter"])]
    s = _softmax(z) if router["scores"] == "softmax" else 1 / (1 + np.exp(-z))
    groups = router.get("groups")
    c = s if groups or router.get("choice_bias") else z
    if router.get("choice_bias"):
        c = c + biases.pop(0)
    if groups:
        each = c.reshape(*c.shape[:-1], groups["count"], -1)
        best = np.sort(each, axis=-1)
        score = best[..., -1] + (best[..., -2] if groups["score"] == "sum_of_two" else 0)
        c = np.where(_first(score, groups["top_k"])[..., None], each, -np.inf).reshape(c.shape)
    gates = np.where(_first(c, call.op["top_k"]), s, 0)
    if call.op["renormalise"]:
        gates = gates / np.maximum(gates.sum(axis=-1, keepdims=True) + router["sum_eps"], router["least_sum"])
    return [scale * gates]


def _softmax(z: Array) -> Array:
    """Return a softmax over the last dim."""
    weights = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def _first(x: Array, count: int) -> Array:
    """Tell the largest numbers of the last dim, so many of them; of equal ones the first."""
    best = np.argsort(-x, axis=-1, kind="stable")[..., :count]
    found = np.zeros(x.shape, bool)
    np.put_along_axis(found, best, np.True_, axis=-1)
    return found


def _sparse_mixer(z: Array, jitter: float) -> Array:
    """Twice: of the logits that are left the largest m gets its part of a softmax over those near m."""
    gates, left = np.zeros_like(z), z.copy()
    for _ in range(2):
        m = left.max(axis=-1, keepdims=True)
        far = (m - z) / np.maximum(np.abs(z), m) > 2 * jitter
        best = _first(left, 1)
        gates = np.where(best, _softmax(np.where(far, -np.inf, left)), gates)
        left = np.where(best, -np.inf, left)
    return gates


def _experts(call: Call) -> list[Array]:
    """Sum gate * f(x w_up) w_down over the experts that the weights hold, or with w_gate f(x w_gate) * (x w_up).

    Biases are added to every product, that of w_down by the part of ffn that begins at 0.
    """
    x, gates, *weights = call.inputs
    count = {2: 2, 3: 3, 4: 2, 6: 3}[len(weights)]
    (w_up, w_down, *w_gate), biases = weights[:count], weights[count:]
    first, function, parts = call.start("expert", 2), call.op["function"], []
    clamp, of_input = call.op.get("clamp"), call.op.get("gates_on") == "input"
    for e in range(len(w_up)):
        gate = gates[..., first + e, None]
        row = gate * x if of_input else x
        products = [row @ w[e] for w in (w_up, *w_gate)]
        if biases:
            products = [product + b[e] for product, b in zip(products, biases[::2], strict=True)]
        if clamp:
            g = np.minimum(products[1], clamp["limit"])
            u = np.clip(products[0], -clamp["limit"], clamp["limit"])
            inner = g / (1 + np.exp(-clamp["alpha"] * g)) * (u + 1)
        else:
            inner = _activated(function, products[-1]) * (products[0] if w_gate else 1)
        made = inner @ w_down[e]
        if biases and call.start("ffn", 2) == 0:
            made = made + biases[1][e]
        parts.append(np.where(gate == 0, 0, made) if of_input else gate * made)
    return [np.sum(parts, axis=0)]


def _token_gate(call: Call) -> list[Array]:
    """Multiply every token by the sigmoid of a product of its own."""
    x, t, weight = call.inputs
    return [x / (1 + np.exp(-(t @ weight)))[..., None]]


def _add(call: Call) -> list[Array]:
    """Add two values of equal regions, the second times a number."""
    return [call.inputs[0] + call.inputs[1] * call.inputs[1].dtype.type(call.op.get("multiplier", 1.0))]


def _last_token(call: Call) -> list[Array]:
    """Take of every sequence the token at its length - 1; zero where x has not that place."""
    x, length = call.inputs[0], _of_sequences(call, call.inputs[1], 1, 0)
    place = length - 1 - call.start("seq")
    there = (place >= 0) & (place < x.shape[1])
    return [np.where(there[:, None], x[np.arange(len(length)), np.where(there, place, 0)], 0)]


def _multiply(call: Call) -> list[Array]:
    """Multiply two values of equal regions."""
    return [call.inputs[0] * call.inputs[1]]


def _all_to_all(call: Call) -> list[Array]:
    """Put all inputs together along gather, and cut for every rank what its output declares of split."""
    whole = _all_gather(replace(call, op={"dim": call.op["gather"]}, made=call.made[:1]))[0]
    axis = call.axis(call.op["split"])
    return [whole.take(range(*cut), axis=axis) for cut in _cuts(call, call.op["split"], whole.shape[axis])]


def _all_gather(call: Call) -> list[Array]:
    """Put all inputs together along the dim, by where they begin."""
    dim = call.op["dim"]
    ascending = sorted(range(len(call.inputs)), key=lambda i: call.start(dim, i))
    return [np.concatenate([call.inputs[i] for i in ascending], axis=call.axis(dim))] * call.outputs


def _packed(call: Call) -> list[Array]:
    """Do each move with its share of the inputs and outputs, as if it were a task by itself."""
    moves, made = call.op["moves"], list[Array]()
    each, made_each = len(call.inputs) // len(moves), len(call.made) // len(moves)
    for i, op in enumerate(moves):
        mine = slice(i * each, (i + 1) * each)
        its = call.made[i * made_each : (i + 1) * made_each]
        made += KINDS[op["kind"]](Call(op, call.inputs[mine], call.places[mine], its))
    return made


def _cuts(call: Call, dim: str, extent: int) -> list[tuple[int, int]]:
    """Return the parts of a dim that the outputs tile one after the other, counted from the begin of the first."""
    begin, axis = call.start(dim), call.axis(dim)
    cuts = [(place.region[axis][0] - begin, place.region[axis][1] - begin) for place in call.made]
    if [start for start, _ in cuts] + [extent] != [0] + [stop for _, stop in cuts]:
        raise ValueError(f"{cuts} do not follow each other from 0 to {extent}")
    return cuts


def _reduce_scatter(call: Call) -> list[Array]:
    """Every output is the part of the sum of all inputs that it declares."""
    whole, dim = np.sum(call.inputs, axis=0), call.op["dim"]
    axis = call.axis(dim)
    return [whole.take(range(*cut), axis=axis) for cut in _cuts(call, dim, whole.shape[axis])]


def _narrow(call: Call) -> list[Array]:
    """Keep what the output declares of the dim."""
    axis, begin = call.axis(call.op["dim"]), call.start(call.op["dim"])
    start, stop = call.made[0].region[axis]
    return [call.inputs[0].take(range(start - begin, stop - begin), axis=axis)]


def _all_reduce(call: Call) -> list[Array]:
    """Every output is the sum of all inputs."""
    return [np.sum(call.inputs, axis=0)] * call.outputs


KINDS: dict[str, Callable[[Call], list[Array]]] = {
    "broadcast": _broadcast,
    "embed": _embed,
    "norm": _norm,
    "square_sums": _square_sums,
    "norm_by_sums": _norm_by_sums,
    "scale": _scaled,
    "linear": _linear,
    "head_linear": _head_linear,
    "join": _join,
    "bias": _bias,
    "rotate": _rotate,
    "attention": _attention,
    "activation": _activation,
    "route": _route,
    "experts": _experts,
    "token_gate": _token_gate,
    "add": _add,
    "last_token": _last_token,
    "multiply": _multiply,
    "rotate_at": _rotate_at,
    "scale_by": _scale_by,
    "scale_queries": _scale_queries,
    "cache_write": _cache_write,
    "expand": _expand,
    "cached_attention": _cached_attention,
    "partial_attention": _partial_attention,
    "select": _select,
    "cached_select": _cached_select,
    "partial_select": _partial_select,
    "merge_select": _merge_select,
    "merge": _merge,
    "best": _best,
    "choose": _choose,
    "sample": _sample,
    "all_to_all": _all_to_all,
    "all_gather": _all_gather,
    "all_reduce": _all_reduce,
    "reduce_scatter": _reduce_scatter,
    "packed": _packed,
    "narrow": _narrow,
    "send_receive": _broadcast,
}
