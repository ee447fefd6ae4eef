"""Disks that are full, read-only or somebody else's: told on every rank, and nothing is lost."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.helpers import models
from tests.helpers.engines import wrap
from tests.reference.crash import isolation
from tests.reference.crash.enumeration import Stage, join
from tests.reference.crash.reading import Reader, Snapshot, snapshot
from tests.reference.crash.scenarios import SCENARIOS, Saving, Scenario
from tests.reference.crash.syscalls import Fault, Watch, run, why_unavailable

from canonical_saver import SaveError, recover, save_model
from canonical_saver.publishing import staging

WHY = why_unavailable()
watched = pytest.mark.skipif(bool(WHY), reason=WHY)
WHY_NO_MOUNTS = isolation.why_unavailable()
mounted = pytest.mark.skipif(bool(WHY_NO_MOUNTS), reason=WHY_NO_MOUNTS)

SHARDED_TO_SINGLE = next(s for s in SCENARIOS if s.name == "sharded to single")
PAGE = 4096
ERRORS = ("ENOSPC", "EDQUOT", "EIO", "EROFS")
NOBODY = 65534


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


def check(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{stage.tally}")
    assert not stage.tally.violations, "\n".join(stage.tally.violations)
    assert stage.tally.found["old, nothing staged"] >= stage.tally.points // 2


@watched
def test_every_call_that_fails_once(
    room: Path, reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(SHARDED_TO_SINGLE, 1, room, reader)
    for number, point in enumerate(p for p in stage.points() if p[2].changes):
        stage.fail(*point, ERRORS[number % len(ERRORS)])
    check(stage, capsys)


@watched
@pytest.mark.crash
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
@pytest.mark.parametrize("error", ERRORS)
def test_every_call_that_fails_with_every_error(
    scenario: Scenario,
    error: str,
    room: Path,
    reader: Reader,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage = Stage(scenario, 1, room, reader)
    for rank, number, call in stage.points():
        if call.changes:
            stage.fail(rank, number, call, error)
    check(stage, capsys)


@watched
@pytest.mark.crash
@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT"])
def test_every_call_that_fails_on_two_ranks(
    error: str, room: Path, reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(SHARDED_TO_SINGLE, 2, room, reader)
    for rank, number, call in stage.points():
        if call.changes:
            stage.fail(rank, number, call, error)
    check(stage, capsys)


class Disk:
    """A save over an older one, on a disk to be spoiled.

    Args:
        room: an empty folder, outside of the disk.
        disk: the disk.
        ranks: how many save.
    """

    def __init__(self, room: Path, disk: Path, ranks: int = 1) -> None:
        self.room, self.folder, self.ranks = room, disk / "model", ranks
        SHARDED_TO_SINGLE.prepare(self.folder)
        self.new = SHARDED_TO_SINGLE.new
        self.model = self.new.make()
        self.before = snapshot(self.folder)

    @property
    def after(self) -> Snapshot:
        copy = self.room / "copy"
        shutil.copytree(self.folder, copy)
        save_model(self.model, copy, **self.new.options)
        return snapshot(copy)

    def save(self, first: Callable[[int], Any] = lambda rank: None) -> str:
        """Save in all ranks; returns the error that all of them end with, empty if none."""

        def body(rank: int) -> Callable[[Watch], Any]:
            def save(_: Watch) -> None:
                model = self.model
                first(rank)
                if self.ranks > 1:
                    join(rank, self.ranks, self.room / "store", 20)
                    model = wrap("fsdp2", model)
                save_model(model, self.folder, **self.new.options)

            return save

        (self.room / "store").unlink(missing_ok=True)
        bodies = [body(rank) for rank in range(self.ranks)]
        ended = run(bodies, self.folder, self.room)
        statuses = {one.status for one in ended}
        assert statuses in ({"returned"}, {"refused"}), ended
        if statuses == {"returned"}:
            return ""
        texts = {one.detail for one in ended}
        assert len(texts) == 1, texts
        return texts.pop()

    def refuses(self, text: str, first: Callable[[int], Any] = lambda rank: None) -> None:
        """Save, and see that it fails with a text, and that the old model is all that is there."""
        error = self.save(first)
        assert text in error, error
        assert ("Error: rank " in error) == (self.ranks > 1), error
        assert snapshot(self.folder) == self.before


def leave_pages(disk: Path, count: int) -> None:
    """Fill a disk until so many pages are free."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    free = os.statvfs(disk).f_bavail
    with filler.open("wb") as stream:
        stream.write(bytes((free - count) * PAGE))
    assert os.statvfs(disk).f_bavail == count


def leave_files(disk: Path, count: int) -> None:
    """Make files on a disk until there is room for so many more."""
    shutil.rmtree(disk / "fillers", ignore_errors=True)
    (disk / "fillers").mkdir()
    for number in range(os.statvfs(disk).f_favail - count):
        (disk / "fillers" / str(number)).touch()
    assert os.statvfs(disk).f_favail == count


