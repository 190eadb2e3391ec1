"""What a file is that should be safetensors and is not, and how to get what was meant."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Foreign(NamedTuple):
    """What a file is, where it is known to be something else, and the way out."""

    what: str | None
    hint: str | None


_TORCH = "save the tensors as safetensors: safetensors.torch.save_file(torch.load(FILE, weights_only=True), ...)"
_AGAIN = "get the file again: it was not transferred whole"
# How files begin, in lower case; the first that fits is taken.
_BEGINNINGS: tuple[tuple[bytes, Foreign], ...] = (
    (
        b"version https://git-lfs.github.com/",
        Foreign("a Git LFS pointer, not the file itself", "in the clone: git lfs pull; or get it with hf download"),
    ),
    (b"gguf", Foreign("a GGUF file", "give the safetensors checkpoint that it was made of")),
    (b"pk\x03\x04", Foreign("a zip archive, as torch.save writes", _TORCH)),
    (b"\x80\x02", Foreign("a pickle, as torch.save writes", _TORCH)),
    (b"\x80\x04", Foreign("a pickle", _TORCH)),
    (b"\x93numpy", Foreign("a NumPy array", "save it with safetensors.numpy.save_file")),
    (b"\x89hdf", Foreign("an HDF5 file", "give the safetensors checkpoint")),
    (b"<", Foreign("a page of HTML or XML", "a server answered with a page: sign in there, and get the file itself")),
    (b"{", Foreign("JSON", "give a safetensors file, or the folder of the checkpoint")),
)


def foreign(path: Path) -> Foreign:
    """What a file is that cannot be read as what it should be."""
    try:
        with path.open("rb") as file:
            begin = file.read(256)
    except OSError:
        return Foreign(None, None)
    if not begin:
        return Foreign("empty", _AGAIN)
    text = begin.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, what in _BEGINNINGS:
        if text.startswith(beginning):
            return what
    return Foreign(None, _AGAIN if begin[8:9] == b"{" else None)  # the header of safetensors is JSON after 8 bytes
