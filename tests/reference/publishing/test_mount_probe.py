"""Mounts that cannot flush folders, set modes or sizes, or rename; and disks without room."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.helpers import models
from tests.reference.crash import isolation

from canonical_saver import SaveError, file_io, save_model
from canonical_saver.publishing.mount_probe import check_mount

NOT_OFFERED = [errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS]
LOST = [errno.EIO, errno.ENOSPC, errno.EDQUOT]
Refusal = Callable[..., bool]


def refuse(
    patch: pytest.MonkeyPatch, name: str, number: int, when: Refusal = lambda *_: True
) -> list[Any]:
    """Have a function of ``os`` raise an error, for some arguments; returns those of its calls."""
    real, calls = getattr(os, name), []

    def refused(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if when(*arguments):
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options)

    patch.setattr(os, name, refused)
    return calls


def of_folder(handle: int) -> bool:
    return stat.S_ISDIR(os.fstat(handle).st_mode)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("expected") / "m"
    save_model(models.llama(), folder, max_shard_size="30KB")
    return models.contents(folder)


def saves_twice(folder: Path, expected: dict[str, bytes]) -> None:
    for _ in range(2):
        save_model(models.llama(), folder, max_shard_size="30KB")
        assert models.contents(folder) == expected


@pytest.mark.parametrize("number", [*NOT_OFFERED, errno.EBADF])
def test_save_without_flushes_of_folders_succeeds(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[str, bytes]
) -> None:
    calls = refuse(monkeypatch, "fsync", number, of_folder)
    saves_twice(tmp_path / "new" / "m", expected)
    assert calls


@pytest.mark.parametrize("number", NOT_OFFERED)
def test_save_without_any_flush_succeeds(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[str, bytes]
) -> None:
    refuse(monkeypatch, "fsync", number)
    saves_twice(tmp_path, expected)


@pytest.mark.parametrize("number", [*NOT_OFFERED, errno.EACCES, errno.EISDIR])
def test_save_without_handles_of_folders_succeeds(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[str, bytes]
) -> None:
    output = tmp_path / "new" / "m"

    def flushes(path: Any, flags: int, *_: Any) -> bool:
        return flags == os.O_RDONLY and Path(path) in (output, *output.parents)

    calls = refuse(monkeypatch, "open", number, flushes)
    saves_twice(output, expected)
    assert (output, os.O_RDONLY) in calls


@pytest.mark.parametrize("number", LOST)
def test_flush_that_loses_bytes_is_an_error(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "fsync", number, of_folder)
    with pytest.raises(SaveError, match=os.strerror(number)):
        save_model(models.llama(), tmp_path)


@pytest.mark.parametrize("number", [*NOT_OFFERED, errno.EPERM])
def test_save_without_modes_succeeds(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[str, bytes]
) -> None:
    refuse(monkeypatch, "chmod", number)
    saves_twice(tmp_path, expected)


def test_set_mode_changes_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.touch(0o600)
    file_io.set_mode(path, 0o640)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    calls = refuse(monkeypatch, "chmod", errno.EPERM)
    file_io.set_mode(path, 0o640)
    assert not calls
    refuse(monkeypatch, "chmod", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        file_io.set_mode(path, 0o600)


class Without:
    """A C library whose ``fallocate`` fails."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fallocate(self, *_: Any) -> int:
        file_io.ctypes.set_errno(self._number)
        return -1


