"""Whether all ranks mean one output folder, and which of them see that of rank 0."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from canonical_saver.collectives import Ranks
from canonical_saver.errors import RequestError

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class View:
    """A rank's view of the output folder.

    Attributes:
        path: the folder, as this rank received it.
        target: the same without links.
        shares_folder: whether it is that of rank 0, and can be written to.
        host: the host that this rank is on.
    """

    path: str
    target: str
    shares_folder: bool
    host: str = ""


def host_id() -> str:
    """Name this host: two that run at once, or containers with names of their own, differ."""
    try:
        boot = _BOOT_ID.read_text().strip()
    except OSError:
        boot = ""
    return f"{platform.node()} {boot}"


def look(output_dir: Path, probe: str, token: str) -> View:
    """Look for a file that rank 0 has put into the output folder.

    Args:
        output_dir: the folder, as this rank received it.
        probe: the file, relative to the folder.
        token: what is in it.
    """
    path = output_dir / probe
    try:
        shares_folder = path.read_text() == token and os.access(path, os.W_OK)
    except (OSError, ValueError):
        shares_folder = False
    return View(str(output_dir), os.path.realpath(output_dir), shares_folder, host_id())


def look_together(output_dir: Path, staging: str, token: str, ranks: Ranks) -> list[View]:
    """Find out which ranks see the staging folder of rank 0; collective.

    Args:
        output_dir: the output folder, as this rank received it.
        staging: the staging folder, relative to it.
        token: what the probe in it holds.
        ranks: the ranks of the save.

    Returns:
        The view of each rank.

    Raises:
        RequestError: a rank was given another folder than rank 0.
    """

    def agreed(_: View, views: list[View]) -> list[View]:
        check(views)
        return views

    return ranks.step(
        "look", lambda: look(output_dir, f"{staging}/probe", token), lambda view: view, agreed
    )[1]


def check(views: Sequence[View]) -> None:
    """Find out whether a rank was given another folder than rank 0.

    A rank on another host may not see the folder, but was given the same path.

    Args:
        views: that of each rank.

    Raises:
        RequestError: names such ranks, and what they were given.
    """
    first = views[0]
    strays = [
        f"{view.path} on rank {rank}"
        for rank, view in enumerate(views)
        if not view.shares_folder and view.path != first.path and view.target != first.target
    ]
    if strays:
        raise RequestError(
            f"output_dir: expected one folder for all ranks, found {first.path} on rank 0 and "
            f"{', '.join(strays[:4])}{' and more' if len(strays) > 4 else ''}; is a time or a "
            "random number in its name? Decide on one rank, and send it to the others"
        )
