"""The suite as other environments import it: a copy of its package, and of the reference saver.

Each lies in a folder of its own for PYTHONPATH, ``suite`` and ``reference``: the folder that they
are installed in would bring all its other libraries along, and an environment may have a reference
saver of its own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
from importlib import metadata
from pathlib import Path

from saver_conformance.environments.cache import keep

NEEDS = ("hypothesis", "jinja2", "jsonschema", "packaging", "rich", "pillow")
"""Distributions that a run needs besides the libraries that train; installed with the saver."""
IMPORTED = ("hypothesis", "jinja2", "jsonschema", "rich", "torch", "transformers", "accelerate")
"""Modules that an environment has to have."""
REFERENCE_PACKAGE = "canonical_saver"
_PACKAGES = {"suite": "saver_conformance", "reference": REFERENCE_PACKAGE}
_DISTRIBUTION = "canonical-saver"


def make_worker() -> Path:
    """A folder with this suite in it; kept for as long as the suite is the same."""
    sources = {
        f"{place}/{name}": folder
        for place, name in _PACKAGES.items()
        if (folder := _folder_of(name))
    }
    digest = hashlib.sha256()
    for name, folder in sources.items():
        for path in _files(folder):
            digest.update(f"{name}/{path.relative_to(folder)}\0".encode() + path.read_bytes())

    def make(target: Path) -> None:
        target.mkdir()
        for name, folder in sources.items():
            for path in _files(folder):
                copy = target / name / path.relative_to(folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
        # So that reports made inside name the version of the suite.
        about = target / "suite" / f"canonical_saver-{_version()}.dist-info"
        about.mkdir()
        text = f"Metadata-Version: 2.1\nName: {_DISTRIBUTION}\nVersion: {_version()}\n"
        (about / "METADATA").write_text(text)

    return keep("workers", digest.hexdigest()[:16], make)


def _files(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )


def _folder_of(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def _version() -> str:
    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "0"
