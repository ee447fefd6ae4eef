"""Tensors that lie in several files, as the ranks that wrote them held them.

torch.distributed.checkpoint writes such files in the format of safetensors, one or more for each
rank, unless it is asked to consolidate them (``HuggingFaceStorageWriter``). The metadata of each
file says where its tensors begin in the whole ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import torch

from canonical_saver.proving.found_tensors import Chunk, FoundTensor
from canonical_saver.proving.safe_files import UnreadableError, parse_object, printable, quoted
from canonical_saver.proving.safetensors_header import are_sizes, nbytes, read_file

_INFO, _OFFSETS = "DCP_SHARDING_INFO", "saved_offsets"

Read = Callable[[str, int, torch.Tensor], None]
"""Reads bytes of a file, from an offset on, into a contiguous tensor of uint8."""


def read_chunks(folder: Path, file: str) -> list[tuple[FoundTensor, Chunk]]:
    """Read the header of one of these files: its tensors, and where they belong.

    Args:
        folder: the folder.
        file: the file, relative to it.

    Raises:
        UnreadableError: the header does not describe the bytes of the file, or not where they
            belong.
        OSError: the file cannot be read.
    """
    tensors, metadata = read_file(folder, file)
    text = metadata.get(_INFO)
    if not isinstance(text, str):
        raise UnreadableError(f"expected {_INFO} in its metadata, found none")
    places = parse_object(text.encode())
    return [(tensor, _chunk(tensor, places.get(tensor.name))) for tensor in tensors]


def joined(chunks: Sequence[tuple[FoundTensor, Chunk]]) -> tuple[list[FoundTensor], list[str]]:
    """Put tensors together.

    Args:
        chunks: all that the files hold.

    Returns:
        The whole tensors, and what is wrong with those that cannot be put together.
    """
    by_name: dict[str, list[tuple[FoundTensor, Chunk]]] = {}
    for tensor, chunk in chunks:
        by_name.setdefault(tensor.name, []).append((tensor, chunk))
    found: list[FoundTensor] = []
    problems: list[str] = []
    for name, held in by_name.items():
        try:
            found.append(_joined(held))
        except UnreadableError as error:
            problems.append(f"{printable(held[0][0].file)}: {quoted(name)}: {error}")
    return found, problems


def fill(
    out: torch.Tensor,
    chunks: Sequence[Chunk],
    shape: Sequence[int],
    first: int,
    item: int,
    read: Read,
) -> None:
    """Read consecutive elements of a tensor, in row-major order.

    As much memory again is needed at most.

    Args:
        out: contiguous tensor of uint8, filled.
        chunks: what tiles the tensor.
        shape: of the tensor.
        first: the first element.
        item: bytes of an element.
        read: reads bytes of a file.
    """
    if not shape:
        read(chunks[0].file, chunks[0].offset, out)
        return
    row = prod(shape[1:])
    done, count = 0, out.numel() // item
    while done < count:
        number, inside = divmod(first + done, row)
        if inside or count - done < row:  # a part of a row
            size = min(row - inside, count - done)
            inner = [_in_row(chunk, number, item) for chunk in chunks if _has(chunk, number)]
            fill(out[done * item :][: size * item], inner, shape[1:], inside, item, read)
        else:
            rows = (count - done) // row
            size = rows * row
            window = out[done * item :][: size * item].view(rows, *shape[1:], item)
            _fill_rows(window, chunks, number, item, read)
        done += size


def _fill_rows(
    window: torch.Tensor, chunks: Sequence[Chunk], number: int, item: int, read: Read
) -> None:
    """Read whole rows, of which those of a chunk lie one behind the other."""
    for chunk in chunks:
        first = max(number, chunk.start[0])
        last = min(number + len(window), chunk.start[0] + chunk.shape[0])
        if first >= last or not prod(chunk.shape):
            continue
        offset = _in_row(chunk, first, item).offset
        rows = window[first - number : last - number]
        if chunk.shape[1:] == rows.shape[1:-1]:
            read(chunk.file, offset, rows.view(-1))
            continue
        part = torch.empty(last - first, *chunk.shape[1:], item, dtype=torch.uint8)
        read(chunk.file, offset, part.view(-1))
        pairs = zip(chunk.start[1:], chunk.shape[1:], strict=True)
        rows[(slice(None), *(slice(start, start + size) for start, size in pairs))] = part


def _has(chunk: Chunk, number: int) -> bool:
    return chunk.start[0] <= number < chunk.start[0] + chunk.shape[0]


def _in_row(chunk: Chunk, number: int, item: int) -> Chunk:
    """What a chunk has of a row."""
    offset = chunk.offset + (number - chunk.start[0]) * prod(chunk.shape[1:]) * item
    return Chunk(chunk.file, offset, chunk.start[1:], chunk.shape[1:])


def _chunk(tensor: FoundTensor, place: Any) -> Chunk:
    start = place.get(_OFFSETS) if isinstance(place, Mapping) else None
    if not are_sizes(start) or len(start) != len(tensor.shape):
        raise UnreadableError(
            f"{quoted(tensor.name)}: expected its {_OFFSETS} in {_INFO}, one for each of its "
            f"{len(tensor.shape)} dimensions"
        )
    return Chunk(tensor.file, tensor.offset, tuple(start), tensor.shape)


def _joined(held: Sequence[tuple[FoundTensor, Chunk]]) -> FoundTensor:
    first = held[0][0]
    if any(t.dtype != first.dtype or len(t.shape) != len(first.shape) for t, _ in held):
        raise UnreadableError("expected parts of one dtype and number of dimensions, found others")
    chunks = sorted((chunk for _, chunk in held), key=lambda chunk: chunk.start)
    dimensions = range(len(first.shape))
    shape = tuple(max(chunk.start[d] + chunk.shape[d] for chunk in chunks) for d in dimensions)
    nbytes(first.dtype, shape)
    filled = [chunk for chunk in chunks if prod(chunk.shape)]
    if (twice := next(_overlaps(filled, shape), None)) is not None:
        raise UnreadableError(
            f"expected each element in one file, found those from {list(twice.start)} on in "
            f"{printable(twice.file)} and in another one"
        )
    if (count := sum(prod(chunk.shape) for chunk in filled)) != prod(shape):
        raise UnreadableError(
            f"expected parts that make up its shape {list(shape)}, found {count} of "
            f"{prod(shape)} elements; is the file of a rank missing?"
        )
    return replace(first, shape=shape, chunks=tuple(filled), offset=0)


def _overlaps(chunks: Sequence[Chunk], shape: Sequence[int]) -> Iterator[Chunk]:
    """Yield chunks of which another one has elements as well."""
    if not shape:
        yield from islice(chunks, 1, None)
        return
    # Along the dimension with the most places, few chunks lie side by side.
    along = max(range(len(shape)), key=lambda d: len({chunk.start[d] for chunk in chunks}))
    open_ones: list[Chunk] = []
    for chunk in sorted(chunks, key=lambda one: one.start[along]):
        begin = chunk.start[along]
        open_ones = [one for one in open_ones if one.start[along] + one.shape[along] > begin]
        if any(_overlap(one, chunk) for one in open_ones):
            yield chunk
        open_ones.append(chunk)


def _overlap(one: Chunk, other: Chunk) -> bool:
    sides = zip(one.start, one.shape, other.start, other.shape, strict=True)
    return all(a < b + m and b < a + n for a, n, b, m in sides)