@mounted
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(
    ("leave", "options", "step"),
    [(leave_pages, "size=1m", {1: 1, 2: 6}), (leave_files, "nr_inodes=60", {1: 1, 2: 2})],
    ids=["bytes", "files"],
)
def test_a_full_disk(
    leave: Callable[[Path, int], None],
    options: str,
    step: dict[int, int],
    ranks: int,
    tmp_path: Path,
) -> None:
    room, mount = tmp_path / "room", tmp_path / "disk"
    room.mkdir()
    mount.mkdir()

    def fill() -> None:
        isolation.mount_disk(mount, options)
        disk = Disk(room, mount, ranks)
        after = disk.after
        tried = 0
        for count in range(0, 60, step[ranks]):
            leave(mount, count)
            if snapshot(disk.folder) != disk.before:
                raise AssertionError("the folder has changed")
            error = disk.save()
            if not error:
                break
            tried += 1
            assert "No space left on device" in error, error
            assert snapshot(disk.folder) == disk.before
        assert snapshot(disk.folder) == after
        assert tried > 3

    isolation.isolated(fill)


@mounted
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_read_only_disk(ranks: int, tmp_path: Path) -> None:
    def save() -> None:
        disk = Disk(tmp_path, tmp_path, ranks)
        isolation.mount_read_only(disk.folder)
        disk.refuses("Read-only file system")

    isolation.isolated(save)


