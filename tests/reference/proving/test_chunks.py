"""Folders in which each rank has written its part of the tensors."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.helpers import models

from canonical_saver import prove
from canonical_saver.proving.chunks import fill, joined
from canonical_saver.proving.folder_digest import digest_folder
from canonical_saver.proving.found_tensors import Chunk, FoundTensor
from canonical_saver.writing.model_digest import model_digest

Offsets = tuple[int, ...]


def grid(shape: tuple[int, ...], cuts: tuple[int, ...]) -> list[tuple[Offsets, Offsets]]:
    """Begin and shape of each part of a tensor that is cut along each dimension."""
    edges = [
        [(size * n // parts, size * (n + 1) // parts) for n in range(parts)]
        for size, parts in zip(shape, cuts, strict=True)
    ]
    return [(tuple(a for a, _ in cell), tuple(b - a for a, b in cell)) for cell in product(*edges)]


def part(tensor: torch.Tensor, start: Offsets, shape: Offsets) -> torch.Tensor:
    sides = zip(start, shape, strict=True)
    return tensor[tuple(slice(a, a + n) for a, n in sides)].clone()


def write_shards(
    folder: Path, tensors: dict[str, torch.Tensor], rows: int, columns: int, skip: str = ""
) -> None:
    """Cut each tensor over a mesh of ranks, and write a file for each of them."""
    folder.mkdir()
    held: list[dict[str, torch.Tensor]] = [{} for _ in range(rows * columns)]
    info: list[dict[str, Any]] = [{} for _ in held]
    for name, tensor in tensors.items():
        cuts = (rows, columns)[: tensor.dim()] + (1,) * (tensor.dim() - 2)
        for rank, (start, shape) in enumerate(grid(tuple(tensor.shape), cuts)):
            held[rank][name] = part(tensor, start, shape)
            info[rank][name] = {"saved_offsets": start}
    for rank, own in enumerate(held):
        info[rank].pop(skip, None)
        path = folder / f"shard-{rank + 1:05}-model-00001-of-00001.safetensors"
        save_file(own, path, {"format": "pt", "DCP_SHARDING_INFO": json.dumps(info[rank])})


@pytest.mark.parametrize(
    ("shape", "cuts"),
    [((), ()), ((7,), (3,)), ((5, 7), (2, 3)), ((5, 7), (1, 4)), ((3, 4, 5), (2, 2, 3))],
)
def test_fill_reads_any_elements_of_any_grid(
    shape: tuple[int, ...], cuts: tuple[int, ...], tmp_path: Path
) -> None:
    tensor = torch.randn(shape)
    chunks: list[Chunk] = []
    files: dict[str, bytes] = {}
    for number, (start, size) in enumerate(grid(shape, cuts)):
        files[str(number)] = bytes(12) + part(tensor, start, size).numpy().tobytes()
        chunks.append(Chunk(str(number), 12, start, size))

    def read(file: str, offset: int, out: torch.Tensor) -> None:
        assert len(files[file]) >= offset + out.numel()
        out.copy_(torch.frombuffer(bytearray(files[file]), dtype=torch.uint8)[offset:][: len(out)])

    flat = tensor.reshape(-1)
    for first in range(tensor.numel()):
        for last in range(first + 1, tensor.numel() + 1):
            out = torch.empty((last - first) * 4, dtype=torch.uint8)
            fill(out, chunks, shape, first, 4, read)
            assert torch.equal(out.view(torch.float32), flat[first:last])
    found = FoundTensor("t", "0", "F32", shape, 0, chunks=tuple(chunks))
    for number in range(tensor.numel()):
        file, offset = found.place(number * 4 + 1, 4)
        value = torch.frombuffer(bytearray(files[file])[offset - 1 :][:4], dtype=torch.float32)
        assert value == flat[number]


def held(*places: tuple[Offsets, Offsets]) -> list[tuple[FoundTensor, Chunk]]:
    return [
        (FoundTensor("t", str(n), "F32", shape, 8), Chunk(str(n), 8, start, shape))
        for n, (start, shape) in enumerate(places)
    ]


def test_joined_says_what_overlaps_and_what_is_missing() -> None:
    whole = held(((0, 0), (2, 4)), ((2, 0), (2, 2)), ((2, 2), (2, 2)))
    (tensor,), problems = joined(whole)
    assert (tensor.shape, problems) == ((4, 4), [])
    for places, text in [
        (whole[1:], "found 8 of 16 elements"),
        ([*whole, *held(((3, 3), (1, 1)))], "from [3, 3] on in 0 and in another one"),
        ([*whole, *whole[:1]], "each element in one file"),
        ([*whole, *held(((4,), (1,)))], "one dtype and number of dimensions"),
        (held(((2**62,), (2**62,))), "a shape of a tensor"),
        (held(((2**70,), (1,))), "a shape of a tensor"),
        (held(((), ()), ((), ())), "each element in one file"),
    ]:
        found, (problem,) = joined(places)
        assert not found
        assert text in problem


@pytest.mark.parametrize(("rows", "columns"), [(3, 1), (1, 3), (2, 2)])
def test_prove_shards_on_any_mesh(rows: int, columns: int, tmp_path: Path) -> None:
    model = models.llama()
    model.save_pretrained(tmp_path / "whole")
    tensors = load_file(tmp_path / "whole" / "model.safetensors")
    write_shards(tmp_path / "shards", tensors, rows, columns)
    (tmp_path / "shards" / "config.json").write_bytes(
        (tmp_path / "whole" / "config.json").read_bytes()
    )
    proof = prove(model, tmp_path / "shards")
    assert proof.ok, str(proof)
    assert proof.notes
    assert proof.bytes == prove(model, tmp_path / "whole").bytes
    digests = [digest_folder(tmp_path / name) for name in ("shards", "whole")]
    assert model_digest(digests[0]) == model_digest(digests[1])


def test_prove_shards_without_places_are_a_problem(tmp_path: Path) -> None:
    model = models.llama()
    write_shards(tmp_path / "shards", dict(model.state_dict()), 2, 1, skip="lm_head.weight")
    proof = prove(model, tmp_path / "shards")
    assert not proof.weights_ok
    assert "'lm_head.weight': expected its saved_offsets in DCP_SHARDING_INFO" in proof.problems[0]
