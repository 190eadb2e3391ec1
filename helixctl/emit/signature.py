"""A signature in the pictures that Graphviz makes: a command overwrites a picture only if it finds it."""

from __future__ import annotations

import zlib
from typing import Final

from helixctl.output import SIGNATURE

_PNG_HEAD: Final = 8 + 25  # the signature and the header chunk, which is first in every PNG


def with_signature(picture: bytes, output_format: str) -> bytes:
    """A picture with the signature: in a PNG the text chunk "Software", in a PDF a comment at the end.

    Args:
        picture: the picture.
        output_format: png or pdf.
    """
    if output_format == "pdf":
        return picture + b"% " + SIGNATURE + b"\n"
    chunk = b"tEXtSoftware\0" + SIGNATURE
    size, check = (len(chunk) - 4).to_bytes(4, "big"), zlib.crc32(chunk).to_bytes(4, "big")
    return picture[:_PNG_HEAD] + size + chunk + check + picture[_PNG_HEAD:]
