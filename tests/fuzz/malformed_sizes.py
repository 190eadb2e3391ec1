"""Malformations that make a document too large, too deep, or larger than it looks."""

from __future__ import annotations

import json

from tests.fuzz.malformation import Draw, MalformationRegistry

malformation = MalformationRegistry()

_SCHEMAS = ("urn:helixctl:dag:1", "urn:helixctl:plan:1", "urn:helixctl:model:1", "nothing")


@malformation("one sign, very often", 2)
def repeated(draw: Draw) -> bytes:
    sign = draw.pick((b"\0", b" ", b"\n", b"a", b"0", b"9", b"-", b'"', b"#", b"\t", b"\xff", b":", b"\\", b"'", b"!",
                      b"- ", b"a: ", b"? ", b"| ", b"[],", b"\xf0\x9f\x98\x80"))  # fmt: skip
    return draw.pick((b"", draw.text.encode())) + sign * (draw.size() // len(sign))


@malformation("deeply nested", 3)
def deep(draw: Draw) -> bytes:
    depth = draw.size(50, 2**20)
    if draw.random.random() < 0.2:
        depth = min(depth, 2**11)  # as the size of the text grows with its square
        return "".join(" " * level + draw.pick(("a:", "-")) + "\n" for level in range(depth)).encode()
    opens, closes = draw.pick(
        (("[", "]"), ('{"a":', "}"), ("- ", ""), ("? ", ""), ("[{a: ", "}]"), ("!x [", "]"), ("- - ? ", ""))
    )
    return _within(draw, opens * depth + "1" + closes * draw.pick((depth, depth - 1, 0)))


@malformation("long lists and mappings", 3)
def wide(draw: Draw) -> bytes:
    item = draw.pick(
        ("0,", "[],", "{},", '"",', "[[0,1]],", '{"a":1},', "null,", "1e5,", "-1,", '{"id":"x"},', "[0,[0,[0]]],")
    )
    count = draw.size() // len(item)
    if draw.random.random() < 0.5:
        return _within(draw, "[" + item * (count - 1) + item[:-1] + "]")
    count = min(count, draw.most // 12)
    return _within(draw, "{" + ",".join(f'"k{i}":{item[:-1]}' for i in range(count)) + "}")


@malformation("a table of a good document, very long", 2)
def rows(draw: Draw) -> bytes:
    data = draw.fresh()
    tables = [key for key, part in data.items() if isinstance(part, list) and part]
    if not tables:
        data[draw.pick(list(data))] = [draw.fresh()] * draw.size(1, 100)
    else:
        key = draw.pick(tables)
        one = len(json.dumps(data[key]))
        data[key] *= max(1, draw.size(one, 2**25) // one)
    return json.dumps(data).encode()


@malformation("many unknown keys", 2)
def unknown_keys(draw: Draw) -> bytes:
    data = draw.fresh()
    where = draw.pick([data, *(part for part in data.values() if isinstance(part, dict))])
    where |= {
        draw.pick((f"head{i}", f"k{i}", f"attention_{i}", f"{i}" * 20)): i for i in range(draw.size(1, 2**20) // 8)
    }
    return json.dumps(data).encode()


@malformation("the same key, very often")
def same_keys(draw: Draw) -> bytes:
    count = draw.size(2, 2**22) // 8
    keys = [f'"k{i}":0' for i in range(draw.pick((0, count)))]
    return _within(draw, "{" + ",".join([*keys, *['"a":0'] * draw.pick((2, count))]) + "}")


@malformation("long keys and texts")
def long_texts(draw: Draw) -> bytes:
    data = draw.fresh()
    text = draw.pick(("x", "é", "[b]", "\\", "9", "a.", " ", "\n", "😀", "heads")) * (draw.size() // 5)
    if draw.random.random() < 0.5:
        data[text] = 1
    else:
        data[draw.pick(list(data))] = text
    return draw.written(data) if len(text) < 2**16 else json.dumps(data).encode()


@malformation("numbers of many digits")
def digits(draw: Draw) -> bytes:
    number = draw.pick(("", "-", "0.", "1e", "1e-", "1.", "0x", "+")) + draw.pick("0123456789") * draw.size(1, 2**22)
    if draw.random.random() < 0.5:
        return _within(draw, number)
    data = draw.fresh()
    data[draw.pick(list(data))] = "NUMBER"
    return json.dumps(data).replace('"NUMBER"', number, 1).encode()


@malformation("aliases that multiply", 3)
def aliases(draw: Draw) -> bytes:
    """A billion laughs, in its forms."""
    levels, width = draw.size(2, 40), draw.size(2, 20)
    lines = ["a0: &a0 [lol, lol]"]
    for i in range(1, levels):
        part = draw.pick((f"[{', '.join([f'*a{i - 1}'] * width)}]", f"{{<<: *a{i - 1}, x: *a{i - 1}}}"))
        lines.append(f"a{i}: &a{i} {part}")
    text = draw.pick(("", draw.text if not draw.text.startswith("{") else "")) + "\n" + "\n".join(lines)
    return (text + draw.pick(("", f"\nlayers: *a{levels - 1}", "\nx: *missing"))).encode()


@malformation("anchors and tags")
def tags(draw: Draw) -> bytes:
    part = draw.pick(("&a [*a]", "&a {b: *a}", "!!python/object/apply:os.system [exit 7]", "!!binary aGVsbG8=",
                      "!!set {a, b}", "!!python/name:os.abort", "!!int x", "!!float abc", "!!timestamp 2001-01-01",
                      "!<tag:yaml.org,2002:int> 3", "!!omap [a: 1]", "&a &b 1", "*a", "!!merge <<", "!!null x",
                      "!!bool perhaps", "! 3", "!!str 3"))  # fmt: skip
    return _within(draw, part)


def _within(draw: Draw, part: str) -> bytes:
    """The part as a document, or as the value of a key."""
    if draw.random.random() < 0.3:
        return part.encode()
    key = draw.pick((*list(read_keys(draw)), "x"))
    head = draw.pick(("", f'"$schema":"{draw.pick(_SCHEMAS)}",'))
    tail = draw.pick(("", ',"layers":4,"attention":{}', ',"hosts":1,"devices_per_host":2', ',"layout":{},"digests":{}',
                      ',"tasks":[],"tensors":[]', ',"model_type":"llama","architectures":["LlamaModel"]'))  # fmt: skip
    return f'{{{head}"{key}":{part}{tail}}}'.encode()


def read_keys(draw: Draw) -> list[str]:
    """The keys of the good document."""
    return list(draw.fresh())
