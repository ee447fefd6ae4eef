"""One judge for all tests that run savers on the real bench."""

import pytest

from saver_conformance.judge import Judge

SAVE_LIMIT = 15.0
"""Seconds; enough for a tiny save on a busy machine, and what a mutant that sleeps costs."""


class SharedJudge(Judge):
    """A judge whose worlds go from one saver to the next; starting them takes most of the time."""

    def turn_to(self, saver):
        self._saver = saver
        for world in self._worlds.values():
            assert all(answer.status == "returned" for answer in world.load(saver))


@pytest.fixture(scope="session")
def shared_judge():
    with SharedJudge("canonical_saver:save_trained_model", save_limit=SAVE_LIMIT) as judge:
        yield judge
