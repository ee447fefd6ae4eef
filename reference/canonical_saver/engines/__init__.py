"""Where each training engine keeps a parameter's bytes.

The engines are told apart by what the parameters are, not by a configuration: flat parameters
(FSDP1), distributed tensors (FSDP2, HSDP, tensor parallelism), DeepSpeed's partitions (ZeRO-3), or
plain tensors, which every rank holds complete (one process, DDP, ZeRO-1 and ZeRO-2). Each module
here answers one question: which flat ranges of this tensor does this rank hold? Nothing is
gathered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from canonical_saver.engines import autotp, bnb, dtensor, fsdp1, replicated, zero3
from canonical_saver.sources import Replica, Run, Source, whole


class Engines:
    """Finds the tensors of a model's modules, whatever engine holds them.

    Args:
        roots: all modules in which wrappers may be found.
        rank: this rank among all.
    """

    def __init__(self, roots: tuple[nn.Module, ...], rank: int) -> None:
        self._rank = rank
        for root in roots:
            dtensor.reshard(root)
        self._flat = fsdp1.find(roots)
        self._synchronized = replicated.synchronized(roots)

    def parameters(self, module: nn.Module) -> Iterator[tuple[str, Source]]:
        """Yield the module's own parameters, in state-dict order, by their names in it."""
        names = [name for name, value in module._parameters.items() if value is not None]
        names += [name for name in self._flat.get(id(module), {}) if name not in names]
        for name in names:
            source = self._flat.get(id(module), {}).get(name)
            if source is None:
                source = self._parameter(module, name)
            if source is not None:
                synchronized = id(module._parameters.get(name)) in self._synchronized
                yield name, self._on_first_rank(source, synchronized=synchronized)

    def buffers(self, module: nn.Module) -> Iterator[tuple[str, Source]]:
        """Yield the module's own persistent buffers, by their names in it."""
        for name, value in module._buffers.items():
            if value is None or name in module._non_persistent_buffers_set:
                continue
            if dtensor.applies(value):
                yield name, dtensor.source(value)
            else:
                synchronized = id(value) in self._synchronized
                yield (
                    name,
                    self._on_first_rank(whole(value), synchronized=synchronized, buffer=True),
                )

    def extras(self, module: nn.Module, known: set[str]) -> Iterator[tuple[str, Source]]:
        """Yield tensors that a module only adds while saving, as bitsandbytes' quantization state.

        Args:
            module: the module.
            known: names that are parameters or buffers of it.
        """
        for name, value in bnb.quantization_state(module, known):
            yield name, self._on_first_rank(whole(value))

    def _on_first_rank(
        self, source: Source, *, synchronized: bool = False, buffer: bool = False
    ) -> Source:
        """Let rank 0 alone write a tensor that every rank is said to hold complete."""
        if not source.replicated or not source.runs:
            return source
        (run,) = source.runs
        replica = Replica("whole", run, buffer, synchronized)
        if run.data.is_meta:
            replica = None  # a rank that only knows the shape, for another one that has the bytes
        runs: tuple[Run, ...] = source.runs if self._rank == 0 else ()
        return replace(source, runs=runs, replica=replica)

    def _parameter(self, module: nn.Module, name: str) -> Source | None:
        value = bnb.unpacked(module, name)
        if value is None or fsdp1.applies(value):
            return None
        if autotp.applies(module):
            return autotp.source(module, name, value)
        if zero3.applies(value):
            return zero3.source(value)
        if dtensor.applies(value):
            return dtensor.source(value)
        return whole(value)
