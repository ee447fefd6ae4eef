"""A tokenizer that not every rank was given."""

from __future__ import annotations

import pytest
import torch

from canonical_saver.writing.agreement import Proposal, compare

NOTHING = torch.empty(0, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("given", "warned"),
    [
        ([True, True], False),
        ([False, False], False),
        ([True, False], False),
        ([False, False, True], True),
        ([False, True], True),
    ],
)
def test_compare_warns_of_a_tokenizer_that_rank_0_lacks(given: list[bool], warned: bool) -> None:
    found = compare([], [Proposal({}, "same", {}, NOTHING, tokenizer=one) for one in given])
    assert not found.layouts
    assert bool(found.warnings) == warned
    if warned:
        assert f"found it on rank {given.index(True)} and not on rank 0" in found.warnings[0]
