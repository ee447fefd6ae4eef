"""One judge for all tests that run savers on the real workload, and one wheel."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from saver_conformance.execution.case_runner import CaseRunner

SAVE_LIMIT = 15.0
"""Seconds; enough for a tiny save on a busy machine, and what a mutant that sleeps costs."""
CRASH_POINTS = 10
"""Half of what the gate has: whoever leaves a mixture does so at many points."""


ROOT = Path(__file__).parents[2]


class SharedJudge(CaseRunner):
    """A judge whose worlds go from one saver to the next; starting them takes most of the time."""

    def make_ready(self, case):
        # Ranks import savers from the folder that they start in; a test may have gone elsewhere.
        with contextlib.chdir(ROOT):
            super().make_ready(case)

    def turn_to(self, saver):
        self._worlds.load(saver)

    def stop_worlds(self):
        self._worlds.stop()


@pytest.fixture(scope="session")
def shared_judge():
    saver = "canonical_saver:save_trained_model"
    with SharedJudge(saver, save_limit=SAVE_LIMIT, crash_points=CRASH_POINTS) as judge:
        yield judge


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    # The build backend that is installed: no download for each test run.
    subprocess.run([*command, "--no-build-isolation", "-w", folder, ROOT], check=True)
    [built] = folder.iterdir()
    return built
