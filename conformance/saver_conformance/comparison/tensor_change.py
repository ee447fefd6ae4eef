"""How two tensors differ, read as streams."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import sub

from saver_conformance.comparison import elements
from saver_conformance.comparison.elements import PRECISION
from saver_conformance.comparison.stored import (
    BLOCK_BYTES,
    StoredTensor,
    TensorBytes,
    UnreadableTensorError,
)
from saver_conformance.folder.safetensors import DTYPE_BITS

MEASURED = 1 << 16
"""Elements of a tensor whose values are measured; bits are compared of all."""

_PROBE_BYTES = 4096
_LOADED_IN = ("BF16", "F16")

Advance = Callable[[int], None]
"""Called with the number of bytes that were read."""


@dataclass(frozen=True, slots=True)
class Change:
    """How a tensor differs from another one.

    Attributes:
        dtypes: of the first and of the second.
        shapes: of the first and of the second.
        elements: how many the first has.
        differing: how many differ; after the cast where the dtypes differ.
        bits: how many bits differ; 0 where the dtypes differ.
        first: the index of the first element that differs, counted flat; None where none does.
        measured: elements whose values were measured, spread over those blocks that differ.
        norm: of the difference, estimated for the whole tensor where not all were measured.
        before: the norm of the first over what was measured, likewise.
        largest: the largest absolute difference among those measured.
        not_finite: measured elements whose difference is no number: NaN and infinities.
    """

    dtypes: tuple[str, str]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    elements: int
    differing: int = 0
    bits: int = 0
    first: int | None = None
    measured: int = 0
    norm: float = 0.0
    before: float = 0.0
    largest: float = 0.0
    not_finite: int = 0

    @property
    def is_equal(self) -> bool:
        """Whether dtype, shape and all bits are the same."""
        return self.keeps_values and self.dtypes[0] == self.dtypes[1]

    @property
    def keeps_values(self) -> bool:
        """Whether the shape is the same, and all values, after a cast where the dtypes differ."""
        return self.shapes[0] == self.shapes[1] and not self.differing

    @property
    def share(self) -> float:
        """The share of elements that differ."""
        return self.differing / self.elements if self.elements else 0.0


class _Measure:
    """Sums over the elements that are measured."""

    def __init__(self) -> None:
        self.measured = self.not_finite = 0
        self.squares = self.before = self.largest = 0.0

    def add(self, one: elements.Values, other: elements.Values) -> None:
        difference = list(map(sub, one, other))
        self.measured += len(difference)
        if not all(map(math.isfinite, difference)):
            finite = [value for value in difference if math.isfinite(value)]
            self.not_finite += len(difference) - len(finite)
            difference = finite
        if difference:
            self.largest = max(self.largest, max(map(abs, difference)))
            self.squares += elements.norm(difference) ** 2
        self.before += elements.norm([value for value in one if math.isfinite(value)]) ** 2


def compare(
    one: StoredTensor, other: StoredTensor, *, every: bool = False, advance: Advance | None = None
) -> Change:
    """How ``other`` differs from ``one``.

    Args:
        one: a tensor.
        other: another one.
        every: whether the values of all elements are measured, however many there are.
        advance: is told of progress.

    Raises:
        UnreadableTensorError: a file cannot be read any more.
    """
    change = Change((one.dtype, other.dtype), (one.shape, other.shape), one.numel)
    if one.shape != other.shape:
        return change
    if one.dtype == other.dtype:
        return _compare_bits(one, other, change, every, advance or _ignore)
    return _compare_values(one, other, change, every, advance or _ignore)


def are_copies(one: StoredTensor, other: StoredTensor) -> bool:
    """Whether two tensors hold the same bits; False where they cannot be read."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    try:
        with TensorBytes(one) as left, TensorBytes(other) as right:
            size = min(_PROBE_BYTES, one.nbytes)
            if left.read(0, size) != right.read(0, size):
                return False
            return all(a == b for a, b in zip(left.blocks(), right.blocks(), strict=True))
    except UnreadableTensorError:
        return False


