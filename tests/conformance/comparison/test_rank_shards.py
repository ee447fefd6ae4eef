"""Folders in which each rank has written its part of the tensors, without torch."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path

import pytest

from saver_conformance.comparison.folder_diff import diff_folders
from saver_conformance.comparison.rank_shards import Part, fill
from saver_conformance.folder_check.audit import audit

Shape = tuple[int, ...]


def values(shape: Shape) -> bytes:
    return b"".join((n * 7 + 1).to_bytes(4, "little") for n in range(math.prod(shape)))


def grid(shape: Shape, cuts: Shape) -> list[tuple[Shape, Shape]]:
    """Begin and shape of each part of a tensor that is cut along each dimension."""
    edges = [
        [(size * n // parts, size * (n + 1) // parts) for n in range(parts)]
        for size, parts in zip(shape, cuts, strict=True)
    ]
    return [(tuple(a for a, _ in cell), tuple(b - a for a, b in cell)) for cell in product(*edges)]


def part(data: bytes, shape: Shape, start: Shape, size: Shape) -> bytes:
    found = b""
    for index in product(*(range(a, a + n) for a, n in zip(start, size, strict=True))):
        number = 0
        for i, n in zip(index, shape, strict=True):
            number = number * n + i
        found += data[number * 4 : number * 4 + 4]
    return found


def write_file(
    path: Path, tensors: dict[str, tuple[Shape, bytes]], starts: dict[str, Shape] | None
) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    if starts is not None:
        info = json.dumps({name: {"saved_offsets": start} for name, start in starts.items()})
        header["__metadata__"] = {"format": "pt", "DCP_SHARDING_INFO": info}
    body = b""
    for name, (shape, data) in tensors.items():
        header[name] = {
            "dtype": "F32",
            "shape": shape,
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


SHAPES: dict[str, Shape] = {"a": (5, 7), "b": (6,), "c": (3, 4, 5), "d": (), "e": (0, 3)}


def make_folders(root: Path, mesh: tuple[int, int]) -> None:
    """A model as a whole, and in the files of a mesh of ranks."""
    for name in ("whole", "shards"):
        (root / name).mkdir()
    tensors = {name: (shape, values(shape)) for name, shape in SHAPES.items()}
    write_file(root / "whole" / "model.safetensors", tensors, None)
    ranks = mesh[0] * mesh[1]
    held: list[dict[str, tuple[Shape, bytes]]] = [{} for _ in range(ranks)]
    starts: list[dict[str, Shape]] = [{} for _ in range(ranks)]
    for name, (shape, data) in tensors.items():
        cuts = mesh[: len(shape)] + (1,) * (len(shape) - 2)
        for rank, (start, size) in enumerate(grid(shape, cuts)):
            held[rank][name] = size, part(data, shape, start, size)
            starts[rank][name] = start
    for rank in range(ranks):
        path = root / "shards" / f"shard-{rank + 1:05}-model-00001-of-00001.safetensors"
        write_file(path, held[rank], starts[rank])


@pytest.mark.parametrize(("shape", "cuts"), [((), ()), ((7,), (3,)), ((5, 7), (2, 3))])
def test_fill_reads_any_elements_of_any_grid(shape: Shape, cuts: Shape) -> None:
    data = values(shape)
    cells = grid(shape, cuts)
    files = [bytes(3) + part(data, shape, *cell) for cell in cells]
    parts = [Part(Path(str(n)), 3, *cell) for n, cell in enumerate(cells)]

    def read(path: Path, begin: int, count: int) -> bytes:
        return files[int(path.name)][begin : begin + count]

    total = math.prod(shape)
    for first in range(total):
        for last in range(first + 1, total + 1):
            out = bytearray((last - first) * 4)
            fill(memoryview(out), parts, shape, first, 4, read)
            assert out == data[first * 4 : last * 4]


@pytest.mark.parametrize("mesh", [(3, 1), (1, 3), (2, 2)])
def test_diff_of_shards_of_ranks_and_the_whole_is_same(
    mesh: tuple[int, int], tmp_path: Path
) -> None:
    make_folders(tmp_path, mesh)
    found = diff_folders(tmp_path / "whole", tmp_path / "shards")
    assert found.is_same, found
    assert found.formats == ("safetensors", "shards of ranks")
    last = max((tmp_path / "shards").iterdir())
    raw = bytearray(last.read_bytes())
    raw[-1] ^= 1
    last.write_bytes(raw)
    found = diff_folders(tmp_path / "whole", tmp_path / "shards")
    assert not found.is_same
    assert set(found.parts[0].changed) == {"c"}


def test_diff_of_shards_without_the_file_of_a_rank_says_so(tmp_path: Path) -> None:
    make_folders(tmp_path, (3, 1))
    middle = sorted((tmp_path / "shards").iterdir())[1]
    middle.unlink()
    (part,) = diff_folders(tmp_path / "whole", tmp_path / "shards").parts
    assert any("the file of a rank may be missing" in text for text in part.uncompared)
    (tmp_path / "twice").mkdir()
    make_folders(tmp_path / "twice", (2, 1))
    first = min((tmp_path / "twice" / "shards").iterdir())
    (first.parent / "shard-00009-model-00001-of-00001.safetensors").write_bytes(first.read_bytes())
    (part,) = diff_folders(tmp_path / "twice" / "whole", tmp_path / "twice" / "shards").parts
    assert part.uncompared


@pytest.mark.parametrize(
    "info", ["", "[]", '{"a": 3}', '{"a": {"saved_offsets": [0, -1]}}', "[" * 9999]
)
def test_shards_that_do_not_say_where_they_belong_are_not_compared(
    info: str, tmp_path: Path
) -> None:
    text = json.dumps(
        {
            "__metadata__": {"format": "pt", "DCP_SHARDING_INFO": info},
            "a": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]},
        }
    ).encode()
    file = len(text).to_bytes(8, "little") + text + bytes(4)
    (tmp_path / "shard-00001-model-00001-of-00001.safetensors").write_bytes(file)
    found = diff_folders(tmp_path, tmp_path)
    assert not found.is_same
    assert "does not say where its part of 'a' belongs" in found.parts[0].uncompared[0]


def test_check_of_shards_of_ranks_says_what_they_are(tmp_path: Path) -> None:
    make_folders(tmp_path, (2, 1))
    assert "shards of ranks" in str(audit(tmp_path / "shards"))
