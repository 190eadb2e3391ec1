"""The type of a file that should be safetensors and is not, and how to get the right file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class FileType(NamedTuple):
    """The type of a file, if it is known, and how to get the right file."""

    what: str | None
    hint: str | None


_TORCH = "save the tensors as safetensors: safetensors.torch.save_file(torch.load(FILE, weights_only=True), ...)"
_AGAIN = "get the file again: it was not transferred whole"
# The first bytes of files, in lower case; the first entry that fits is taken.
_BEGINNINGS: tuple[tuple[bytes, FileType], ...] = (
    (
        b"version https://git-lfs.github.com/",
        FileType("a Git LFS pointer, not the file itself", "in the clone: git lfs pull; or get it with hf download"),
    ),
    (b"gguf", FileType("a GGUF file", "give the file itself, with a name that ends in .gguf")),
    (b"pk\x03\x04", FileType("a zip archive, as torch.save writes", _TORCH)),
    (b"\x80\x02", FileType("a pickle, as torch.save writes", _TORCH)),
    (b"\x80\x04", FileType("a pickle", _TORCH)),
    (b"\x93numpy", FileType("a NumPy array", "save it with safetensors.numpy.save_file")),
    (b"\x89hdf", FileType("an HDF5 file", "give the safetensors checkpoint")),
    (b"<", FileType("a page of HTML or XML", "a server answered with a page: sign in there, and get the file itself")),
    (b"{", FileType("JSON", "give a safetensors file, or the folder of the checkpoint")),
)


def identify(path: Path) -> FileType:
    """The type of a file that cannot be read as safetensors."""
    try:
        with path.open("rb") as file:
            begin = file.read(256)
    except OSError:
        return FileType(None, None)
    if not begin:
        return FileType("empty", _AGAIN)
    text = begin.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, what in _BEGINNINGS:
        if text.startswith(beginning):
            return what
    return FileType(None, _AGAIN if begin[8:9] == b"{" else None)  # the header of safetensors is JSON after 8 bytes