def find_rounding(one: StoredTensor, other: StoredTensor) -> str | None:
    """The dtype through which ``other`` is ``one``: loaded in it, and saved in another one.

    Raises:
        UnreadableTensorError: a file cannot be read any more.
    """
    if one.shape != other.shape or not all(t.dtype in PRECISION for t in (one, other)):
        return None
    left = [name for name in _LOADED_IN if name != one.dtype]
    step = BLOCK_BYTES // 8
    with TensorBytes(one) as a, TensorBytes(other) as b:
        size = _PROBE_BYTES // 8  # most tensors that were trained end the question at once
        begin = 0
        while begin < one.numel and left:
            end = min(begin + size, one.numel)
            raw, new = (
                data.read(*(at * DTYPE_BITS[dtype] // 8 for at in (begin, end)))
                for data, dtype in ((a, one.dtype), (b, other.dtype))
            )
            left = [name for name in left if _rounds(raw, new, (one.dtype, name, other.dtype))]
            begin, size = end, step
    return left[0] if left else None


def _rounds(raw: bytes, new: bytes, way: tuple[str, str, str]) -> bool:
    rounded = elements.cast(raw, way[0], way[1])
    return rounded is not None and _casts(rounded, new, (way[1], way[2]))


def _compare_bits(
    one: StoredTensor, other: StoredTensor, change: Change, every: bool, advance: Advance
) -> Change:
    differing = bits = 0
    first: int | None = None
    sums = _Measure()
    width = DTYPE_BITS[one.dtype]
    share = 1.0 if every else min(1.0, MEASURED / max(1, one.numel))
    with TensorBytes(one) as left, TensorBytes(other) as right:
        blocks = zip(left.blocks(), right.blocks(), strict=True)
        for number, (a, b) in enumerate(blocks):
            advance(len(a) + len(b))
            if a == b:
                continue
            if first is None:
                byte = number * BLOCK_BYTES + elements.first_difference(a, b)
                first = byte * 8 // width
            counted = elements.count_differences(one.dtype, a, b)
            differing, bits = differing + counted[0], bits + counted[1]
            if elements.has_values(one.dtype):
                size = _part(len(a) * 8 // width, share) * width // 8
                sums.add(elements.decode(one.dtype, a[:size]), elements.decode(one.dtype, b[:size]))
    return _finished(change, sums, differing, bits, first, share)


def _compare_values(
    one: StoredTensor, other: StoredTensor, change: Change, every: bool, advance: Advance
) -> Change:
    dtypes = (one.dtype, other.dtype)
    if not all(map(elements.has_values, dtypes)):
        return _finished(change, _Measure(), one.numel, 0, 0 if one.numel else None, 1.0)
    differing = 0
    first: int | None = None
    sums = _Measure()
    share = 1.0 if every else min(1.0, MEASURED / max(1, one.numel))
    step = BLOCK_BYTES // 8
    widths = [DTYPE_BITS[dtype] // 8 for dtype in dtypes]
    with TensorBytes(one) as left, TensorBytes(other) as right:
        for begin in range(0, one.numel, step):
            end = min(begin + step, one.numel)
            a = left.read(begin * widths[0], end * widths[0])
            b = right.read(begin * widths[1], end * widths[1])
            advance(len(a) + len(b))
            if _casts(a, b, dtypes) or _casts(b, a, (dtypes[1], dtypes[0])):
                continue
            apart = _apart(a, b, dtypes)
            if apart and first is None:
                first = begin + apart[0]
            differing += len(apart)
            size = _part(end - begin, share)
            sums.add(
                elements.decode(dtypes[0], a[: size * widths[0]]),
                elements.decode(dtypes[1], b[: size * widths[1]]),
            )
    return _finished(change, sums, differing, 0, first, share)


def _casts(a: bytes, b: bytes, dtypes: tuple[str, str]) -> bool:
    """Whether the elements of ``a`` become those of ``b`` when they are rounded to its dtype."""
    rounded = a if dtypes[0] == dtypes[1] else elements.cast(a, *dtypes)
    if rounded is None:
        return False
    return rounded == b or not _different(
        elements.decode(dtypes[1], rounded), elements.decode(dtypes[1], b)
    )


def _different(one: elements.Values, other: elements.Values) -> list[int]:
    """Places of elements that differ; the payloads of NaNs do not count."""
    pairs = enumerate(zip(one, other, strict=True))
    return [at for at, (x, y) in pairs if x != y and not (x != x and y != y)]


def _apart(a: bytes, b: bytes, dtypes: tuple[str, str]) -> list[int]:
    """Places of elements that are no casts of each other, in either direction."""
    one, other = (elements.decode(*pair) for pair in zip(dtypes, (a, b), strict=True))
    found = _different(one, other)
    for source, raw, target, values in (
        (dtypes[0], a, dtypes[1], other),
        (dtypes[1], b, dtypes[0], one),
    ):
        if (rounded := elements.cast(raw, source, target)) is not None:
            again = elements.decode(target, rounded)
            found = [at for at in found if again[at] != values[at]]
    return found


def _part(count: int, share: float) -> int:
    return min(count, math.ceil(count * share))


def _finished(
    change: Change, sums: _Measure, differing: int, bits: int, first: int | None, share: float
) -> Change:
    scale = 1 / math.sqrt(share)
    return Change(
        dtypes=change.dtypes,
        shapes=change.shapes,
        elements=change.elements,
        differing=differing,
        bits=bits,
        first=first,
        measured=sums.measured,
        norm=math.sqrt(sums.squares) * scale,
        before=math.sqrt(sums.before) * scale,
        largest=sums.largest,
        not_finite=sums.not_finite,
    )


def _ignore(_: int) -> None: ...
