"""Malformations of the bytes of a document, whatever they mean."""

from __future__ import annotations

import gzip

from tests.fuzz.malformation import Draw, MalformationRegistry, good

malformation = MalformationRegistry()
_SIGNS = "{}[]:,\"'#&*!|>-?%@`~\t\n \\"


@malformation("cut off", 3)
def cut_off(draw: Draw) -> bytes:
    data = draw.text.encode()
    return data[: draw.random.randrange(len(data))]


@malformation("beginning lost")
def headless(draw: Draw) -> bytes:
    data = draw.text.encode()
    return data[draw.random.randrange(len(data)) :]


@malformation("some bytes are others", 3)
def flipped(draw: Draw) -> bytes:
    data = bytearray(draw.text.encode())
    for _ in range(draw.size(1, 100)):
        data[draw.random.randrange(len(data))] = draw.random.randrange(256)
    return bytes(data)


@malformation("some characters are others", 3)
def mistyped(draw: Draw) -> bytes:
    text = list(draw.text)
    for _ in range(draw.size(1, 20)):
        text[draw.random.randrange(len(text))] = draw.pick(_SIGNS)
    return "".join(text).encode()


@malformation("characters dropped or added", 3)
def slipped(draw: Draw) -> bytes:
    text = draw.text
    for _ in range(draw.size(1, 10)):
        at = draw.random.randrange(len(text))
        text = text[:at] + draw.pick(("", draw.pick(_SIGNS))) + text[at + draw.pick((0, 1)) :]
    return text.encode()


@malformation("lines lost, repeated or in another order", 2)
def shuffled(draw: Draw) -> bytes:
    lines = draw.text.splitlines(keepends=True)
    for _ in range(draw.size(1, 10)):
        a, b = draw.random.randrange(len(lines)), draw.random.randrange(len(lines))
        if draw.random.random() < 0.5:
            lines[a], lines[b] = lines[b], lines[a]
        else:
            lines[a : a + 1] = draw.pick(([], [lines[a]] * draw.size(2, 1000), [lines[b]]))
        lines = lines or [""]
    return "".join(lines).encode()


@malformation("lines indented otherwise", 2)
def indented(draw: Draw) -> bytes:
    lines = draw.text.splitlines(keepends=True)
    for _ in range(draw.size(1, 10)):
        at = draw.random.randrange(len(lines))
        lines[at] = draw.pick((" ", "  ", "\t", "\N{NO-BREAK SPACE}", "")) + lines[at].lstrip(draw.pick(("", " ")))
    return "".join(lines).encode()


@malformation("random bytes", 2)
def noise(draw: Draw) -> bytes:
    return draw.random.randbytes(draw.size(1, 2**16))


@malformation("random signs")
def signs(draw: Draw) -> bytes:
    return "".join(draw.random.choices(_SIGNS + "abn01.", k=draw.size(1, 2**14))).encode()


@malformation("another encoding", 3)
def encoded(draw: Draw) -> bytes:
    text = draw.text.replace("name", draw.pick(("name", "größe", "名前", "\N{GRINNING FACE}")), 1)
    codec = draw.pick(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252", "shift_jis", "cp037", "gbk"))
    return text.encode(codec, "replace" if codec not in {"latin-1", "cp1252"} else "namereplace")


@malformation("byte order marks, NULs and control characters", 2)
def controls(draw: Draw) -> bytes:
    data = draw.text.encode()
    at = draw.pick((0, len(data), draw.random.randrange(len(data))))
    sign = draw.pick(
        (b"\xef\xbb\xbf", b"\0", b"\x1b[31m", b"\x7f", b"\xc0\x80", b"\xed\xa0\x80", b"\r", b"\xe2\x80\xa8")
    )
    return data[:at] + sign * draw.size(1, 1000) + data[at:]


@malformation("an archive, a picture, a program")
def other_files(draw: Draw) -> bytes:
    packed = gzip.compress(draw.text.encode())
    heads = (packed, b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"\x7fELF", b"%PDF-1.7\n", b"<html>", b"#!/bin/sh\n")
    return draw.pick(heads) + draw.random.randbytes(draw.size(1, 2**12))


@malformation("two documents in one file")
def doubled(draw: Draw) -> bytes:
    other = good()[draw.pick(sorted(good()))]
    return (draw.text + draw.pick(("", "\n", "\n---\n", "\n...\n", ",")) + other).encode()


@malformation("empty, or hardly anything")
def tiny(draw: Draw) -> bytes:
    texts = ("", " ", "\n\n", "---", "...", "{}", "[]", "null", "0", '""', "{", "[", '"', "-", "?", ":", "# words",
             "%YAML 9.9\n---\n{}", "%TAG ! x:\n---\n!a {}", "{}{}", "nan", "=", "<<", "~", "{:", "? :")  # fmt: skip
    return draw.pick(texts).encode()
