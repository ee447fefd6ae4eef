"""The environment of a reader: a virtual environment or a folder of npm, made once and kept.

It lies in the cache folder under the reader's name and a digest of what it is made of, so that
other pins are another environment. It counts as made once a marker is written at the very end; what
a cut-off installation left is removed by the next. Nothing is ever installed beside the suite.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from saver_conformance.readers.reader import Reader

HOME_VARIABLE = "SAVER_CONFORMANCE_READERS"
"""The environment variable that names the folder of all environments."""
MARKER = "complete.json"
"""Written last; holds the seconds that the installation took."""
SAFE_PATH = "-P"
"""The option by which a program called like a library does not hide it."""
_OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
LOG_LINES = 5
"""Lines of an installer's output that go with its failure."""


class EnvironmentUnavailableError(Exception):
    """The reader's environment is not there, or cannot be made; the message says why."""


def home() -> Path:
    """Where environments are kept."""
    if own := os.environ.get(HOME_VARIABLE):
        return Path(own)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "saver-conformance" / "readers"


def place_of(reader: Reader) -> Path:
    """Where the reader's environment lies, once it is made."""
    made_of = [
        *("pins", reader.dependencies, reader.install, reader.no_deps, reader.sources),
        *(reader.uninstall, (reader.python or _OWN) if reader.is_python else "node"),
    ]
    digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]
    return home() / f"{reader.name}-{digest}"


def is_made(reader: Reader) -> bool:
    """Whether the reader can run."""
    return not reader.has_environment or (place_of(reader) / MARKER).is_file()


def command_of(reader: Reader) -> tuple[str, ...]:
    """The command that runs the reader's program.

    Raises:
        EnvironmentUnavailableError: its environment is not made.
    """
    if not reader.has_environment:
        return (
            *((sys.executable, SAFE_PATH) if reader.is_python else (_node(),)),
            str(reader.program),
        )
    place = place_of(reader)
    if not is_made(reader):
        raise EnvironmentUnavailableError(
            f"not installed; run: saver-conformance readers install {reader.name}"
        )
    if reader.is_python:
        return (str(place / "venv/bin/python"), SAFE_PATH, str(reader.program))
    return (_node(), str(reader.program))


def variables_of(reader: Reader) -> Mapping[str, str]:
    """Environment variables by which the program finds what was installed for it."""
    place = place_of(reader)
    found = {"READER_SOURCES": str(place / "sources")}
    if not reader.is_python and reader.has_environment:
        found["READER_MODULES"] = str(place / "node_modules")
    return found


def make(reader: Reader) -> float:
    """Make the reader's environment if it is not there.

    Returns:
        The seconds that its installation took, now or when it was made.

    Raises:
        EnvironmentUnavailableError: it cannot be made here.
    """
    if not reader.has_environment:
        return 0.0
    place = place_of(reader)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _locked(place):
            if not is_made(reader):
                shutil.rmtree(place, ignore_errors=True)
                started = time.monotonic()
                place.mkdir()
                _install(reader, place)
                seconds = round(time.monotonic() - started, 1)
                partial = place / f"{MARKER}.partial"
                partial.write_text(json.dumps({"reader": reader.name, "seconds": seconds}))
                partial.replace(place / MARKER)
            return float(json.loads((place / MARKER).read_text())["seconds"])
    except OSError as error:
        raise EnvironmentUnavailableError(f"it could not be installed: {error}") from error


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[None]:
    """One process makes an environment; others wait, and find it made."""
    with place.with_name(f".{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(reader: Reader, place: Path) -> None:
    if reader.is_python:
        _install_python(reader, place)
    else:
        (place / "package.json").write_text('{"private": true}')
        options = ("--ignore-scripts", "--no-audit", "--no-fund")
        _run((_tool("npm"), "install", *options, *reader.dependencies), place)


def _install_python(reader: Reader, place: Path) -> None:
    """Install by uv where it is there; by pip elsewhere, and where uv fails.

    pip may be told of packages that uv does not know of, by a file or a variable of its own.
    """
    python = str(place / "venv/bin/python")
    if uv := shutil.which("uv"):
        tool = (uv, "pip")
        try:
            _run((uv, "venv", "--python", _python(reader), "venv"), place)
            _install_packages(
                reader,
                place,
                (*tool, "install", "--python", python),
                (*tool, "uninstall", "--python", python),
            )
        except EnvironmentUnavailableError:
            shutil.rmtree(place / "venv", ignore_errors=True)
        else:
            return
    _run((_python(reader), "-m", "venv", "venv"), place)
    pip = (python, "-m", "pip")
    _install_packages(
        reader, place, (*pip, "install", "--no-compile", "--no-input"), (*pip, "uninstall", "-y")
    )


def _install_packages(
    reader: Reader, place: Path, install: tuple[str, ...], uninstall: tuple[str, ...]
) -> None:
    for requirement in reader.install:
        _run((*install, requirement), place)
    if reader.dependencies:
        _run((*install, *reader.dependencies), place)
    if reader.no_deps:
        _run((*install, "--no-deps", *reader.no_deps), place)
    if reader.uninstall:
        _run((*uninstall, *reader.uninstall), place)
    for source in reader.sources:
        _unpack(source, place)


def _unpack(source: str, place: Path) -> None:
    """Download a source package and unpack it; nothing is built."""
    python = str(place / "venv/bin/python")
    downloads, sources = place / "downloads", place / "sources"
    if not (place / "venv/bin/pip").exists():
        _run((python, "-m", "ensurepip"), place)
    name = source.partition("==")[0]
    _run(
        (
            *(python, "-m", "pip", "download", "--no-deps", "--no-binary", name),
            *("-d", str(downloads), source),
        ),
        place,
    )
    for archive in downloads.glob("*.tar.gz"):
        with tarfile.open(archive) as packed:
            packed.extractall(sources, filter="data")


def _python(reader: Reader) -> str:
    """The interpreter that the environment is made with.

    Raises:
        EnvironmentUnavailableError: there is none of the version that the reader needs.
    """
    if reader.python in ("", _OWN):
        return sys.executable
    found = shutil.which(f"python{reader.python}")
    if found is None:
        raise EnvironmentUnavailableError(f"it needs Python {reader.python}, which is not here")
    return found


def _node() -> str:
    return _tool("node")


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise EnvironmentUnavailableError(f"it needs {name}, which is not installed")
    return found


def _run(command: Sequence[str], place: Path) -> None:
    """Run an installer in ``place``.

    Raises:
        EnvironmentUnavailableError: it fails; the message has the end of its output.
    """
    done = subprocess.run(
        command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    with (place / "install.log").open("a") as log:
        log.write(done.stdout)
    if done.returncode:
        last = "\n".join(done.stdout.strip().splitlines()[-LOG_LINES:])
        raise EnvironmentUnavailableError(f"it could not be installed: {last}")
