"""Elements of tensors from their bytes, without torch or numpy.

Counts are taken of whole blocks at once, as integers of many lanes; values are decoded to floats.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Sequence
from functools import cache, lru_cache

from saver_conformance.folder.safetensors import DTYPE_BITS

PRECISION = {
    "F64": 53,
    "F32": 24,
    "F16": 11,
    "BF16": 8,
    "F8_E4M3": 4,
    "F8_E4M3FNUZ": 4,
    "F8_E5M2": 3,
    "F8_E5M2FNUZ": 3,
    "F8_E8M0": 1,
}
"""Bits of the significand of the floating dtypes, the hidden one too."""

_INTEGERS = {
    "I8": "b",
    "U8": "B",
    "BOOL": "B",
    "I16": "h",
    "U16": "H",
    "I32": "i",
    "U32": "I",
    "I64": "q",
    "U64": "Q",
}
# Bits of the exponent and of the fraction, and the bias; FNUZ has no infinity and one zero.
_FLOAT8 = {
    "F8_E4M3": (4, 3, 7),
    "F8_E5M2": (5, 2, 15),
    "F8_E4M3FNUZ": (4, 3, 8),
    "F8_E5M2FNUZ": (5, 2, 16),
}

Values = Sequence[float]


def has_values(dtype: str) -> bool:
    """Whether elements of ``dtype`` can be decoded."""
    return dtype in PRECISION or dtype in _INTEGERS


def decode(dtype: str, raw: bytes) -> Values:
    """The elements in ``raw``, in their order.

    Raises:
        ValueError: elements of ``dtype`` cannot be decoded.
    """
    if dtype in _INTEGERS:
        return array(_INTEGERS[dtype], raw)
    if dtype == "BF16":
        return memoryview(_widen(raw)).cast("f")
    if dtype == "F32":
        return memoryview(raw).cast("f")
    if dtype == "F64":
        return memoryview(raw).cast("d")
    if dtype == "F16":
        return struct.unpack(f"<{len(raw) // 2}e", raw)
    if dtype in PRECISION:
        return array("d", map(_float8(dtype).__getitem__, raw))
    raise ValueError(f"elements of {dtype} cannot be decoded")


def cast(raw: bytes, source: str, target: str) -> bytes | None:
    """``raw`` with its elements rounded to ``target``; None where that is not known."""
    if source not in PRECISION or target not in PRECISION or target in _FLOAT8:
        return None
    if source == "BF16" and target == "F32":
        return bytes(_widen(raw))
    if target == "F8_E8M0":
        return None
    values = decode(source, raw)
    if target == "F64":
        return array("d", values).tobytes()
    if target == "F16":
        return _half(values)
    single = raw if source == "F32" else array("f", values).tobytes()
    return single if target == "F32" else _narrow(single)


def survives(raw: bytes, dtype: str, narrow: str) -> bool:
    """Whether rounding to ``narrow`` and back loses nothing of ``raw``."""
    rounded = cast(raw, dtype, narrow)
    return rounded is not None and cast(rounded, narrow, dtype) == raw


def count_differences(dtype: str, one: bytes, other: bytes) -> tuple[int, int]:
    """How many elements differ, and how many bits of them; both blocks have the same length."""
    different = int.from_bytes(one, "little") ^ int.from_bytes(other, "little")
    width = DTYPE_BITS[dtype]
    folded, covered = different, 1
    while covered < width:
        step = min(covered, width - covered)
        folded |= folded >> step
        covered += step
    return (folded & _lowest_bits(width, len(one))).bit_count(), different.bit_count()


def first_difference(one: bytes, other: bytes) -> int:
    """The first byte that differs; the blocks are not equal."""
    different = int.from_bytes(one, "little") ^ int.from_bytes(other, "little")
    return ((different & -different).bit_length() - 1) // 8


def norm(values: Sequence[float]) -> float:
    """The Euclidean norm."""
    return math.hypot(*values)


@lru_cache(maxsize=8)
def _lowest_bits(width: int, size: int) -> int:
    """The lowest bit of each lane of ``width`` bits in ``size`` bytes."""
    period = math.lcm(width, 8)
    pattern = sum(1 << at for at in range(0, period, width)).to_bytes(period // 8, "little")
    return int.from_bytes((pattern * (size // len(pattern) + 1))[:size], "little")


def _widen(raw: bytes) -> bytearray:
    """Single precision of elements in bfloat16, which is its upper half."""
    wide = bytearray(2 * len(raw))
    wide[2::4], wide[3::4] = raw[0::2], raw[1::2]
    return wide


def _narrow(raw: bytes) -> bytes:
    """Single precision rounded to bfloat16, to the nearest and ties to even."""
    if any(map(math.isnan, memoryview(raw).cast("f"))):
        # The largest payloads would carry into the exponent and the next element.
        quiet = (math.nan if math.isnan(x) else x for x in memoryview(raw).cast("f"))
        raw = array("f", quiet).tobytes()
    bits = int.from_bytes(raw, "little")
    ones = _lowest_bits(32, len(raw))
    rounded = (bits + ((bits >> 16) & ones) + 0x7FFF * ones).to_bytes(len(raw) + 1, "little")
    narrow = bytearray(len(raw) // 2)
    narrow[0::2], narrow[1::2] = rounded[2 : len(raw) : 4], rounded[3 : len(raw) : 4]
    return bytes(narrow)


def _half(values: Values) -> bytes:
    try:
        return struct.pack(f"<{len(values)}e", *values)
    except OverflowError:
        return b"".join(map(_one_half, values))


def _one_half(value: float) -> bytes:
    try:
        return struct.pack("<e", value)
    except OverflowError:
        return struct.pack("<e", math.copysign(math.inf, value))


@cache
def _float8(dtype: str) -> tuple[float, ...]:
    if dtype == "F8_E8M0":
        return (*(2.0 ** (code - 127) for code in range(255)), math.nan)
    exponent_bits, fraction_bits, bias = _FLOAT8[dtype]
    return tuple(
        _one_float8(dtype, code, exponent_bits, fraction_bits, bias) for code in range(256)
    )


def _one_float8(dtype: str, code: int, exponent_bits: int, fraction_bits: int, bias: int) -> float:
    exponent = code >> fraction_bits & (1 << exponent_bits) - 1
    fraction = code & (1 << fraction_bits) - 1
    sign = -1.0 if code >> 7 else 1.0
    if dtype.endswith("FNUZ"):
        if code == 0x80:
            return math.nan
    elif dtype == "F8_E5M2" and exponent == 31:
        return math.nan if fraction else sign * math.inf
    elif dtype == "F8_E4M3" and code & 0x7F == 0x7F:
        return math.nan
    if exponent == 0:
        return sign * math.ldexp(fraction, 1 - bias - fraction_bits)
    return sign * math.ldexp((1 << fraction_bits) + fraction, exponent - bias - fraction_bits)
