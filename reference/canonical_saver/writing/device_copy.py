"""How pieces of tensors come to main memory, one ahead of the one that is being written.

A piece on an accelerator is copied on a stream of its own into one of two pinned buffers: while the
bytes in one are being written, the device fills the other. A piece in main memory is not copied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import torch

from canonical_saver.weights.tensors import PIECE, elements
from canonical_saver.writing.write_items import Part
from canonical_saver.writing.writer import ASYNCHRONOUS

BUFFERS = 2


class Copier(Protocol):
    """Starts copies from a device; a test has one of its own."""

    def applies(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is on a device that this copies from."""

    def buffer(self) -> torch.Tensor:
        """Make a buffer of ``PIECE`` bytes of uint8 to copy to."""

    def start(self, parts: Iterable[Part], buffer: torch.Tensor) -> Callable[[], None]:
        """Begin to copy parts to the start of a buffer; what is returned waits for the end."""


def to_host(
    batches: Iterable[list[Part]], copier: Copier | None = None
) -> Iterator[list[torch.Tensor]]:
    """Carry batches of parts to main memory, in order.

    Args:
        batches: parts of one device and of at most ``PIECE`` bytes, before and after a cast.
        copier: copies from devices; by default those that copy and compute at once.

    Yields:
        For each batch contiguous CPU tensors of uint8, which together are its bytes. They are valid
        until the next batch is requested.
    """
    carry: Copier = copier or _Streams()
    buffers: deque[torch.Tensor] = deque()
    ahead: deque[Callable[[], list[torch.Tensor]]] = deque()
    for batch in batches:
        if carry.applies(batch[0][0].data):
            if len(buffers) < BUFFERS:
                buffers.append(carry.buffer())
            buffers.rotate(1)
            ahead.append(_begun(carry, batch, buffers[0]))
        else:
            ahead.append(_here(batch))
        if len(ahead) == BUFFERS:
            yield ahead.popleft()()
    while ahead:
        yield ahead.popleft()()


def _begun(
    carry: Copier, batch: list[Part], buffer: torch.Tensor
) -> Callable[[], list[torch.Tensor]]:
    size = sum(
        length * (dtype or local_slice.data.dtype).itemsize
        for local_slice, _, length, dtype in batch
    )
    wait = carry.start(batch, buffer)

    def finish() -> list[torch.Tensor]:
        wait()
        return [buffer[:size]]

    return finish


def _here(batch: list[Part]) -> Callable[[], list[torch.Tensor]]:
    return lambda: [elements(*part).to("cpu") for part in batch]


class _Streams:  # pragma: no cover - needs an accelerator
    """Copies on a stream of its own for each device."""

    def __init__(self) -> None:
        self._streams: dict[torch.device, torch.Stream] = {}

    def applies(self, tensor: torch.Tensor) -> bool:
        return tensor.device.type in ASYNCHRONOUS

    def buffer(self) -> torch.Tensor:
        return torch.empty(PIECE, dtype=torch.uint8, pin_memory=True)

    def start(self, parts: Iterable[Part], buffer: torch.Tensor) -> Callable[[], None]:
        parts = list(parts)
        device = parts[0][0].data.device
        stream = self._streams.get(device)
        if stream is None:
            stream = self._streams[device] = torch.Stream(device)
            # What the training has computed last must be there first.
            stream.wait_stream(torch.accelerator.current_stream(device))
        position = 0
        with stream:
            for part in parts:
                data = elements(*part)
                buffer[position : position + data.numel()].copy_(data, non_blocking=True)
                position += data.numel()
            event = stream.record_event()
        return event.synchronize
