"""Pieces come to main memory one ahead of the writer, in buffers that are used again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.helpers import models

from canonical_saver import save_model
from canonical_saver.weights.tensors import PIECE, LocalSlice, elements
from canonical_saver.writing.device_copy import BUFFERS, to_host
from canonical_saver.writing.write_items import Part


class SlowCopier:
    """Copies in a thread, late: what does not wait sees old bytes, what hurries breaks new ones."""

    def __init__(self) -> None:
        self.buffers = 0
        self.under_way = 0
        self.most_under_way = 0

    def applies(self, tensor: torch.Tensor) -> bool:
        return tensor.dtype != torch.int64  # some tensors lie in main memory

    def buffer(self) -> torch.Tensor:
        self.buffers += 1
        return torch.full((PIECE,), 255, dtype=torch.uint8)

    def start(self, parts: Iterable[Part], buffer: torch.Tensor) -> Callable[[], None]:
        parts = list(parts)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)

        def copy() -> None:
            time.sleep(0.01)
            data = torch.cat([elements(*part) for part in parts])
            buffer[: len(data)] = data

        thread = threading.Thread(target=copy)
        thread.start()

        def wait() -> None:
            thread.join()
            self.under_way -= 1

        return wait


def whole_run(data: torch.Tensor) -> LocalSlice:
    return LocalSlice(0, data.numel(), data)


def test_a_copy_is_under_way_while_the_one_before_is_used() -> None:
    copier = SlowCopier()
    tensors = [torch.full((1000 + n,), n, dtype=torch.float32) for n in range(9)]
    batches = ([(whole_run(tensor), 0, tensor.numel(), None)] for tensor in tensors)
    for number, (piece,) in enumerate(to_host(batches, copier)):
        assert copier.under_way == (1 if number < len(tensors) - 1 else 0)
        time.sleep(0.02)  # the next copy ends in the meantime and must not touch this piece
        assert torch.equal(piece.view(torch.float32), tensors[number])
    assert copier.buffers == copier.most_under_way == BUFFERS


def test_batches_of_several_parts_and_of_other_devices_keep_their_order() -> None:
    here = torch.arange(5)
    there = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    strided = there.T
    batches: list[list[Part]] = [
        [(whole_run(there), 3, 4, None), (whole_run(strided), 1, 2, torch.bfloat16)],
        [(whole_run(here), 1, 3, None)],
        [(whole_run(there), 0, 24, None)],
        [(whole_run(here), 0, 5, None)],
    ]
    found = [
        b"".join(bytes(p.tolist()) for p in pieces) for pieces in to_host(batches, SlowCopier())
    ]
    expected = [torch.cat([elements(*batch) for batch in parts]).tolist() for parts in batches]
    assert found == [bytes(e) for e in expected]


def test_main_memory_is_not_copied() -> None:
    data = torch.zeros(100)
    ((piece,),) = to_host([[(whole_run(data), 10, 20, None)]])
    assert piece.data_ptr() == data[10:].data_ptr()


def test_a_saved_model_went_through_the_buffers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = models.mixtral()
    save_model(model, tmp_path / "plain", dtype="bfloat16")
    copier = SlowCopier()
    monkeypatch.setattr("canonical_saver.writing.device_copy._Streams", lambda: copier)
    monkeypatch.setattr("canonical_saver.writing.writer.ASYNCHRONOUS", {"cpu"})
    save_model(model, tmp_path / "staged", dtype="bfloat16", verify="full")
    assert copier.buffers
    assert models.contents(tmp_path / "staged") == models.contents(tmp_path / "plain")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator with streams")
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_a_model_on_an_accelerator(tmp_path: Path, dtype: str | None) -> None:
    model: Any = models.mixtral()
    save_model(model, tmp_path / "plain", dtype=dtype)
    before = torch.cuda.memory_allocated()
    moved = model.cuda()
    held = torch.cuda.memory_allocated()
    save_model(moved, tmp_path / "moved", dtype=dtype, verify="full")
    assert torch.cuda.memory_allocated() == held > before
    assert models.contents(tmp_path / "moved") == models.contents(tmp_path / "plain")
