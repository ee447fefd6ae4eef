"""Disks of a test's own: mounts that no other process sees."""

from __future__ import annotations

import ctypes
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

_NEW_MOUNTS, _NEW_USERS = 0x00020000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER
_READ_ONLY, _REMOUNT, _BIND = 1, 1 << 5, 1 << 12  # MS_RDONLY, MS_REMOUNT, MS_BIND
_RECURSIVE, _PRIVATE = 1 << 14, 1 << 18  # MS_REC, MS_PRIVATE
_LIBC = ctypes.CDLL(None, use_errno=True)


def own_mounts() -> None:
    """Give this process a mount namespace of its own.

    Raises:
        OSError: neither as root nor in a user namespace is it allowed.
    """
    user, group = os.getuid(), os.getgid()
    flags = _NEW_MOUNTS if user == 0 else _NEW_MOUNTS | _NEW_USERS
    _call(_LIBC.unshare(flags), "unshare")
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _mount(None, Path("/"), None, _RECURSIVE | _PRIVATE, "")


def mount_disk(folder: Path, options: str) -> None:
    """Mount an empty disk in memory on a folder, with options of tmpfs."""
    _mount("tmpfs", folder, "tmpfs", 0, options)


def mount_again(source: Path, folder: Path) -> None:
    """Show a folder in another place, too."""
    _mount(str(source), folder, None, _BIND, "")


def mount_read_only(folder: Path) -> None:
    """Make a folder read-only, for root as for everybody."""
    mount_again(folder, folder)
    _mount(None, folder, None, _REMOUNT | _BIND | _READ_ONLY, "")


def why_unavailable() -> str:
    """Why nothing can be mounted here; empty if it can."""
    try:
        isolated(lambda: None)
    except AssertionError as error:
        return str(error).strip().splitlines()[-1]
    return ""


def isolated(function: Callable[[], Any]) -> None:
    """Call a function in a forked process with mounts of its own.

    Raises:
        AssertionError: it raised; the message is its traceback.
    """
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            own_mounts()
            function()
            code = 0
        except BaseException:
            os.write(sending, traceback.format_exc()[-50_000:].encode())
        finally:
            os._exit(code)
    os.close(sending)
    with os.fdopen(receiving) as stream:
        said = stream.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, said or f"exit code {code}"


def _mount(source: str | None, folder: Path, kind: str | None, flags: int, options: str) -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, folder, kind)]
    _call(_LIBC.mount(*texts, ctypes.c_ulong(flags), options.encode()), "mount")


def _call(result: int, name: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
