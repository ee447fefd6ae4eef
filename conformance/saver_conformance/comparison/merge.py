"""Whether the tensors of a merged model are those of base plus adapter, row by row.

The merge may have computed in the dtype of the base, of the adapter or of the result, on any
device, and may have rounded the product before it was added; a value counts as right within what
these ways can differ by.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from saver_conformance.comparison import elements
from saver_conformance.comparison.elements import PRECISION
from saver_conformance.comparison.merge_plan import Block
from saver_conformance.comparison.stored import StoredTensor, TensorBytes
from saver_conformance.folder.safetensors import DTYPE_BITS

PRODUCTS = 1 << 22
"""Multiplications for one target; of larger ones some rows are looked at, evenly spread."""

_TINY = {"F16": 2.0**-24, "BF16": 2.0**-133, "F32": 2.0**-149, "F64": 0.0}
_COARSEST_PRODUCT = 2.0**-10
"""TF32, in which GPUs multiply single precision, has 11 bits."""
_COARSE = ("BF16", "F16")
_ROOM = 1.25
"""For a rounding to half precision on the way, and for the last bits of the sums."""
_NEAR = 0.05
_MOST_MERGES = 8
"""Merges of the same adapter whose roundings are allowed for."""


class Outcome(Enum):
    """What became of a target."""

    MERGED = "merged"
    INVISIBLE = "the change is smaller than the rounding"
    MISSED = "not merged"
    PARTLY = "merged in part"
    SCALED = "merged with another scale"
    OTHER = "not base + scale * B @ A"
    UNCHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class TargetCheck:
    """What became of one target.

    Attributes:
        outcome: what became of it.
        factor: the multiple of the adapter that was merged, where it is not 1.
        rows: rows that were looked at.
        of_rows: rows of the target.
        wrong: elements that are not as expected.
        elements: elements that were looked at.
        largest: the largest distance from what is expected.
        reason: why it was not checked.
    """

    outcome: Outcome
    factor: float = 1.0
    rows: int = 0
    of_rows: int = 0
    wrong: int = 0
    elements: int = 0
    largest: float = 0.0
    reason: str = ""


@dataclass(slots=True)
class _Tally:
    elements: int = 0
    wrong: int = 0
    untouched_where_wrong: int = 0
    changed: int = 0
    largest: float = 0.0
    rows: int = 0
    products: float = 0.0
    squares: float = 0.0


class Factors:
    """The factors of a block; of the one that has the rows only those are read that are requested.

    Attributes:
        right: rows of the other one, one for each rank.
        norms: norms of the columns of ``right``.
    """

    def __init__(self, block: Block) -> None:
        self._block = block
        source = block.a if block.is_transposed else block.b
        self._source = source
        self._bytes = TensorBytes(source)
        self._columns = source.numel // source.shape[0]
        self.right = _right(block)
        self.norms = tuple(map(math.hypot, *self.right))

    def __enter__(self) -> Factors:
        self._bytes.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._bytes.__exit__(*error)

    def left(self, row: int) -> Sequence[float]:
        """The ``rank`` values of the factor that has the rows, for one row of the block."""
        block = self._block
        index, experts = block.expert
        at = row + block.offset
        if block.is_transposed:
            places = ((index * block.rank + k) * self._columns + at for k in range(block.rank))
            return [self._read(place, 1)[0] for place in places]
        return list(self._read(at * self._columns, self._columns)[index::experts])

    def _read(self, first: int, count: int) -> elements.Values:
        item = DTYPE_BITS[self._source.dtype] // 8
        raw = self._bytes.read(first * item, (first + count) * item)
        return elements.decode(self._source.dtype, raw)


def _right(block: Block) -> tuple[Sequence[float], ...]:
    """The rows of the factor that all rows of the block share."""
    index, experts = block.expert
    if not block.is_transposed:
        columns = block.a.numel // block.a.shape[0]
        begin = index * block.rank * columns
        values = _values(block.a, begin, begin + block.rank * columns)
        return tuple(list(values[k * columns : (k + 1) * columns]) for k in range(block.rank))
    values, wide = _values(block.b, 0, block.b.numel), block.b.numel // block.b.shape[0]
    return tuple(list(values[k * experts + index :: wide]) for k in range(block.rank))


def check_target(
    base: StoredTensor, merged: StoredTensor, blocks: Sequence[Block], *, every: bool = False
) -> TargetCheck:
    """Whether ``merged`` is ``base`` with the products of ``blocks`` added.

    Args:
        base: the tensor before the merge.
        merged: the tensor after it, of the same shape.
        blocks: what is added to which rows.
        every: whether all rows are looked at, however many there are.

    Raises:
        UnreadableTensorError: a file cannot be read any more.
    """
    dtypes = (base.dtype, merged.dtype, blocks[0].a.dtype, blocks[0].b.dtype)
    if not all(dtype in _TINY for dtype in dtypes):
        return TargetCheck(Outcome.UNCHECKED, reason=f"its dtypes are {', '.join(dtypes)}")
    check = _Check(base, merged, blocks, every=every)
    once = check.run(1.0)
    if not once.wrong:
        outcome = Outcome.MERGED if once.changed else Outcome.INVISIBLE
        return check.result(outcome, once)
    if not once.changed:
        return check.result(Outcome.MISSED, once, factor=0.0)
    factor = once.products / once.squares if once.squares else 1.0
    for guess in _guesses(factor, blocks[0]):
        again = check.run(guess)
        if not again.wrong:
            return check.result(Outcome.SCALED, once, factor=guess)
    if once.untouched_where_wrong == once.wrong:
        return check.result(Outcome.PARTLY, once)
    return check.result(Outcome.OTHER, once)


def _guesses(factor: float, block: Block) -> Iterator[float]:
    """Multiples near ``factor`` that a known mistake makes, and ``factor`` itself."""
    if not math.isfinite(factor) or not factor:
        return
    root = math.sqrt(block.rank)
    whole = [float(round(factor)), 1 / round(1 / factor) if round(1 / factor) else 0.0]
    for guess in (*whole, root, 1 / root):
        if guess not in (0.0, 1.0) and abs(factor / guess - 1) < _NEAR:
            yield guess
    yield factor


class _Check:
    """One target, to be looked at for several multiples of its adapter."""

    def __init__(
        self,
        base: StoredTensor,
        merged: StoredTensor,
        blocks: Sequence[Block],
        *,
        every: bool,
    ) -> None:
        self._base, self._merged, self._blocks = base, merged, blocks
        self._rows = sum(block.rows for block in blocks)
        self._columns = base.numel // max(1, self._all_rows())
        cost = sum(block.rows * block.rank for block in blocks) * self._columns
        self._step = 1 if every else max(1, math.ceil(cost / PRODUCTS))
        bits = min(PRECISION[base.dtype], PRECISION[merged.dtype])
        self._bits = min(bits, self._grid())
        factors = min(PRECISION[blocks[0].a.dtype], PRECISION[blocks[0].b.dtype], self._bits)
        self._slack = max(_COARSEST_PRODUCT, 2.0 ** (1 - factors))
        # A base in single precision may have been rounded when it was loaded, and once more after.
        self._roundings = 1 if PRECISION[base.dtype] == self._bits else 2
        # It may have been loaded in half precision, whose range ends early.
        self._tiny = max(_TINY[base.dtype], _TINY[merged.dtype], _TINY["F16"] / 2)

    def run(self, factor: float) -> _Tally:
        """Compare with base + ``factor`` * adapter."""
        tally = _Tally()
        with TensorBytes(self._base) as base, TensorBytes(self._merged) as merged:
            for number, block in enumerate(self._blocks):
                with Factors(block) as factors:
                    # Each block begins elsewhere, so that the rows of all together are spread.
                    for row in range(number % min(self._step, block.rows), block.rows, self._step):
                        at = block.first + row
                        old = self._row(base, self._base, at)
                        new = self._row(merged, self._merged, at)
                        left = factors.left(row)
                        delta = _product(left, factors.right, block.scale * factor)
                        size = abs(block.scale * factor) * math.hypot(*left) * self._slack
                        slack = [size * norm + self._tiny for norm in factors.norms]
                        self._add(tally, old, new, delta, slack, factor)
        return tally

    def result(self, outcome: Outcome, tally: _Tally, *, factor: float = 1.0) -> TargetCheck:
        """The check's answer."""
        return TargetCheck(
            outcome=outcome,
            factor=factor,
            rows=tally.rows,
            of_rows=self._rows,
            wrong=tally.wrong,
            elements=tally.elements,
            largest=tally.largest,
        )

    def _all_rows(self) -> int:
        """Rows of the tensor; a stack of experts has those of all of them."""
        last = self._blocks[-1]
        return last.first + last.rows

    def _row(self, data: TensorBytes, tensor: StoredTensor, row: int) -> elements.Values:
        size = self._columns * DTYPE_BITS[tensor.dtype] // 8
        return elements.decode(tensor.dtype, data.read(row * size, (row + 1) * size))

    def _grid(self) -> int:
        """The precision that the values of the merged tensor have, whatever dtype they are in."""
        dtype = self._merged.dtype
        size = self._columns * DTYPE_BITS[dtype] // 8
        with TensorBytes(self._merged) as data:
            rows = {0, self._all_rows() // 2, self._all_rows() - 1}
            raw = b"".join(data.read(row * size, (row + 1) * size) for row in rows)
        coarser = (name for name in _COARSE if PRECISION[name] < PRECISION[dtype])
        found = (name for name in coarser if elements.survives(raw, dtype, name))
        return PRECISION[next(found, dtype)]

    def _add(
        self,
        tally: _Tally,
        base: elements.Values,
        merged: elements.Values,
        delta: list[float],
        slack: list[float],
        factor: float,
    ) -> None:
        times = max(1, min(_MOST_MERGES, round(abs(factor))))
        relative = _ROOM * 2.0**-self._bits * (self._roundings + times - 1)
        unchanged = 0.0 if self._base.dtype == self._merged.dtype else 2.0**-self._bits
        tally.rows += 1
        for w, new, d, room in zip(base, merged, delta, slack, strict=True):
            change = new - w
            if not math.isfinite(change):
                continue
            tally.elements += 1
            tally.products += change * d
            tally.squares += d * d
            is_untouched = abs(change) <= unchanged * abs(w)
            tally.changed += not is_untouched
            distance = abs(change - d)
            if distance > relative * max(abs(new), abs(w + d)) + room:
                tally.wrong += 1
                tally.untouched_where_wrong += is_untouched
                tally.largest = max(tally.largest, distance)


def _product(left: Sequence[float], right: Sequence[Sequence[float]], scale: float) -> list[float]:
    row = [scale * left[0] * value for value in right[0]]
    for weight, values in zip(left[1:], right[1:], strict=True):
        factor = scale * weight
        if factor:
            row = [x + factor * value for x, value in zip(row, values, strict=True)]
    return row


def _values(tensor: StoredTensor, first: int, last: int) -> elements.Values:
    item = DTYPE_BITS[tensor.dtype] // 8
    with TensorBytes(tensor) as data:
        return elements.decode(tensor.dtype, data.read(first * item, last * item))
