"""What holds for all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from tests.house.quick import why_not

# A shell's background job ignores SIGINT, and so would each process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Drawn examples take as long as the machine lets them.
hypothesis.settings.register_profile(
    "any-speed", hypothesis.settings(hypothesis.settings.default, deadline=None)
)
hypothesis.settings.load_profile("any-speed")


def _separate_extensions() -> None:
    """Give each worker its own folder of compiled operators, with what is compiled already.

    Two processes that compile the same one wait for each other's lock, and forever for that of a
    process which a test killed.
    """
    worker, shared = os.environ.get("PYTEST_XDIST_WORKER"), os.environ.get("TORCH_EXTENSIONS_DIR")
    if not (worker and shared):
        return
    own = Path(f"{shared}-{worker}")
    own.mkdir(parents=True, exist_ok=True)
    for compiled in Path(shared).glob("deepspeed_*"):
        if not (own / compiled.name).exists():
            (own / compiled.name).symlink_to(compiled, target_is_directory=True)
    os.environ["TORCH_EXTENSIONS_DIR"] = str(own)


_separate_extensions()


@pytest.fixture(autouse=True)
def _same_compiler() -> Iterator[None]:
    """Undo what PEFT leaves in the environment where it cannot compile BOFT's extension.

    With another one, DeepSpeed compiles its operator anew, for minutes, in whatever comes next.
    """
    before = {name: os.environ.get(name) for name in ("CC", "CXX")}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick",
        action="store_true",
        help="only files that need no torch and start no process, without tests marked slow",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if not config.getoption("--quick"):
        return None
    is_test = collection_path.match("test_*.py") or collection_path.match("*_test.py")
    return True if is_test and why_not(collection_path) is not None else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--quick"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
