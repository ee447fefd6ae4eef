"""A package that is installed without a network, and a uv that does not know of it."""

from __future__ import annotations

import sys
from pathlib import Path
from zipfile import ZipFile


def make_wheel(folder: Path) -> Path:
    """Write the wheel of ``known_to_pip``, a package of one module."""
    info = "known_to_pip-1.dist-info"
    path = folder / "known_to_pip-1-py3-none-any.whl"
    with ZipFile(path, "w") as wheel:
        wheel.writestr("known_to_pip.py", "")
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: known-to-pip\nVersion: 1\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


def make_uv(folder: Path) -> Path:
    """Write a uv that makes environments, without pip as uv does, and can install nothing."""
    path = folder / "uv"
    path.write_text(
        "#!/bin/sh\n"
        'if [ "$1" != venv ]; then echo "no such package" >&2; exit 1; fi\n'
        "for place; do :; done\n"
        f'exec {sys.executable} -m venv --without-pip "$place"\n'
    )
    path.chmod(0o755)
    return path