@pytest.fixture
def open_room() -> Iterator[Path]:
    """A folder in which everybody may look around, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        room.chmod(0o777)
        yield room


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_folder_without_permission(ranks: int, open_room: Path) -> None:
    disk = Disk(open_room, open_room, ranks)
    disk.folder.chmod(0o555)

    def become_nobody(_: int) -> None:
        if os.getuid() == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)

    disk.refuses("Permission denied", become_nobody)
    disk.folder.chmod(0o755)


@pytest.mark.parametrize("size", [400, 3000, 20_000, 60_000])
def test_a_limit_for_the_size_of_files(size: int, tmp_path: Path) -> None:
    def limit(_: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    Disk(tmp_path, tmp_path).refuses("File too large", limit)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_file_where_the_folder_should_be(ranks: int, tmp_path: Path) -> None:
    disk = Disk(tmp_path, tmp_path, ranks)
    shutil.rmtree(disk.folder)
    disk.folder.write_text("mine")
    assert "expected a folder" in disk.save()
    assert disk.folder.read_text() == "mine"


def test_nothing_is_written_through_links_that_were_left(tmp_path: Path) -> None:
    disk = Disk(tmp_path, tmp_path)
    precious = tmp_path / "precious"
    precious.write_text("precious")
    after = disk.after
    left = disk.folder / staging.STAGING
    for folder in (left, left / "0123456789abcdef"):
        folder.mkdir()
        for name in ("model.safetensors", "config.json", "probe", f"{staging.RECORD}.draft"):
            (folder / name).symlink_to(precious)
    (left / "folder").symlink_to(tmp_path / "room")
    assert disk.save() == ""
    assert precious.read_text() == "precious"
    assert snapshot(disk.folder) == after


@watched
def test_nothing_is_written_through_links_that_are_planted(room: Path, reader: Reader) -> None:
    stage = Stage(SHARDED_TO_SINGLE, 1, room, reader)
    precious = room / "precious"
    precious.write_text("precious")
    names = [call.path for call in stage.calls[0]]
    weights = next(n for n, name in enumerate(names) if name.endswith("/model.safetensors"))
    modes = []

    def plant(name: str) -> Callable[[], None]:
        def act() -> None:
            (folder,) = (stage.folder / staging.STAGING).iterdir()
            modes.append(folder.parent.stat().st_mode & 0o777)
            (folder / name).symlink_to(precious)

        return act

    for name, number, text in (
        ("model.safetensors", weights, "File exists"),
        ("another.json", weights, "found something else"),
    ):
        (ended,) = stage.attempt(Fault(0, number, plant(name)))
        assert ended.status == "refused"
        assert text in ended.detail
        assert precious.read_text() == "precious"
        assert snapshot(stage.folder) == stage.before
    assert modes == [0o700, 0o700], "nobody else can plant anything"


def obstacles() -> Iterator[tuple[str, Callable[[Path], Any], str]]:
    yield "a folder", lambda folder: (folder / "model.safetensors").mkdir(), "found a folder"
    yield "a file", lambda folder: (folder / "second").write_text(""), "found a file or a link"
    yield (
        "a link",
        lambda folder: (folder / "second").symlink_to(folder.parent),
        "found a file or a link",
    )


@pytest.mark.parametrize(
    ("plant", "text"), [o[1:] for o in obstacles()], ids=[o[0] for o in obstacles()]
)
def test_what_is_in_the_way_is_found_before_the_commit(
    plant: Callable[[Path], Any], text: str, tmp_path: Path
) -> None:
    scenario = next(s for s in SCENARIOS if s.name == "full to adapters")
    scenario.prepare(tmp_path / "m")
    plant(tmp_path / "m")
    before = snapshot(tmp_path / "m")
    new = scenario.new if (tmp_path / "m" / "second").exists() else SHARDED_TO_SINGLE.new
    with pytest.raises(SaveError, match=text):
        save_model(new.make(), tmp_path / "m", **new.options)
    assert snapshot(tmp_path / "m") == before


@mounted
def test_another_disk_in_the_way_is_found_before_the_commit(tmp_path: Path) -> None:
    scenario = next(s for s in SCENARIOS if s.name == "full to adapters")
    scenario.prepare(tmp_path / "m")
    (tmp_path / "m" / "second").mkdir()

    def save() -> None:
        isolation.mount_disk(tmp_path / "m" / "second", "size=1m")
        before = snapshot(tmp_path / "m")
        with pytest.raises(SaveError, match="expected one file system"):
            save_model(scenario.new.make(), tmp_path / "m")
        assert snapshot(tmp_path / "m") == before

    isolation.isolated(save)


@pytest.mark.parametrize(
    "record",
    [
        "",
        "[]",
        '{"version": 1}',
        '{"version": 2}',
        '{"version": 1, "folder": "x", "files": [3], "remove": []}',
    ],
)
def test_a_record_that_is_none_changes_nothing(record: str, tmp_path: Path) -> None:
    save_model(models.llama(), tmp_path)
    (tmp_path / staging.STAGING).mkdir()
    (tmp_path / staging.STAGING / staging.RECORD).write_text(record)
    before = snapshot(tmp_path)
    for act in (lambda: recover(tmp_path), lambda: save_model(models.llama(), tmp_path)):
        with pytest.raises(SaveError, match="expected a commit record"):
            act()
    assert snapshot(tmp_path) == before


@watched
@pytest.mark.parametrize(
    ("verify", "position", "text"),
    [("layout", 20, "header reads back differently"), ("full", -20, "read back differently")],
)
def test_a_disk_that_changes_a_byte(
    verify: str, position: int, text: str, room: Path, reader: Reader
) -> None:
    new = Saving(SHARDED_TO_SINGLE.new.make, {"verify": verify})
    stage = Stage(Scenario("spoiled", SHARDED_TO_SINGLE.old, new), 1, room, reader)
    names = [(call.name, Path(call.path).name) for call in stage.calls[0]]

    def spoil() -> None:
        (path,) = stage.folder.glob(f"{staging.STAGING}/*/model.safetensors")
        data = bytearray(path.read_bytes())
        data[position] ^= 1
        path.write_bytes(data)

    flushed = names.index(("fsync", "model.safetensors"))
    (ended,) = stage.attempt(Fault(0, flushed, spoil))
    assert ended.status == "refused", ended
    assert text in ended.detail
    assert snapshot(stage.folder) == stage.before


@watched
def test_each_step_is_on_disk_before_the_next(room: Path, reader: Reader) -> None:
    stage = Stage(SHARDED_TO_SINGLE, 1, room, reader)
    unflushed: set[str] = set()
    steps: list[str] = []
    drafted = committed = False
    token = next(Path(c.path).parent.name for c in stage.calls[0] if c.path.endswith("/probe"))
    for call in stage.calls[0]:
        path, parent = call.path, str(Path(call.path).parent)
        if path.endswith(f"{staging.RECORD}.draft") and not drafted:
            drafted = True
            assert not unflushed, "not all that is to be committed is on disk"
        if call.name in ("fsync", "fdatasync"):
            unflushed.discard(path)
            if path == "." and committed and steps and steps[-1] != "flush":
                steps.append("flush")
        elif call.name.startswith("rename") and path.endswith(staging.RECORD):
            assert {Path(name).name for name in unflushed} == {token}, "the draft alone is younger"
            committed = True
        elif call.name.startswith(("rename", "unlink")) and not path.startswith(staging.STAGING):
            steps.append(path)
        elif call.name.startswith("unlink") and path.endswith(staging.RECORD):
            assert not {p for p in unflushed if not p.startswith(staging.STAGING)}
            assert steps[-1] == "flush"
        if call.changes and call.name not in ("fsync", "fdatasync", "chmod"):
            unflushed |= {parent} if call.name.startswith(("rename", "unlink")) else {path, parent}
            if call.name.startswith(("unlink", "rmdir")):
                unflushed = {p for p in unflushed if not f"{p}/".startswith(f"{path}/")}
            elif (
                call.name.startswith("rename")
                and not committed
                and not path.endswith(staging.RECORD)
            ):
                unflushed.add(path)  # what was written under another name is not yet on disk
    gate = steps.index("flush")
    assert steps[:gate] == ["config.json"]
    assert steps[-3:] == ["flush", "config.json", "flush"]


@watched
def test_a_new_folder_is_on_disk_with_its_parents(tmp_path: Path) -> None:
    def save(watch: Watch) -> None:
        watch()
        save_model(models.llama(), tmp_path / "runs" / "first" / "model")

    (ended,) = run([save], tmp_path, tmp_path)
    flushed = [call.path for call in ended.calls if call.name == "fsync"]
    assert {".", "runs", "runs/first", "runs/first/model"} <= set(flushed)
