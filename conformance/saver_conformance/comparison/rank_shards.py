"""Tensors of which each rank wrote a part into a file of its own.

torch.distributed.checkpoint writes such files in the format of safetensors, unless it consolidates
them (``HuggingFaceStorageWriter``). Their metadata say where each part begins in the whole tensor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saver_conformance.folder.safetensors import DTYPE_BITS, Header

_INFO, _OFFSETS = "DCP_SHARDING_INFO", "saved_offsets"
_MAX_PARTS = 1 << 20
_MAX_SIZE = 1 << 62

Read = Callable[[Path, int, int], bytes]
"""Reads bytes of a file: from which one on, and how many."""


class PartsError(ValueError):
    """Parts that make up no tensor; the message says why."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a tensor.

    Attributes:
        path: the file.
        begin: where its first element begins in the file, in bytes.
        start: its first index in each dimension of the tensor.
        shape: how many indices of each dimension it has.
    """

    path: Path
    begin: int
    start: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WholeTensor:
    """A tensor that was put together.

    Attributes:
        dtype: safetensors' name of the type.
        shape: the logical shape.
        parts: what tiles it.
    """

    dtype: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]


def join(headers: Mapping[Path, Header]) -> tuple[dict[str, WholeTensor], list[str]]:
    """Put the tensors of some files together.

    Args:
        headers: the headers of the files.

    Returns:
        The tensors by name, and what is wrong with those that cannot be put together.
    """
    held: dict[str, list[tuple[str, Part]]] = {}
    problems = []
    for path, header in headers.items():
        places = _places(header)
        for name, span in header.tensors.items():
            start = _start(places.get(name), len(span.shape))
            if start is None:
                problems.append(f"{path.name} does not say where its part of {name!r} belongs")
                continue
            part = Part(path, header.data_start + span.begin, start, span.shape)
            held.setdefault(name, []).append((span.dtype, part))
    found = {}
    for name, parts in held.items():
        try:
            found[name] = _whole(parts)
        except PartsError as error:
            problems.append(f"{parts[0][1].path.name}: {name!r}: {error}")
    return found, problems


def fill(
    out: memoryview, parts: Sequence[Part], shape: Sequence[int], first: int, item: int, read: Read
) -> None:
    """Read consecutive elements, in row-major order.

    Args:
        out: where they go.
        parts: what tiles the tensor.
        shape: of the tensor.
        first: the first element.
        item: bytes of an element.
        read: reads bytes of a file.
    """
    if not shape:
        out[:] = read(parts[0].path, parts[0].begin, item)
        return
    row = math.prod(shape[1:])
    done, count = 0, len(out) // item
    while done < count:
        number, inside = divmod(first + done, row)
        here = [part for part in parts if 0 <= number - part.start[0] < part.shape[0]]
        if len(here) == 1 and not inside and here[0].shape[1:] == tuple(shape[1:]):
            # Rows of one part lie one behind the other.
            rows = here[0].start[0] + here[0].shape[0] - number
            size = min(rows * row, count - done)
            data = read(here[0].path, _row(here[0], number, item).begin, size * item)
            out[done * item : (done + size) * item] = data
        else:
            size = min(row - inside, count - done)
            inner = [_row(part, number, item) for part in here]
            fill(out[done * item : (done + size) * item], inner, shape[1:], inside, item, read)
        done += size


def _row(part: Part, number: int, item: int) -> Part:
    """What a part has of one index of the first dimension."""
    begin = part.begin + (number - part.start[0]) * math.prod(part.shape[1:]) * item
    return Part(part.path, begin, part.start[1:], part.shape[1:])


def _places(header: Header) -> dict[str, Any]:
    try:
        found = json.loads(header.metadata.get(_INFO, ""))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _start(place: Any, dimensions: int) -> tuple[int, ...] | None:
    start = place.get(_OFFSETS) if isinstance(place, dict) else None
    if not isinstance(start, list) or len(start) != dimensions:
        return None
    if not all(type(index) is int and 0 <= index < _MAX_SIZE for index in start):
        return None
    return tuple(start)


def _whole(held: Sequence[tuple[str, Part]]) -> WholeTensor:
    dtype, first = held[0]
    if len({(kind, len(part.shape)) for kind, part in held}) > 1 or DTYPE_BITS[dtype] % 8:
        raise PartsError("its parts have other dtypes or numbers of dimensions")
    parts = [part for _, part in held]
    shape = tuple(
        max(part.start[d] + part.shape[d] for part in parts) for d in range(len(first.shape))
    )
    filled = [part for part in parts if math.prod(part.shape)]
    count = sum(math.prod(part.shape) for part in filled)
    if count != math.prod(shape) or len(filled) > _MAX_PARTS:
        raise PartsError(
            f"its parts have {count} of the {math.prod(shape)} elements of its shape "
            f"{list(shape)}; the file of a rank may be missing"
        )
    if _overlaps(filled, len(shape)):
        raise PartsError("some of its elements lie in two files")
    return WholeTensor(dtype, shape, tuple(filled or parts[:1]))


def _overlaps(parts: Sequence[Part], dimensions: int) -> bool:
    if not dimensions:
        return len(parts) > 1
    # Along the dimension with the most places, few parts lie side by side.
    along = max(range(dimensions), key=lambda d: len({part.start[d] for part in parts}))
    near: list[Part] = []
    for part in sorted(parts, key=lambda part: part.start[along]):
        begin = part.start[along]
        near = [one for one in near if one.start[along] + one.shape[along] > begin]
        if any(_overlap(one, part) for one in near):
            return True
        near.append(part)
    return False


def _overlap(one: Part, other: Part) -> bool:
    sides = zip(one.start, one.shape, other.start, other.shape, strict=True)
    return all(a < b + m and b < a + n for a, n, b, m in sides)
