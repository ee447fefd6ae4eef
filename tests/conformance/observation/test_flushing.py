"""Whether files were on disk before they got their names, from events and from traces."""

from __future__ import annotations

import pytest

from saver_conformance.observation.flushing import FileEvent, replay
from saver_conformance.processes.file_events import read_events

OPEN = FileEvent("opens", "/o/a.tmp")
WRITE = FileEvent("writes", "/o/a.tmp")
FLUSH = FileEvent("flushes", "/o/a.tmp")
RENAME = FileEvent("renames", "/o/a", "/o/a.tmp")
FOLDER = FileEvent("flushes", "/o")
ALL = FileEvent("flushes all")


def durable(events, path="/o/a"):
    """Whether the bytes of ``path`` were flushed in time, and whether its name was."""
    disk = replay(events, {"/o"})
    folder, _, name = path.rpartition("/")
    in_time = path not in disk.unready and not disk.loses(path)
    return in_time, name not in disk.entries.get(folder, ())


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([OPEN, WRITE, FLUSH, RENAME, FOLDER], (True, True)),
        ([OPEN, WRITE, FLUSH, RENAME], (True, False)),
        ([OPEN, WRITE, FLUSH, FOLDER, RENAME], (True, False)),
        ([OPEN, WRITE, RENAME, FileEvent("flushes", "/o/a"), FOLDER], (False, True)),
        ([OPEN, WRITE, FLUSH, WRITE, RENAME, FOLDER], (False, True)),
        ([OPEN, WRITE, ALL, RENAME, ALL], (True, True)),
        ([OPEN, WRITE, RENAME, ALL], (False, True)),
        ([FileEvent("opens", "/o/a.tmp", durable=True), WRITE, RENAME, FOLDER], (True, True)),
        ([OPEN, FileEvent("writes", "/o/a.tmp", durable=True), RENAME, FOLDER], (True, True)),
        ([OPEN, RENAME, FOLDER], (True, True)),  # what was written was not seen
        ([OPEN, WRITE, FileEvent("links", "/o/a", "/o/a.tmp"), FLUSH, FOLDER], (False, True)),
        ([OPEN, WRITE, FLUSH, FileEvent("links", "/o/a", "/o/a.tmp"), FOLDER], (True, True)),
        ([OPEN, WRITE, RENAME, FileEvent("removes", "/o/a"), FOLDER], (True, True)),
    ],
)
def test_replay_tells_what_a_power_cut_would_take(events, said):
    assert durable(events) == said


def test_replay_of_a_file_written_in_place_wants_a_flush_at_the_end():
    written = [FileEvent("opens", "/o/a"), FileEvent("writes", "/o/a")]
    assert durable([*written, FOLDER]) == (False, True)
    assert durable([*written, FileEvent("flushes", "/o/a"), FOLDER]) == (True, True)


def test_replay_of_a_file_that_was_there_wants_no_flush_of_its_folder():
    disk = replay([FileEvent("opens", "/o/a")], {"/o", "/o/a"})
    assert disk.entries == {}


def test_replay_follows_a_folder_that_is_renamed():
    made = [FileEvent("makes", "/s"), FileEvent("opens", "/s/a"), FileEvent("writes", "/s/a")]
    flushed = [FileEvent("flushes", "/s/a"), FileEvent("flushes", "/s")]
    rename = FileEvent("renames", "/o", "/s")
    assert durable([*made, *flushed, rename]) == (True, True)
    assert durable([*made, rename]) == (False, False)


def test_replay_takes_an_earlier_file_of_the_name_for_gone():
    earlier = [FileEvent("opens", "/o/a"), FileEvent("writes", "/o/a")]
    assert durable([*earlier, OPEN, WRITE, FLUSH, RENAME, FOLDER]) == (True, True)


FIRST = """\
7 100.000001 openat(AT_FDCWD</disk>, "out/a.tmp", O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC, 0666) = 3</disk/out/a.tmp>
7 100.000002 write(3</disk/out/a.tmp>, ""..., 9 <unfinished ...>
8 100.000003 read(4</elsewhere>, ""..., 8) = 8
7 100.000004 <... write resumed>) = 9
7 100.000009 rename("out/a.tmp", "/disk/out/a") = 0
7 100.000010 rename("out/gone", "/disk/out/b") = -1 ENOENT (No such file or directory)
7 100.000011 fsync(5</disk/out>) = -1 EINVAL (Invalid argument)
7 100.000012 msync(0x7f0000000000, 4096, MS_ASYNC) = 0
7 100.000013 msync(0x7f0000000000, 4096, MS_SYNC) = 0
7 100.000014 openat(AT_FDCWD</disk>, "out/a", O_RDONLY|O_CLOEXEC) = 3</disk/out/a>
7 100.000015 pwritev2(3</disk/out/a>, [...], 2, 50, RWF_DSYNC) = 3
7 100.000016 copy_file_range(5</in>, NULL, 4</disk/out/c>, NULL, 20, 0) = 20
7 100.000017 mkdir("/disk/out/d", 0777) = 0
7 100.000018 unlink("/disk/out/a") = 0
"""  # noqa: E501
SECOND = """\
9 100.000005 fdatasync(3</disk/out/a.tmp>) = 0
"""


def test_read_events_orders_those_of_all_ranks_by_their_time():
    assert read_events([FIRST, SECOND]) == [
        FileEvent("opens", "/disk/out/a.tmp"),
        FileEvent("writes", "/disk/out/a.tmp"),
        FileEvent("writes", "/disk/out/a.tmp"),
        FileEvent("flushes", "/disk/out/a.tmp"),
        FileEvent("renames", "/disk/out/a", "/disk/out/a.tmp"),
        FileEvent("flushes", "/disk/out"),
        FileEvent("flushes all"),
        FileEvent("writes", "/disk/out/a", durable=True),
        FileEvent("writes", "/disk/out/c"),
        FileEvent("makes", "/disk/out/d"),
        FileEvent("removes", "/disk/out/a"),
    ]
