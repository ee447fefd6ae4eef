"""Change the checks' own code in small ways, and see whether anybody notices.

``python -m tests.mutation.run`` tries every change of every module of ``checks/`` and ``disk/``;
``--sample 100`` tries as many of them, drawn with ``--seed``; names of modules choose among them.
A change is noticed when the checks no longer say of the broken and the unusual savers what those
declare, or else when a fast test fails. Savers are run and libraries imported once; each change is
tried in a fork.
"""

import argparse
import ast
import importlib
import importlib.util
import os
import random
import resource
import signal
import sys
import time
from importlib.abc import Loader, MetaPathFinder
from pathlib import Path

import hypothesis
import peft  # noqa: F401 - so that no fork imports it
import pytest
import transformers  # noqa: F401
from tests.mutation.operators import mutate, mutations
from tests.mutation.recordings import Recording, recordings

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "conformance" / "saver_conformance"
MODULES = (
    "checks/*.py",
    "folder/*.py",
    "observation/file_operation.py",
    "observation/tensor_diff.py",
    "processes/file_trace.py",
)
TESTS = {
    "folder/untrusted_json.py": ("folder/test_untrusted_json", "folder_check/test_audit"),
    "folder/": ("folder/test_safetensors", "folder/test_layout", "folder_check/test_audit"),
    "observation/file_operation.py": (
        "observation/test_file_operation",
        "checks/test_crash_and_ranks",
    ),
    "observation/tensor_diff.py": ("checks/test_checks",),
    "processes/file_trace.py": ("observation/test_file_operation",),
    "checks/crash.py": ("checks/test_crash_and_ranks",),
    "checks/purity.py": ("checks/test_crash_and_ranks", "checks/test_purity"),
    "checks/ranks.py": ("checks/test_crash_and_ranks", "checks/test_checks"),
    "checks/": (
        "checks/test_checks",
        "folder_check/test_audit",
        "checks/test_crash_and_ranks",
        "checks/test_purity",
    ),
}
"""Test modules by the beginning of a module's path; the first that fits counts."""
READERS = ("checks", "folder", "observation.tensor_diff", "observation.file_operation")
"""Modules that a check runs through; those of what it looks at stay as they are."""
CPU_LIMIT, LIMIT = 120, 900
"""Seconds of processor time, and at all, after which a change that makes tests hang is noticed."""


class Changed(MetaPathFinder, Loader):
    """Imports one module from a changed tree."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self._name, self._path, self._tree = name, path, tree

    def find_spec(self, name, path=None, target=None):
        if name != self._name:
            return None
        return importlib.util.spec_from_file_location(name, self._path, loader=self)

    def exec_module(self, module):
        exec(compile(self._tree, self._path, "exec"), module.__dict__)


def tests_of(path: Path) -> tuple[str, ...]:
    """Names of the fast tests of a module."""
    inside = path.relative_to(SUITE).as_posix()
    return next(names for start, names in TESTS.items() if inside.startswith(start))


def is_noticed(path: Path, tree: ast.Module | None, recorded: list[Recording]) -> bool:
    """Whether savers or tests tell when the module is changed to ``tree``, if to anything."""
    tests = [f"tests/conformance/{name}.py" for name in tests_of(path)]
    child = os.fork()
    if child == 0:
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT, CPU_LIMIT))
        code = 1
        try:
            if tree is not None:
                name = ".".join(path.relative_to(SUITE.parent).with_suffix("").parts)
                sys.meta_path.insert(0, Changed(name, path, tree))
            import_anew(*READERS)
            run = importlib.import_module("saver_conformance.checks").run
            if not all(recording.is_told_as_declared(run) for recording in recorded):
                os._exit(1)
            import_anew("")
            hypothesis.settings.register_profile("quick", derandomize=True, database=None)
            hypothesis.settings.load_profile("quick")
            code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))
        finally:
            os._exit(code)
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status != 0
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def import_anew(*names: str) -> None:
    """Have the suite's modules whose names begin so imported once more."""
    for name in list(sys.modules):
        if name.startswith(tuple(f"saver_conformance.{start}" for start in names)):
            del sys.modules[name]
            package, _, last = name.rpartition(".")
            if package in sys.modules:
                vars(sys.modules[package]).pop(last, None)


def main() -> int:
    """Print the changes that nobody notices, and the counts.

    Returns:
        1 when there is something to notice without a change.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help="such as checks/files.py (default: all)")
    parser.add_argument("--sample", type=int, help="how many changes to try (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    paths = [path for pattern in MODULES for path in sorted(SUITE.glob(pattern))]
    chosen = [p for p in paths if not given.modules or str(p.relative_to(SUITE)) in given.modules]
    os.chdir(ROOT)
    with recordings() as recorded:
        print(f"{len(recorded)} savers recorded", flush=True)
        for path in {tests_of(path): path for path in chosen}.values():
            if is_noticed(path, None, recorded):
                print(f"{path.relative_to(SUITE)}: unchanged code is noticed")
                return 1
        planned = [(path, one) for path in chosen for one in mutations(path.read_text())]
        if given.sample is not None and given.sample < len(planned):
            planned = random.Random(given.seed).sample(planned, given.sample)
        survivors = 0
        for number, (path, one) in enumerate(planned, start=1):
            if not is_noticed(path, mutate(path.read_text(), one.number), recorded):
                survivors += 1
                where = f"{path.relative_to(SUITE)}:{one.line}"
                print(f"survived: {where}: {one.what}", flush=True)
            if number % 20 == 0 or number == len(planned):
                print(f"{number} of {len(planned)} changes, {survivors} survived", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
