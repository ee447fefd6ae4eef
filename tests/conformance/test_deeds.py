"""What ranks do to files is read from traces, and compared."""

from __future__ import annotations

from pathlib import Path

from saver_conformance import tracing
from saver_conformance.deeds import Deed, Tracers, read_deeds

TRACE = """\
7 openat(AT_FDCWD</out>, "config.json", O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC, 0666) = 3</out/config.json>
7 openat(AT_FDCWD</out>, "a", O_WRONLY|O_CREAT|O_CLOEXEC, 0666) = 3</out/a>
7 pwrite64(3</out/a>, ""..., 100, 4096 <unfinished ...>
8 rename("/out/gone", "/out/b") = -1 ENOENT (No such file or directory)
8 renameat2(AT_FDCWD</out>, "a", AT_FDCWD</out>, "../out/b", RENAME_NOREPLACE) = 0
7 <... pwrite64 resumed>) = 100
7 unlinkat(5</out/old>, "index", 0) = 0
7 unlink("/elsewhere/file") = 0
7 pwritev2(3</out/a>, [{..., 5000, 0) = 27
7 write(1</log>, ""..., 9) = 9
"""  # noqa: E501


def test_deeds_are_read_with_their_places() -> None:
    assert list(read_deeds(TRACE, Path("/out"))) == [
        Deed("truncates", "/out/config.json"),
        Deed("renames", "/out/b"),
        Deed("writes", "/out/a", 4096, 4196),
        Deed("removes", "/out/old/index"),
        Deed("writes", "/out/a", 5000, 5027),
    ]


def test_only_what_meets_conflicts() -> None:
    first = Deed("writes", "/out/a", 0, 10)
    assert first.conflicts_with(Deed("writes", "/out/a", 9, 20))
    assert not first.conflicts_with(Deed("writes", "/out/a", 10, 20))
    assert not first.conflicts_with(Deed("writes", "/out/b", 0, 10))
    assert Deed("removes", "/out/a").conflicts_with(Deed("removes", "/out/a"))
    assert not Deed("removes", "/out/a").conflicts_with(Deed("renames", "/out/a"))


def test_without_strace_the_reason_is_told(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tracing, "is_available", lambda: False)
    assert "apt-get install strace" in Tracers((1, 2), tmp_path).attach()
