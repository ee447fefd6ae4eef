"""The project's checks: tests, the conformance gate on the reference, and lint."""

from __future__ import annotations

import nox

nox.options.sessions = ["lint", "tests", "conformance"]
nox.options.reuse_existing_virtualenvs = True

PYTHON = "3.11"
TORCH = "torch==2.13.0"
CONSTRAINTS = ("-c", "constraints.txt")
FUZZ_INPUTS = "-runs=1000000"
LIBRARIES = "conformance,deepspeed,qlora"
MUTANT_TESTS = ("tests/conformance/test_mutants.py", "tests/conformance/test_oddities.py")


def install(session: nox.Session, extras: str, *tools: str) -> None:
    """Install the project with ``extras``, and ``tools``."""
    # First and alone: DeepSpeed's build asks for the torch that is there.
    session.install(TORCH)
    session.install(*CONSTRAINTS, "-e", f".[{extras}]", *tools)


@nox.session(python=PYTHON)
def tests(session: nox.Session) -> None:
    """Run the tests of both packages."""
    # hatchling: the wheel is built with what is installed; the rest drives a browser.
    install(session, LIBRARIES, "hatchling", "selenium", "axe-core-python")
    session.run("pytest", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session(python=PYTHON)
def conformance(session: nox.Session) -> None:
    """Judge the reference by the gate; options are those of ``saver-conformance run``."""
    install(session, LIBRARIES)
    session.run("saver-conformance", "run", *session.posargs)


@nox.session(python=PYTHON)
def mutants(session: nox.Session) -> None:
    """Judge the broken savers and the strange but correct ones; each verdict as declared."""
    install(session, LIBRARIES)
    session.run("pytest", *MUTANT_TESTS, *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session(python=PYTHON)
def crash(session: nox.Session) -> None:
    """Kill saves at every file-system call, make every call fail, and save large models."""
    install(session, LIBRARIES)
    session.run("pytest", "-m", "crash", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session(python=PYTHON)
def fuzz(session: nox.Session) -> None:
    """Fuzz `check DIR` with a million inputs; arguments are those of libFuzzer."""
    install(session, "conformance", "atheris")
    env = {"PYTHONPATH": ".", "TMPDIR": session.create_tmp()}
    session.run("python", "tests/fuzz/fuzz_check.py", FUZZ_INPUTS, *session.posargs, env=env)


@nox.session(python=PYTHON)
def lint(session: nox.Session) -> None:
    """Check style, format and types."""
    install(session, "conformance", "mypy", "ruff", "nox", "types-jsonschema")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
