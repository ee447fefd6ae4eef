"""Two tensors compared bit for bit, and where they differ in words."""

from __future__ import annotations

from saver_conformance.observation.observation import Difference, Tensor

SHOWN_BYTES = 16
"""Bytes of each side that are shown, from the first that differs."""


def compare(name: str, right: Tensor, found: Tensor | None) -> Difference | None:
    """How ``found`` differs from ``right``, which is what belongs there; None if it does not."""
    if found is None:
        return _difference(name, right, describe(right), "nothing")
    if (found.dtype, tuple(found.shape)) != (right.dtype, tuple(right.shape)):
        return _difference(name, right, describe(right), describe(found))
    expected, there = bytes(right.data), bytes(found.data)
    if expected == there:
        return None
    offset, count = first_difference(expected, there)
    shown = slice(offset, offset + SHOWN_BYTES)
    return _difference(
        name,
        right,
        f"{expected[shown].hex(' ')} at byte {offset}",
        f"{there[shown].hex(' ')}; {count} of {len(expected)} bytes differ",
        offset,
        count,
    )


def describe(tensor: Tensor) -> str:
    """Dtype and shape of a tensor, such as ``F32[4, 8]``."""
    return f"{tensor.dtype}{list(tensor.shape)}"


def first_difference(right: bytes, found: bytes) -> tuple[int, int]:
    """Offset of the first differing byte of two different strings of one length, and the count."""
    differences = (int.from_bytes(right) ^ int.from_bytes(found)).to_bytes(len(right))
    offset = len(differences) - len(differences.lstrip(b"\0"))
    return offset, len(differences) - differences.count(0)


def _difference(
    name: str,
    right: Tensor,
    expected: str,
    found: str,
    offset: int | None = None,
    differing: int | None = None,
) -> Difference:
    return Difference(name, expected, found, right.dtype, tuple(right.shape), offset, differing)
