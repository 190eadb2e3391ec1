"""The fields of a document class, read from its JSON Schema: one view of models, dataclasses, dicts and tagged unions.

Needed to say what is wrong and to resolve ``--set``; pydantic itself does the validating.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter

from helixctl.spec.limits import shortened
from helixctl.spec.yaml_reader import DocumentPath

Node = dict[str, Any]

_PLAIN_KEY: Final = re.compile(r"[\w$-]+")
_LIMITS: Final = {
    "minimum": "of at least",
    "maximum": "of at most",
    "exclusiveMinimum": "over",
    "exclusiveMaximum": "under",
}
_LARGE: Final = 2**20
_SLIP: Final = 0.7  # of difflib's ratio: two words that share their first half are no slip
_WIDTH: Final = re.compile(r"[a-z]_?(1|2|4|8|16|32|64|128)(?![0-9])")
# What other programs call our dtypes, and None for those that helixctl does not compute in.
_OTHER_NAMES: Final = (
    dict.fromkeys(("fp16", "half", "f16", "torch.float16"), "float16")
    | dict.fromkeys(("bf16", "brain", "torch.bfloat16"), "bfloat16")
    | dict.fromkeys(("fp32", "float", "single", "f32", "torch.float32"), "float32")
    | dict.fromkeys(("fp64", "double", "f64", "torch.float64"), "float64")
    | dict.fromkeys(("tf32", "fp8", "float8", "fp4", "int8", "int4", "auto"))
    | {"gpu": "device", "gpus": "devices"}
)


@cache
def adapter(cls: Any) -> TypeAdapter[Any]:
    """The validator of a document class, made once; a model uses the same itself."""
    if isinstance(cls, type) and issubclass(cls, BaseModel):
        cls.model_rebuild()
    return TypeAdapter(cls)


@cache
def fields_of(cls: Any) -> Fields:
    """The fields of a document class, read once."""
    return Fields(adapter(cls).json_schema())


class Fields:
    """A walk through a JSON Schema by document path."""

    def __init__(self, schema: Node) -> None:
        """Keep the definitions, to follow references."""
        self._definitions: Node = schema.get("$defs", {})
        self.root = self.resolve(schema)

    def resolve(self, node: Node) -> Node:
        """The node without references and without "or null"."""
        while True:
            if "$ref" in node:
                node = self._definitions[node["$ref"].rpartition("/")[2]]
                continue
            options = [option for option in node.get("anyOf", ()) if option.get("type") != "null"]
            if len(options) > 1:
                return {**node, "anyOf": [self.resolve(option) for option in options]}
            if not options:
                return node
            node = options[0]

    def option(self, node: Node, value: object) -> Node:
        """Of a node that may be a list, a mapping or one value the form that a value was meant for."""
        wanted = "array" if isinstance(value, list | tuple) else "object" if isinstance(value, dict) else None
        options = [self.resolve(option) for option in node.get("anyOf", ()) if option.get("type") != "null"]
        forms = {type_ if (type_ := option.get("type")) in {"array", "object"} else None: option for option in options}
        return forms.get(wanted, forms.get(None, node)) if len(forms) == len(options) > 1 else node

    def step(self, node: Node, part: str | int) -> Node:
        """The node under a key or an index; empty where there is none."""
        node = self.option(node, [] if isinstance(part, int) else {})
        if part == node.get("discriminator", {}).get("propertyName"):
            return {"enum": list(node["discriminator"]["mapping"])}
        if isinstance(part, int):
            prefix = node.get("prefixItems", ())
            found = prefix[part] if part < len(prefix) else node.get("items")
        else:
            found = node.get("properties", {}).get(part) or node.get("additionalProperties")
        return self.resolve(found) if isinstance(found, dict) else {}

    def follow(self, loc: Sequence[str | int]) -> tuple[DocumentPath, Node]:
        """The document path and the node of a pydantic location, which also names the chosen member of a union."""
        path: DocumentPath = ()
        node = self.root
        for part in loc:
            if "discriminator" in node:
                member = node["discriminator"]["mapping"].get(part)
                node = self.resolve({"$ref": member}) if member else {}
            elif part != "[key]":
                path = (*path, part)
                node = self.step(node, part)
        return path, node

    def leaves(self, node: Node | None = None, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        """The paths of all fields that hold one value."""
        node = self.root if node is None else node
        if not keys_of(node):
            yield prefix
        for key in keys_of(node):
            yield from self.leaves(self.step(node, key), (*prefix, key))


def keys_of(node: Node) -> tuple[str, ...]:
    """The keys that a mapping may have; empty for all else, and where any key will do."""
    named = node.get("propertyNames", {}).get("enum", ())
    return (*node.get("properties", ()), *named)


def describe(node: Node) -> str:
    """What may stand at a node, to be read after "must be"."""
    if "enum" in node or "const" in node:
        return _one_of([str(value) for value in node.get("enum", [node.get("const")])])
    if "anyOf" in node:
        return ", or ".join(dict.fromkeys(map(describe, node["anyOf"])))
    if "discriminator" in node:
        return f"a mapping with a {node['discriminator']['propertyName']!r} key"
    words = {
        "integer": _describe_number,
        "number": _describe_number,
        "string": _describe_text,
        "boolean": lambda _: "true or false",
        "array": _describe_list,
        "object": _describe_mapping,
    }
    describe_type = words.get(node.get("type", ""))
    return describe_type(node) if describe_type else "another value"


def _one_of(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"one of {', '.join(words)}"


def _describe_number(node: Node) -> str:
    noun = "a whole number" if node["type"] == "integer" else "a number"
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None and high is not None:
        return f"{noun} from {low} to {_power(high)}"
    found = [f"{words} {_power(node[key])}" for key, words in _LIMITS.items() if key in node]
    return f"{noun} {' and '.join(found)}" if found else noun


def _power(limit: float) -> str:
    """2^40 rather than 1099511627776."""
    whole = int(limit)
    if whole != limit:
        return f"{limit:g}"
    return f"2^{whole.bit_length() - 1}" if whole >= _LARGE and whole & (whole - 1) == 0 else str(whole)


def _describe_text(node: Node) -> str:
    if node.get("examples"):
        return f"a quantity such as {node['examples'][0]}"
    low, high = node.get("minLength", 0), node.get("maxLength")
    text = "text"
    if high is not None:
        text = f"text of {low} to {high} characters" if low else f"text of at most {high} characters"
    return f"{text} that matches {node['pattern']}" if "pattern" in node else text


def _describe_list(node: Node) -> str:
    low, high = node.get("minItems"), node.get("maxItems")
    return f"a list of {low}" if low is not None and low == high else "a list"


def _describe_mapping(node: Node) -> str:
    keys = keys_of(node)
    return f"a mapping with the keys {', '.join(keys)}" if keys else "a mapping"


def dotted(path: DocumentPath) -> str:
    """``tasks[3].op.kind``."""
    text = ""
    for part in path:
        if isinstance(part, str) and _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{part!r}]"
    return text


def shown(value: object) -> str:
    """A value as its file spells it, on one line and not long."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "a mapping"
    return shortened(repr(value))


def did_you_mean(name: str, known: Sequence[str]) -> str | None:
    """A hint with the known name that was meant by a slip, or by another program's name: ``did you mean 'heads'?``."""
    return meant(like(name, known))


def like(name: str, known: Iterable[str], cutoff: float = _SLIP) -> list[str]:
    """The known name that is most like a name, if one is; never one of another width, such as float64 for float8."""
    names = list(known)
    other = _OTHER_NAMES.get(name.lower())
    if other is not None:
        return [other] if other in names else []
    width = _WIDTH.search(name)
    if width is not None:
        names = [n for n in names if (found := _WIDTH.search(n)) is None or found[1] == width[1]]
    return get_close_matches(name, names, n=1, cutoff=cutoff)


def meant(candidates: Sequence[str]) -> str | None:
    """A hint with all that may have been meant."""
    return f"did you mean {' or '.join(map(repr, candidates))}?" if candidates else None