@pytest.mark.parametrize("number", [*NOT_OFFERED, errno.EPERM, errno.EINTR])
@pytest.mark.parametrize("holes", [True, False])
def test_reserve_without_its_calls_gives_the_size(
    number: int, holes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaves_a_hole(handle: int, _: bytes, offset: int) -> bool:
        return not holes and offset > os.fstat(handle).st_size

    monkeypatch.setattr(file_io, "_C", Without(number))
    refuse(monkeypatch, "truncate", number)
    refuse(monkeypatch, "pwrite", number, leaves_a_hole)
    for size in (0, 1, 5, 2**20 + 3):
        path = tmp_path / str(size)
        with path.open("wb") as file:
            file_io.preallocate(file.fileno(), size)
        assert path.read_bytes() == bytes(size)


@pytest.mark.parametrize("number", [*LOST, errno.EFBIG])
@pytest.mark.parametrize("call", ["fallocate", "truncate", "pwrite", "pwritev"])
def test_reserve_without_room_is_an_error(
    call: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = ["fallocate", "truncate", "pwrite", "pwritev"]
    before = order[: order.index(call)]
    monkeypatch.setattr(file_io, "_C", Without(number if call == "fallocate" else errno.ENOSYS))
    for name in before[1:]:
        refuse(monkeypatch, name, errno.ENOSYS)
    if call != "fallocate":
        refuse(monkeypatch, call, number)
    with (tmp_path / "file").open("wb") as file:
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            file_io.preallocate(file.fileno(), 5)
        assert caught.value.errno == number


def test_save_without_sizes_writes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[str, bytes]
) -> None:
    monkeypatch.setattr(file_io, "_C", Without(errno.ENOSYS))
    refuse(monkeypatch, "truncate", errno.ENOSYS)
    saves_twice(tmp_path, expected)


def over_a_file(_: Any, target: Any) -> bool:
    return os.path.lexists(target)


def from_below(source: Any, target: Any) -> bool:
    return Path(source).parent.parent == Path(target).parent


@pytest.mark.parametrize("number", [errno.EXDEV, errno.ENOSYS, errno.EPERM, errno.EEXIST])
@pytest.mark.parametrize("when", [over_a_file, from_below])
def test_mount_without_renames_is_found_before_the_weights(
    when: Refusal, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(models.llama(seed=1), tmp_path / "m")
    before = models.contents(tmp_path / "m")
    written: list[Any] = []
    for name in ("rename", "replace"):
        refuse(monkeypatch, name, number, when)
    with pytest.raises(SaveError, match="can rename a file over another one") as caught:
        save_model(models.llama(), tmp_path / "m", progress=written.append)
    assert str(tmp_path / "m") in str(caught.value)
    assert os.strerror(number) in str(caught.value)
    assert not written
    assert models.contents(tmp_path / "m") == before


def test_mount_whose_renames_do_nothing_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "replace", lambda *_: None)
    with pytest.raises(SaveError, match="nothing was renamed"):
        check_mount(tmp_path)


def test_mount_that_is_written_in_order_only_is_found_before_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def back(handle: int, _: Any, offset: int) -> bool:
        return offset < os.fstat(handle).st_size

    refuse(monkeypatch, "pwritev", errno.EINVAL, back)
    with pytest.raises(SaveError, match="can write a file at any place"):
        save_model(models.llama(), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_check_mount_leaves_nothing(tmp_path: Path) -> None:
    check_mount(tmp_path)
    assert not list(tmp_path.iterdir())


WHY_NO_MOUNTS = isolation.why_unavailable()


@pytest.mark.skipif(bool(WHY_NO_MOUNTS), reason=WHY_NO_MOUNTS)
@pytest.mark.parametrize("reserved", [True, False])
@pytest.mark.parametrize("format", ["safetensors", "torch", "dcp"])
def test_full_disk_says_what_is_needed_and_free(
    format: Any, reserved: bool, tmp_path: Path
) -> None:
    def fill() -> None:
        isolation.mount_disk(tmp_path, "size=160k")
        if not reserved:
            file_io._C = Without(errno.ENOSYS)  # type: ignore[assignment]
        folder = tmp_path / "m"
        save_model(models.llama(), folder, format=format)
        before = models.contents(folder)
        room = os.statvfs(tmp_path)
        free = f"{room.f_bavail * room.f_frsize:,} bytes and {room.f_favail:,} files free"
        needed = sum(t.numel() * t.element_size() for t in models.llama().state_dict().values())
        with pytest.raises(SaveError, match="No space left on device") as caught:
            save_model(models.llama(seed=1), folder, format=format)
        text = str(caught.value)
        assert f"{needed:,} bytes" in text
        assert free in text, (free, text)
        assert str(folder) in text
        assert "room for both" in text
        assert models.contents(folder) == before

    isolation.isolated(fill)
