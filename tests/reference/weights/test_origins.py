"""Following tensors through what other libraries compute of them."""

from __future__ import annotations

import torch

from canonical_saver.weights.hub_conversion import _Watch
from canonical_saver.weights.tensors import whole


def watched() -> tuple[_Watch, torch.Tensor]:
    watch = _Watch()
    shadow = torch.empty(2, 3, device="meta")
    watch.know_source(shadow, "a", whole(torch.ones(2, 3)))
    return watch, shadow


def test_watch_of_a_copy_into_new_memory_knows_its_origin() -> None:
    watch, shadow = watched()
    with watch:
        made = torch.empty(2, 3, device="meta")
        made.copy_(shadow)
    assert watch.origins(made) == {"a"}
    assert watch.source_ranges(made) is None


def test_watch_of_a_tensor_that_is_changed_in_place_takes_no_ranges_of_it() -> None:
    watch, shadow = watched()
    assert watch.source_ranges(shadow) is not None
    with watch:
        shadow[0].mul_(2)
    assert watch.source_ranges(shadow) is None
    assert watch.origins(shadow) == {"a"}


def test_watch_of_a_view_keeps_the_ranges() -> None:
    watch, shadow = watched()
    with watch:
        row = shadow[1]
    (source_range,) = watch.source_ranges(row) or ()
    assert (source_range.offset, source_range.length) == (3, 3)
