"""Environments from recipes, by uv where it is there and by pip elsewhere."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from saver_conformance.environments.cache import keep
from saver_conformance.environments.recipe import Recipe, name_of
from saver_conformance.environments.worker import IMPORTED, NEEDS
from saver_conformance.errors import EnvironmentFailedError

Note = Callable[[str], None]
"""Hears what is being done, in a line."""

_LOOK = (
    "import importlib.util as u, json, sys;"
    "print(json.dumps([sys.version_info[:2] >= (3, 11),"
    "[name for name in sys.argv[1:] if u.find_spec(name) is None]]))"
)


def python_of(recipe: Recipe, note: Note) -> Path:
    """The Python of the environment of ``recipe``, which is made if it is not there yet.

    Raises:
        EnvironmentFailedError: it cannot be made, or lacks what a run needs.
    """
    folder = recipe.venv or _make(recipe, note)
    python = folder / "bin" / "python"
    if not python.exists():
        raise EnvironmentFailedError(f"{folder} is no environment: it has no bin/python")
    _expect_needs(python, recipe)
    return python


def has_module(python: Path, name: str) -> bool:
    """Whether ``python`` finds the module ``name``."""
    text = "import importlib.util as u, sys; sys.exit(u.find_spec(sys.argv[1]) is None)"
    return subprocess.run([python, "-c", text, name], capture_output=True).returncode == 0


def make_layer(requirement: str, note: Note) -> Path:
    """A folder for PYTHONPATH with one distribution in it, for this Python, without dependencies.

    Raises:
        EnvironmentFailedError: it cannot be installed.
    """
    key = _digest([requirement, platform.python_version(), platform.machine()])

    def make(folder: Path) -> None:
        note(f"installing {requirement}")
        _install(Path(sys.executable), ["--no-deps", "--target", str(folder), requirement])

    return keep("layers", f"{name_of(requirement)}-{key}", make)


def _make(recipe: Recipe, note: Note) -> Path:
    pins = [_content(path) for path in recipe.exact]
    version = recipe.python or platform.python_version()
    key = _digest([recipe.requirements, pins, version, NEEDS])

    def make(folder: Path) -> None:
        note(f"making an environment for {' '.join(recipe.requirements) or recipe.name}: {folder}")
        if uv := shutil.which("uv"):
            wanted = recipe.python or sys.executable
            _call([uv, "venv", "--quiet", "--python", wanted, str(folder)])
        else:
            _call([_interpreter(recipe.python), "-m", "venv", str(folder)])
        python = folder / "bin" / "python"
        if not recipe.exact:
            # In one call, so that the suite's needs give way to the saver's pins.
            _install(python, [*recipe.requirements, *NEEDS])
            return
        if recipe.requirements:
            _install(python, [*recipe.requirements])
        for path in recipe.exact:
            _install(python, ["--no-deps", "-r", str(path)])
        _install(python, [*NEEDS])

    return keep("environments", f"{recipe.name}-{key}", make)


def _interpreter(version: str) -> str:
    if not version:
        return sys.executable
    found = shutil.which(f"python{version}")
    if found is None:
        raise EnvironmentFailedError(
            f"there is no python{version} on the PATH; install it, or uv, which brings it"
        )
    return found


def _install(python: Path, arguments: Sequence[str]) -> None:
    """Install by uv where it is there; by pip elsewhere, and where uv fails.

    pip may be told of packages that uv does not know of, by a file or a variable of its own.
    """
    options = ["install", "--quiet"]
    pip = [str(python), "-m", "pip"]
    if uv := shutil.which("uv"):
        try:
            _call([uv, "pip", *options, "--python", str(python), *arguments])
        except EnvironmentFailedError:
            if subprocess.run([*pip, "--version"], capture_output=True).returncode:
                _call([str(python), "-m", "ensurepip"])
        else:
            return
    _call([*pip, *options, *arguments])


def _call(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise EnvironmentFailedError(f"{' '.join(command)} failed:\n{said}")


def _expect_needs(python: Path, recipe: Recipe) -> None:
    done = subprocess.run([python, "-c", _LOOK, *IMPORTED], capture_output=True, text=True)
    try:
        is_new_enough, missing = json.loads(done.stdout)
    except ValueError as error:
        raise EnvironmentFailedError(f"{python} does not run:\n{done.stderr[-2000:]}") from error
    if not is_new_enough:
        raise EnvironmentFailedError(f"{python}: expected Python 3.11 or later")
    if missing:
        whose = "the environment" if recipe.venv else "what the requirements brought"
        raise EnvironmentFailedError(
            f"{whose} lacks {', '.join(missing)}, which a run needs; "
            + (
                f"install them: {python} -m pip install {' '.join(missing)}"
                if recipe.venv
                else "add them to the requirements"
            )
        )


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise EnvironmentFailedError(f"{path} cannot be read: {error}") from error


def _digest(parts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
