"""The releases of a distribution, from the package index that pip is set up for."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable

from saver_conformance.errors import BisectError

_AVAILABLE = re.compile(r"^Available versions: (.+)$", re.MULTILINE)


def choose_versions(text: str, package: str) -> tuple[str, ...]:
    """The versions that ``A..B`` or a list ``A,B,C`` names, in order.

    Raises:
        BisectError: it names fewer than two, or the index cannot be asked.
    """
    first, dots, last = text.partition("..")
    if not dots:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    found = between(list_releases(package), first, last)
    if len(found) < 2:
        raise BisectError(f"there are no two releases of {package} from {first} to {last}")
    return found


def between(releases: Iterable[str], first: str, last: str) -> tuple[str, ...]:
    """The final releases from ``first`` to ``last``, both included, in order.

    Raises:
        BisectError: one of them is no version.
    """
    from packaging.version import InvalidVersion, Version

    try:
        low, high = Version(first), Version(last)
        versions = {Version(text): text for text in releases}
    except InvalidVersion as error:
        raise BisectError(f"expected versions such as 0.18.0..0.21.2: {error}") from error
    inside = (v for v in versions if low <= v <= high and not (v.is_prerelease or v.is_devrelease))
    return tuple(versions[version] for version in sorted(inside))


def list_releases(package: str) -> tuple[str, ...]:
    """All releases of ``package``.

    Raises:
        BisectError: pip does not say.
    """
    command = [sys.executable, "-m", "pip", "index", "versions", package]
    done = subprocess.run(command, capture_output=True, text=True)
    found = _AVAILABLE.search(done.stdout)
    if done.returncode or found is None:
        raise BisectError(
            f"the releases of {package} are not known; name versions: --versions 0.20.0,0.21.0\n"
            f"{done.stderr.strip()[-500:]}"
        )
    return tuple(part.strip() for part in found[1].split(","))
