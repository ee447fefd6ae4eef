"""Ranks on several hosts: what one has written is looked at from another."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.helpers import models, worlds
from tests.helpers.engines import wrap

from canonical_saver import SaveError, VerifyError, save_model
from canonical_saver.publishing.staging import STAGING
from canonical_saver.writing import hosts, shared_folder
from canonical_saver.writing.hosts import Samples


def loses_everything(handle: int, parts: list[memoryview], offset: int) -> int:
    return sum(len(part) for part in parts)


def loses_the_first_page(handle: int, parts: list[memoryview], offset: int) -> int:
    """As a client that shares a page with another one's bytes, and comes first."""
    content = b"".join(parts)
    lost = min(64, len(content))
    WRITE(handle, [memoryview(content)[lost:]], offset + lost)
    return len(content)


WRITE = os.pwritev
Loss = Callable[[int, list[memoryview], int], int]


def save_on_two_hosts(
    rank: int, folder: str, make: Callable[[], Any], format: Any, loss: Loss | None
) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_folder.platform, "node", lambda: f"host{rank}")
        if rank == 1 and loss is not None:
            patch.setattr(os, "pwritev", loss)
        try:
            save_model(wrap("fsdp2", make()), folder, max_shard_size="30KB", format=format)
        except SaveError as error:
            return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize(
    ("make", "format"),
    [(models.llama, "torch"), (models.mixtral, "safetensors")],
    ids=["llama", "mixtral"],
)
def test_save_on_two_hosts_is_that_on_one(
    make: Callable[[], Any], format: Any, tmp_path: Path
) -> None:
    save_model(make(), tmp_path / "one", max_shard_size="30KB", format=format)
    arguments = (str(tmp_path / "two"), make, format, None)
    assert worlds.run(2, save_on_two_hosts, *arguments) == ["", ""]
    assert models.contents(tmp_path / "one") == models.contents(tmp_path / "two")


@pytest.mark.parametrize("loss", [loses_everything, loses_the_first_page])
def test_writes_that_another_host_loses_are_noticed(loss: Loss, tmp_path: Path) -> None:
    output = tmp_path / "m"
    save_model(models.llama(seed=1), output)
    before = models.contents(output)
    arguments = (str(output), models.llama, "safetensors", loss)
    first, second = worlds.run(2, save_on_two_hosts, *arguments)
    assert first == second
    assert first.startswith(f"{VerifyError.__name__}: ")
    assert "rank 1 wrote on host host1" in first
    assert "host host0 of rank 0" in first
    assert "model-00001-of-" in first
    assert models.contents(output) == before
    assert not (output / STAGING).exists()


def test_samples_are_kept_where_the_host_is_another_one() -> None:
    places = ["a 1", "a 1", "b 1", "b 1"]
    assert [bool(Samples.of_rank(rank, places).most) for rank in range(4)] == [False] * 2 + [
        True
    ] * 2
    many = ["a", *(str(n) for n in range(10**4))]
    assert Samples.of_rank(5, many).most >= 2


@pytest.mark.parametrize("count", [1, 7, 100, 5000])
@pytest.mark.parametrize("zeros", [(0, 0), (3, 0), (0, 9), (50, 50)])
def test_samples_are_bytes_of_what_is_written(count: int, zeros: tuple[int, int]) -> None:
    before, behind = zeros
    content = bytes(before) + bytes(n % 255 + 1 for n in range(count)) + bytes(behind)
    samples = Samples(10**6)
    piece = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    cut = len(content) // 3
    samples.add(4, 1000, [piece[:cut], piece[cut:]])
    assert len(samples.kept) == 2
    for file, offset, found in samples.kept:
        assert file == 4
        assert found == content[offset - 1000 : offset - 1000 + len(found)]
    assert any(any(found) for *_, found in samples.kept)


def test_samples_are_few_and_from_everywhere() -> None:
    samples = Samples(64)
    piece = torch.ones(3, dtype=torch.uint8)
    for number in range(10_000):
        samples.add(0, 3 * number, [piece])
    offsets = [offset for _, offset, _ in samples.kept]
    assert 16 <= len(offsets) <= 64
    assert offsets == sorted(offsets)
    assert max(b - a for a, b in zip(offsets, [*offsets[1:], 30_000], strict=True)) < 3_000


def test_read_back_names_file_byte_and_rank(tmp_path: Path) -> None:
    file = hosts.File("model.safetensors", b"", (), 8)
    (tmp_path / file.name).write_bytes(b"abcdefgh")
    places = ["first 1", "second 2"]
    hosts.read_back(tmp_path, [file], [[], [(0, 2, b"cd"), (0, 7, b"h")]], places)
    with pytest.raises(VerifyError, match=r"model.safetensors: the 2 bytes from 3 on.*rank 1"):
        hosts.read_back(tmp_path, [file], [[], [(0, 2, b"cd"), (0, 3, b"dE")]], places)


def test_host_id_without_a_boot_id_is_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shared_folder.host_id() == shared_folder.host_id()
    monkeypatch.setattr(shared_folder, "_BOOT_ID", Path("/nowhere"))
    assert shared_folder.host_id().split() == [shared_folder.platform.node()]
