"""One judge for all tests that run savers on the real bench."""

import pytest

from saver_conformance.judge import Judge

SAVE_LIMIT = 15.0
"""Seconds; enough for a tiny save on a busy machine, and what a mutant that sleeps costs."""
CRASH_POINTS = 10
"""Half of what the gate has: whoever leaves a mixture does so at many points."""


class SharedJudge(Judge):
    """A judge whose worlds go from one saver to the next; starting them takes most of the time."""

    def turn_to(self, saver):
        self._saver = saver
        for world in self._worlds.values():
            assert all(answer.status == "returned" for answer in world.load(saver))


@pytest.fixture(scope="session")
def shared_judge():
    saver = "canonical_saver:save_trained_model"
    with SharedJudge(saver, save_limit=SAVE_LIMIT, crash_points=CRASH_POINTS) as judge:
        yield judge
