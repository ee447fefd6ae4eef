"""Writes in pieces, a disk without room, and the boxes in which DCP takes a rank's range."""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.reference.crash import isolation

from canonical_saver import file_io
from canonical_saver.formats import dcp


@pytest.mark.parametrize("most", [1, 3, 4, 5, 100])
def test_a_write_goes_on_where_the_system_stopped(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwritev

    def short(handle: int, parts: list[memoryview], offset: int) -> int:
        return write(handle, [memoryview(b"".join(parts))[:most]], offset)

    monkeypatch.setattr(os, "pwritev", short)
    path = tmp_path / "file"
    parts = [memoryview(part) for part in (b"abcd", b"", b"efg", b"h")]
    with path.open("wb") as file:
        file_io.pwrite_all(file.fileno(), parts, 2)
    assert path.read_bytes() == b"\0\0abcdefgh"


def test_a_large_write_is_begun_at_once(tmp_path: Path) -> None:
    content = torch.arange(2**18, dtype=torch.int64)
    with (tmp_path / "file").open("wb") as file:
        file_io.pwrite_all(file.fileno(), [file_io.as_memoryview(content)], 0)
    assert (tmp_path / "file").read_bytes() == content.numpy().tobytes()
    assert file_io.as_memoryview(content[:0]) == b""


WHY_NO_MOUNTS = isolation.why_unavailable()


@pytest.mark.skipif(bool(WHY_NO_MOUNTS), reason=WHY_NO_MOUNTS)
def test_no_room_is_known_before_the_first_byte(tmp_path: Path) -> None:
    def reserve() -> None:
        isolation.mount_disk(tmp_path, "size=1m")
        with (tmp_path / "file").open("wb") as file:
            with pytest.raises(OSError, match="No space") as caught:
                file_io.preallocate(file.fileno(), 2**21)
            assert caught.value.errno == errno.ENOSPC
            file_io.preallocate(file.fileno(), 2**19)
        assert (tmp_path / "file").stat().st_size == 2**19

    isolation.isolated(reserve)


def test_where_blocks_cannot_be_reserved_the_size_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_io, "_C", object())  # a C library without these calls
    with (tmp_path / "file").open("wb") as file:
        file_io.preallocate(file.fileno(), 12)
        file_io.pwrite_all(file.fileno(), [memoryview(bytes(2**20))], 0)
    assert (tmp_path / "file").stat().st_size == 2**20


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 4)])
def test_boxes_are_the_elements_in_order(shape: tuple[int, ...]) -> None:
    tensor: Any = torch.arange(torch.Size(shape).numel()).reshape(shape)
    for start, stop in itertools.combinations(range(tensor.numel() + 1), 2):
        found = []
        for offsets, sizes in dcp.boxes(start, stop, shape):
            place = tuple(slice(o, o + s) for o, s in zip(offsets, sizes, strict=True))
            found += tensor[place].flatten().tolist()
        assert found == list(range(start, stop))
    assert list(dcp.boxes(1, 1, shape)) == []
