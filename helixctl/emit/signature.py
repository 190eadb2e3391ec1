"""A sign in the pictures that Graphviz makes, by which the next one may take the place of one of ours."""

from __future__ import annotations

import zlib
from typing import Final

from helixctl.output import SIGN

_PNG_HEAD: Final = 8 + 25  # the signature and the header chunk, which is first in every PNG


def signed(picture: bytes, output_format: str) -> bytes:
    """The same picture with the sign: in a PNG the text chunk "Software", in a PDF a comment at its end."""
    if output_format == "pdf":
        return picture + b"% " + SIGN + b"\n"
    chunk = b"tEXtSoftware\0" + SIGN
    size, check = (len(chunk) - 4).to_bytes(4, "big"), zlib.crc32(chunk).to_bytes(4, "big")
    return picture[:_PNG_HEAD] + size + chunk + check + picture[_PNG_HEAD:]
