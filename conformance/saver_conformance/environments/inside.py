"""A command of the suite, run by the Python of another environment; this process only listens."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from saver_conformance.environments.make import Note, has_module, python_of
from saver_conformance.environments.recipe import Recipe
from saver_conformance.environments.worker import REFERENCE_PACKAGE, make_worker
from saver_conformance.errors import EnvironmentFailedError, ResultError
from saver_conformance.reports.result import REPORT_FILE, read_report
from saver_conformance.verdict.verdict import BROKEN, CONFORMS, INCONCLUSIVE

_NOT_INHERITED = ("PYTHONHOME", "VIRTUAL_ENV", "PYTHONSAFEPATH")


def run_inside(
    recipe: Recipe,
    arguments: Sequence[str],
    saver: str,
    report: Path | None,
    note: Note,
    stdin: str = "",
) -> int:
    """Run ``run`` or ``replay`` in the environment of ``recipe``, and return the exit code.

    Args:
        recipe: the environment.
        arguments: of the command line, with ``--saver``.
        saver: what ``--saver`` was given.
        report: the folder of the report; None where the command names none.
        note: hears what is waited for.
        stdin: what the run reads from its standard input.

    Raises:
        EnvironmentFailedError: the environment cannot be made, or the run in it ended without a
            verdict.
    """
    python = python_of(recipe, note)
    inner = [*with_saver(arguments, recipe.call), "--known-as", saver]
    with tempfile.TemporaryDirectory() as scratch:
        if report is None:
            report = Path(scratch)
            inner += ["--report", str(report)]
        return call_suite(python, inner, report, stdin=stdin)


def call_suite(
    python: Path,
    arguments: Sequence[str],
    report: Path,
    layers: Sequence[Path] = (),
    log: Path | None = None,
    stdin: str = "",
) -> int:
    """Run the suite by ``python`` and return its exit code.

    A Python that fails to start ends with 1, as a saver that breaks a MUST does: the code counts
    only with a report that has it.

    Args:
        python: the interpreter.
        arguments: of the command line, with ``--report``.
        report: the folder of the report.
        layers: folders that come before all others on the path of modules.
        log: a file for what the run prints; None prints it.
        stdin: what the run reads from its standard input.

    Raises:
        EnvironmentFailedError: it ended without a verdict.
    """
    path = report / REPORT_FILE
    before = _stamp(path)
    worker = make_worker()
    own = [*map(str, layers), str(worker / "suite")]
    if not has_module(python, REFERENCE_PACKAGE):
        own.append(str(worker / "reference"))
    inherited = {name: text for name, text in os.environ.items() if name not in _NOT_INHERITED}
    if inherited.get("PYTHONPATH"):
        own.append(inherited["PYTHONPATH"])
    command = [str(python), "-m", "saver_conformance", *arguments]
    environment = inherited | {"PYTHONPATH": os.pathsep.join(own)}
    with contextlib.ExitStack() as files:
        given_in = files.enter_context(tempfile.TemporaryFile("w+"))
        given_in.write(stdin)
        given_in.seek(0)
        out = files.enter_context(log.open("wb")) if log else None
        code = _wait(
            subprocess.Popen(command, env=environment, stdin=given_in, stdout=out, stderr=out)
        )
    if code not in (CONFORMS, BROKEN, INCONCLUSIVE):
        return code
    if _stamp(path) == before or (found := _code_of(path)) is None:
        raise EnvironmentFailedError(
            f"the run by {python} ended with exit code {code} and without a report; nobody is "
            "accused"
        )
    return found


def with_saver(arguments: Sequence[str], saver: str) -> list[str]:
    """``arguments`` with another value of ``--saver``, in whichever way it is written."""
    found, skip = [], False
    for word in arguments:
        if skip:
            found.append(saver)
        else:
            found.append(f"--saver={saver}" if word.startswith("--saver=") else word)
        skip = not skip and word == "--saver"
    return found


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for ``process``; a signal that ends this process ends it first, in order."""
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    if code < 0:
        raise EnvironmentFailedError(f"the run was killed by signal {-code}")
    return code


def _stamp(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.is_file() else None


def _code_of(path: Path) -> int | None:
    try:
        code: int = read_report(path)["exit_code"]
    except ResultError:
        return None
    return code
