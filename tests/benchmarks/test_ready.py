"""What each save of the bench finds."""

from __future__ import annotations

import itertools
import mmap
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import pytest
from benchmarks.kernel import resident_memory
from hypothesis import given
from hypothesis import strategies as st

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


def test_what_is_held_is_in_main_memory_until_it_is_closed() -> None:
    before = resident_memory()
    held = ready.hold(10**8)
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


def test_as_much_memory_is_freed_as_the_unmeasured_save_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []

    def hold(size: int) -> mmap.mmap:
        held.append(size)
        return mmap.mmap(-1, mmap.PAGESIZE)

    def save(former: Path) -> None:
        bytearray(b"1" * 3 * 10**8)

    monkeypatch.setattr(ready, "hold", hold)
    monkeypatch.setattr(ready, "GIVEN_BACK", tmp_path / "missing")
    ready.make_ready(save, tmp_path / "way" / "measured", 10**9)
    (taken,) = held
    assert taken >= 3 * 10**8


def test_a_thread_is_kept_on_a_core_and_no_other_thread_is() -> None:
    everywhere = os.sched_getaffinity(0)

    def kept(rank: int) -> set[int]:
        ready.bind(rank)
        return os.sched_getaffinity(0)

    cores = []
    for rank in range(len(everywhere) + 1):
        with ThreadPoolExecutor(1) as pool:
            cores.append(pool.submit(kept, rank).result())
    assert all(len(core) == 1 for core in cores)
    assert set().union(*cores[:-1]) == everywhere
    assert cores[-1] == cores[0]
    assert os.sched_getaffinity(0) == everywhere


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=9))
def test_the_shares_of_all_ranks_are_the_whole_by_what_each_wrote(wrote: list[int]) -> None:
    shares = [ready.share(wrote, rank) for rank in range(len(wrote))]
    assert shares[0][0] == 0
    assert shares[-1][1] == 1
    assert all(left[1] == right[0] for left, right in itertools.pairwise(shares))
    if any(wrote):
        assert [(end - begin) * sum(wrote) for begin, end in shares] == wrote


@pytest.mark.parametrize(
    ("begin", "end", "stays"),
    [
        (Fraction(0), Fraction(1, 2), [True, True, False, False]),
        (Fraction(1, 2), Fraction(1), [False, False, True, True]),
        (Fraction(0), Fraction(1), [False] * 4),
        (Fraction(1), Fraction(1), [True] * 4),
    ],
)
def test_dropping_frees_a_part_of_a_file(
    begin: Fraction, end: Fraction, stays: list[bool], tmp_path: Path
) -> None:
    _needs_files_that_can_leave_memory(tmp_path / "probe")
    path, size = tmp_path / "model", 4 * ready.FOLIO + 100
    path.write_bytes(os.urandom(size))
    # From the last one on: asking for what is not there makes the kernel read on from it.
    places = [size - 1, 2 * ready.FOLIO, 2 * ready.FOLIO - 1, 0]
    with path.open("rb") as file:
        os.fsync(file.fileno())
        ready.drop(tmp_path, begin, end)
        assert [_in_memory(file.fileno(), place) for place in places] == stays


def _in_memory(handle: int, place: int) -> bool:
    try:
        return os.preadv(handle, [bytearray(1)], place, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False


def _needs_files_that_can_leave_memory(path: Path) -> None:
    path.write_bytes(b"1")
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            stays = _in_memory(file.fileno(), 0)
        except OSError as error:
            pytest.skip(f"this file system cannot tell what is in memory: {error}")
    if stays:
        pytest.skip("this file system keeps its files in memory alone")
