"""What counts as close, and what has something foreign in it."""

from __future__ import annotations

import pytest
import torch

from canonical_saver.weights.drift import CLOSE, SAMPLES, distance, sample
from canonical_saver.weights.tensors import whole


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return distance(sample(whole(one).slices[0]), sample(whole(other).slices[0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
def test_distance_of_neighbours_is_close(dtype: torch.dtype) -> None:
    values = torch.randn(3000, generator=torch.Generator().manual_seed(0)).bfloat16()
    neighbours = (values.view(torch.int16) + 1).view(torch.bfloat16)
    assert 0 < apart(values.to(dtype), neighbours.to(dtype)) <= CLOSE


def test_distance_of_other_values_is_far() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(3000, generator=generator) for _ in range(2))
    assert apart(one, other) > 1


def test_distance_of_one_foreign_expert_among_many_is_far() -> None:
    generator = torch.Generator().manual_seed(0)
    experts = torch.randn(128, 5, 7, generator=generator)
    other = experts.clone()
    other[77] = torch.randn(5, 7, generator=generator)
    assert apart(experts, other) > CLOSE


def test_distance_of_whole_numbers_is_far() -> None:
    assert apart(torch.tensor([1, 2]), torch.tensor([1, 3])) == float("inf")


def test_distance_nan_and_infinity_are_close_to_themselves_alone() -> None:
    special = torch.tensor([float("nan"), float("inf"), 1.0, -float("inf")])
    assert apart(special, special.clone()) == 0
    for place in range(4):
        other = special.clone()
        other[place] = 3.0
        assert apart(special, other) > CLOSE


def test_distance_of_nothing_is_zero() -> None:
    assert apart(torch.zeros(0), torch.zeros(0)) == 0
    assert apart(torch.zeros(5), torch.zeros(5)) == 0


def test_sample_of_turned_tensor_is_that_of_its_order() -> None:
    values = torch.arange(100.0 * 70).view(100, 70)
    found, expected = (sample(whole(v).slices[0]) for v in (values.t().contiguous().t(), values))
    assert found is not None
    assert expected is not None
    assert torch.equal(found, expected)
    assert len(found) == SAMPLES
