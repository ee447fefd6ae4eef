"""Ranks that see another file system than rank 0 save the same bytes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.helpers import models
from tests.helpers.engines import wrap
from tests.reference.crash import isolation
from tests.reference.crash.enumeration import GRACE, join
from tests.reference.crash.reading import snapshot
from tests.reference.crash.syscalls import Ended, Fault, Watch, run, why_unavailable

from canonical_saver import save_model

WHY = isolation.why_unavailable()
pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY)


def another_disk(folder: Path) -> None:
    isolation.mount_disk(folder, "size=1m")


def another_disk_with_an_older_save(folder: Path) -> None:
    another_disk(folder)
    save_model(models.mixtral(seed=5), folder / "model")


def the_same_read_only(folder: Path) -> None:
    isolation.mount_read_only(folder)


def another_disk_with_a_look_at_the_first(folder: Path) -> None:
    (folder.parent / "first").mkdir(exist_ok=True)
    isolation.mount_again(folder, folder.parent / "first")
    another_disk(folder)


VIEWS: tuple[Callable[[Path], Any], ...] = (
    another_disk,
    another_disk_with_an_older_save,
    the_same_read_only,
    another_disk_with_a_look_at_the_first,
)


@pytest.mark.parametrize("verify", ["layout", "full"])
@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.__name__)
def test_ranks_with_a_view_of_their_own(
    view: Callable[[Path], Any], verify: str, tmp_path: Path
) -> None:
    shared, blind = tmp_path / "shared", (1, 2)
    (shared / "model").mkdir(parents=True)
    options: dict[str, Any] = {"verify": verify, "max_shard_size": "30KB"}
    save_model(models.mixtral(), tmp_path / "expected", **options)
    mine = shared.stat().st_dev

    def body(rank: int) -> Callable[[Watch], Any]:
        def save(_: Watch) -> None:
            if rank in blind:
                isolation.own_mounts()
                view(shared)
                seen_before = snapshot(shared)
                assert not os.access(shared / "model", os.W_OK) or shared.stat().st_dev != mine
            written = []
            join(rank, 4, tmp_path / "store", 30)
            model = wrap("fsdp2", models.mixtral())
            save_model(model, shared / "model", **options, progress=written.append)
            if rank in blind:
                assert written == [], "it wrote, and to another disk"
                if view is not the_same_read_only:
                    assert snapshot(shared) == seen_before
            else:
                assert written[-1].bytes == written[-1].total_bytes > 0

        return save

    ended = run([body(rank) for rank in range(4)], shared, tmp_path)
    assert [one.status for one in ended] == ["returned"] * 4, ended
    assert snapshot(shared / "model") == snapshot(tmp_path / "expected")


@pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable())
def test_the_rank_that_receives_dies_hangs_or_meets_a_full_disk(tmp_path: Path) -> None:
    shared, timeout = tmp_path / "shared", 3.0

    def body(rank: int) -> Callable[[Watch], Any]:
        def save(watch: Watch) -> None:
            if rank == 1:
                isolation.own_mounts()
                another_disk(shared)
            join(rank, 2, tmp_path / "store", timeout)
            model = wrap("fsdp2", models.llama())
            watch()
            save_model(model, shared / "model")

        return save

    def attempt(fault: Fault | None) -> list[Ended]:
        shutil.rmtree(shared, ignore_errors=True)
        shared.mkdir()
        (tmp_path / "store").unlink(missing_ok=True)
        return run([body(0), body(1)], shared, tmp_path, fault)

    whole = attempt(None)
    assert [one.status for one in whole] == ["returned"] * 2, whole
    calls = [(call.name, Path(call.path).name) for call in whole[0].calls]
    all_received = calls.index(("fsync", "model.safetensors"))
    _header, *received = [
        number
        for number, (name, path) in enumerate(calls)
        if name.startswith("pwrite") and path == "model.safetensors" and number < all_received
    ]
    assert len(received) > 1
    for effect, status in (("KILL", "killed"), ("STOP", "stopped"), ("ENOSPC", "refused")):
        first, second = attempt(Fault(0, received[len(received) // 2], effect))
        assert (first.status, second.status) == (status, "refused"), (first, second)
        assert second.seconds < timeout + GRACE
        if effect == "ENOSPC":
            assert "rank 0 failed in phase 'relay'" in first.detail
            assert second.detail == first.detail
            assert snapshot(shared / "model") == {}
