"""Halves of fused experts are written from where they lie; what is really turned is computed."""

from __future__ import annotations

import torch
from tests.helpers import models

from canonical_saver.weights import hub_conversion
from canonical_saver.weights.tensors import elements, whole


def test_no_expert_is_computed() -> None:
    model = models.mixtral()
    model_tensors = {name: whole(tensor) for name, tensor in model.state_dict().items()}
    expected = hub_conversion.revert(model, dict(model.state_dict()))
    for entry in hub_conversion.to_hub(model, model_tensors):
        assert entry.source_ranges is not None, entry.name
        parts = [
            elements(source_range.model_tensor.slices[0], source_range.offset, source_range.length)
            for source_range in entry.source_ranges
        ]
        found = torch.cat(parts).view(entry.dtype).view(entry.shape)
        assert torch.equal(found, expected[entry.name]), entry.name


def test_stretches_are_the_elements_in_their_order() -> None:
    data = torch.arange(240).reshape(4, 5, 12)
    for view in (data, data[:, 1:3], data[1], data[..., :6], data[::2], data[:, :, None], data[:0]):
        stretches = hub_conversion._stretches(view)
        assert stretches is not None
        found = [n for first, length in stretches for n in range(first, first + length)]
        assert found == view.flatten().tolist()
    assert hub_conversion._stretches(data.transpose(1, 2)) is None
    assert hub_conversion._stretches(data[..., 0]) is None
    many = torch.empty(hub_conversion.MOST_STRETCHES + 1, 4)
    assert hub_conversion._stretches(many[:, :2]) is None
