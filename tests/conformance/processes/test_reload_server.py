"""The server that reloads folders starts wherever a user keeps temporary files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from saver_conformance.processes.reload_server import LONGEST_FOLDER

ROOT = Path(__file__).parents[3]
START = """
import tempfile
from saver_conformance.processes.reload_server import Reloader
before = tempfile.gettempdir()
Reloader("json").stop()
assert tempfile.gettempdir() == before
"""


@pytest.mark.parametrize("letters", [1, 200])
def test_reloader_temporary_folder_too_long_for_a_socket_starts(
    tmp_path: Path, letters: int
) -> None:
    temporary = tmp_path / ("x" * letters)
    temporary.mkdir()
    assert letters == 1 or len(os.fsencode(temporary)) > LONGEST_FOLDER
    environment = {**os.environ, "TMPDIR": str(temporary)}
    done = subprocess.run(
        [sys.executable, "-c", START], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert list(temporary.iterdir()) == []
