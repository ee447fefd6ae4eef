"""What is wrong with parts that do not make the files."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from canonical_saver.errors import VerifyError
from canonical_saver.formats.layout import File

_SAME = "is it the same model, sharded by its engine alone, on every rank?"


def outside(part: Sequence[int], files: Sequence[File]) -> VerifyError:
    """Say that a part is outside of its file: the file's number, the first byte, how many."""
    number, offset, size = part
    return VerifyError(
        f"{files[number].name}: expected parts within its {files[number].size} bytes, found "
        f"{size} bytes from {offset} on, outside of every file; {_SAME}"
    )


def broken(what: str, position: int, files: Sequence[File], bases: Sequence[int]) -> VerifyError:
    """Say where a byte of the files is missing or written twice.

    Args:
        what: a gap or an overlap.
        position: the byte, counted through all files.
        files: the layout.
        bases: the position of the first byte of each file.
    """
    number = bisect_right(bases, position) - 1
    file, byte = files[number], position - bases[number]
    for placed in file.tensors:
        if placed.offset <= byte < placed.offset + placed.size:
            return VerifyError(
                f"{file.name}: expected each byte of tensor '{placed.saved.name}' "
                f"{placed.saved.shape} from one rank, found {what} at byte {byte}; {_SAME}"
            )
    return VerifyError(
        f"{file.name}: expected bytes of tensors only, found a part outside of every tensor at "
        f"byte {byte}; {_SAME}"
    )
