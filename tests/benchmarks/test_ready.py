"""What each save of the bench finds."""

from __future__ import annotations

import mmap
import threading
import time
from pathlib import Path

import pytest
from benchmarks.kernel import resident_memory

from benchmarks import ready


def test_a_save_begins_with_an_empty_folder_after_one_that_does_not_count(tmp_path: Path) -> None:
    folder = tmp_path / "way" / "measured"
    folder.mkdir(parents=True)
    (folder / "old").write_bytes(b"left by the save before")
    seen = []

    def save(former: Path) -> None:
        seen.append(former)
        (former / "model").write_bytes(bytes(10**6))

    ready.make_ready(save, folder, 10**6)
    assert list(folder.iterdir()) == []
    (former,) = seen
    assert former.parent == folder.parent
    assert (former / "model").stat().st_size == 10**6


def test_large_models_wait_until_memory_was_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = tmp_path / "reported_kib"
    counter.write_text("0")
    monkeypatch.setattr(ready, "GIVEN_BACK", counter)
    monkeypatch.setattr(ready, "PERIOD", 60.0)
    last: list[float] = []

    def give_back() -> None:
        for count in range(3):
            time.sleep(0.1)
            last.append(time.monotonic())
            counter.write_text(str(1024 * (count + 1)))

    thread = threading.Thread(target=give_back)
    thread.start()
    ready.await_pass("0", time.monotonic())
    waited = time.monotonic() - last[-1]
    thread.join()
    assert len(last) == 3
    assert waited >= ready.PASS


def test_nobody_waits_for_a_counter_that_does_not_move_or_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = time.monotonic()
    monkeypatch.setattr(ready, "GIVEN_BACK", tmp_path / "reported_kib")
    monkeypatch.setattr(ready, "PERIOD", 60.0)
    ready.await_pass(ready.given_back(), begun)
    (tmp_path / "reported_kib").write_text("0")
    ready.await_pass("0", begun - 60)
    assert time.monotonic() - begun < 30
    monkeypatch.setattr(ready, "PERIOD", 0.1)
    ready.await_pass("0", time.monotonic())


def test_a_pass_that_came_meanwhile_does_not_end_the_wait_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reported_kib").write_text("1")
    monkeypatch.setattr(ready, "GIVEN_BACK", tmp_path / "reported_kib")
    monkeypatch.setattr(ready, "PERIOD", 0.5)
    begun = time.monotonic()
    ready.await_pass("0", begun - 60)
    assert time.monotonic() - begun >= 0.5


@pytest.mark.parametrize("huge", [True, False])
def test_what_is_held_is_in_main_memory_until_it_is_closed(huge: bool) -> None:
    before = resident_memory()
    held = ready.hold(10**8, huge=huge)
    assert resident_memory() - before >= 10**8
    held.close()
    assert resident_memory() - before < 5 * 10**7


def test_a_counter_that_never_rests_is_not_awaited_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Restless:
        reads = 0

        def exists(self) -> bool:
            return True

        def read_text(self) -> str:
            self.reads += 1
            return str(self.reads)

    restless = Restless()
    monkeypatch.setattr(ready, "GIVEN_BACK", restless)
    monkeypatch.setattr(ready, "PERIOD", 0.2)
    ready.await_pass("0", time.monotonic())
    assert restless.reads > 2


@pytest.mark.parametrize(("size", "spare"), [(10**9, ready.SPARE), (10**7, 5 * 10**6)])
def test_more_memory_is_freed_than_the_unmeasured_save_took(
    size: int, spare: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []

    def hold(size: int, *, huge: bool) -> mmap.mmap:
        held.append((size, huge))
        return mmap.mmap(-1, mmap.PAGESIZE)

    def save(former: Path) -> None:
        bytearray(b"1" * 3 * 10**8)

    monkeypatch.setattr(ready, "hold", hold)
    monkeypatch.setattr(ready, "GIVEN_BACK", tmp_path / "missing")
    ready.make_ready(save, tmp_path / "way" / "measured", size)
    (taken, taken_huge), last = held
    assert not taken_huge
    assert taken >= 3 * 10**8
    assert last == (spare, True)
