"""A digest sees every bit and its place, and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from canonical_saver.formats.safetensors import DTYPE_NAMES
from canonical_saver.weights import digests as digests_module
from canonical_saver.weights.digests import BLOCK, digests
from canonical_saver.weights.tensors import LocalSlice, whole


def digest(tensor: torch.Tensor) -> int:
    (found,) = digests([whole(tensor).slices[0]])
    return found


def random_bytes(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count,), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("dtype", [*DTYPE_NAMES, torch.complex128], ids=str)
def test_digest_any_dtype_sees_each_bit(dtype: torch.dtype) -> None:
    data = random_bytes(7 * 16)
    if dtype == torch.bool:
        data &= 1
    tensor = data.view(dtype)
    before = digest(tensor)
    for byte in range(len(data)):
        for bit in range(1 if dtype == torch.bool else 8):
            data[byte] ^= 1 << bit
            assert digest(tensor) != before, (byte, bit)
            data[byte] ^= 1 << bit
    assert digest(tensor) == before


def test_digest_nan_payloads_differ() -> None:
    bits = torch.tensor([0x7FC00000, 0x7FC00001, 0x7F800001], dtype=torch.int32)
    assert len({digest(bits[n : n + 1].view(torch.float32)) for n in range(3)}) == 3


@pytest.mark.parametrize("apart", [1, 2, 3, BLOCK, 2 * BLOCK])
def test_digest_two_signs_flipped_differs(apart: int) -> None:
    tensor = torch.ones(4 * BLOCK)
    flipped = tensor.clone()
    flipped[1] = flipped[1 + apart] = -1
    assert digest(flipped) != digest(tensor)


@pytest.mark.parametrize("distance", [1, 8, BLOCK, 8 * BLOCK])
def test_digest_elements_swapped_differs(distance: int) -> None:
    tensor = torch.arange(10 * BLOCK, dtype=torch.int64)
    swapped = tensor.clone()
    swapped[3], swapped[3 + distance] = tensor[3 + distance], tensor[3]
    assert digest(swapped) != digest(tensor)


def test_digest_blocks_swapped_differs() -> None:
    one, other = random_bytes(8 * BLOCK, 1), random_bytes(8 * BLOCK, 2)
    assert digest(torch.cat([one, other])) != digest(torch.cat([other, one]))


def test_digest_depends_on_no_strides_offsets_threads_or_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = random_bytes(2 * 8 * BLOCK + 6)
    expected = digest(data.view(torch.int16))
    turned = data.view(torch.int16).view(-1, 1).expand(-1, 2)[:, 0]
    shifted = torch.cat([torch.zeros(3, dtype=torch.uint8), data])
    assert digest(turned) == expected
    assert digests([LocalSlice(0, len(data), shifted, 3)]) == [expected]
    square = data[: 2 * BLOCK].view(torch.int16).view(256, -1)
    assert digest(square.t().contiguous().t()) == digest(square)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert digest(data.view(torch.int16)) == expected


def test_digests_of_many_are_those_of_each() -> None:
    tensors = [random_bytes(n, n) for n in (0, 1, 9, 8 * BLOCK + 1, 0)]
    found = digests([whole(tensor).slices[0] for tensor in tensors])
    assert found == [digest(tensor) for tensor in tensors]
    assert found[0] == found[-1] == 0
    assert len(set(found)) == 4


def test_digest_of_a_part_of_a_run_is_that_of_its_elements() -> None:
    data = random_bytes(100)
    assert digests([LocalSlice(5, 40, data, 20)]) == [digest(data[20:60].clone())]


def test_digest_draws_no_random_numbers() -> None:
    digests_module._factors.cache_clear()
    before = torch.get_rng_state()
    digest(torch.ones(3))
    assert torch.equal(torch.get_rng_state(), before)


MEMORY = """
import re
import torch
from canonical_saver.weights.digests import BLOCK, digests
from canonical_saver.weights.tensors import whole

def kilobytes(key):
    return int(re.search(rf"{key}:\\s+(\\d+)", open("/proc/self/status").read())[1])

torch.set_num_threads(1)
sizes = [BLOCK * 8 + 1] * 50 + [200_000_000]
slices = [whole(torch.ones(n, dtype=torch.int8)).slices[0] for n in sizes]
digests(slices[:1])
open("/proc/self/clear_refs", "w").write("5")
before = kilobytes("VmRSS")
digests(slices)
print(kilobytes("VmHWM") - before)
"""


def test_digests_need_little_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True, timeout=300
    )
    assert int(done.stdout) < 8 * 1024
