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

from canonical_saver.engines import bnb, dtensor, fsdp1, zero3
from canonical_saver.sources import Run, Source, whole


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
        self._trainable_flat = fsdp1.trainable(roots)

    def parameters(self, module: nn.Module) -> Iterator[tuple[str, Source]]:
        """Yield the module's own parameters, in state-dict order, by their names in it."""
        names = [name for name, value in module._parameters.items() if value is not None]
        names += [name for name in self._flat.get(id(module), {}) if name not in names]
        for name in names:
            source = self._flat.get(id(module), {}).get(name)
            if source is None:
                source = self._parameter(bnb.unpacked(module, name))
            if source is not None:
                yield name, self.on_first_rank(source) if source.replicated else source

    def buffers(self, module: nn.Module) -> Iterator[tuple[str, Source]]:
        """Yield the module's own persistent buffers, by their names in it."""
        for name, value in module._buffers.items():
            if value is None or name in module._non_persistent_buffers_set:
                continue
            if dtensor.applies(value):
                yield name, dtensor.source(value)
            else:
                yield name, self.on_first_rank(whole(value))

    def trainable(self, module: nn.Module) -> Iterator[str]:
        """Yield the names of the module's own parameters that require a gradient."""
        flat = self._trainable_flat.get(id(module), set[str]())
        for name, value in module._parameters.items():
            if value is not None and value.requires_grad and not fsdp1.applies(value):
                flat = flat | {name}
        yield from flat

    @property
    def first(self) -> bool:
        """Whether this is the rank that speaks for all."""
        return self._rank == 0

    def extras(self, module: nn.Module, known: set[str]) -> Iterator[tuple[str, Source]]:
        """Yield tensors that a module only adds while saving, as bitsandbytes' quantization state.

        Args:
            module: the module.
            known: names that are parameters or buffers of it.
        """
        for name, value in bnb.quantization_state(module, known):
            yield name, self.on_first_rank(whole(value))

    def on_first_rank(self, source: Source) -> Source:
        """Let rank 0 alone write a tensor that every rank holds complete."""
        runs: tuple[Run, ...] = source.runs if self._rank == 0 else ()
        return replace(source, runs=runs)

    def _parameter(self, value: nn.Parameter | None) -> Source | None:
        if value is None or fsdp1.applies(value):
            return None
        if zero3.applies(value):
            return zero3.source(value)
        if dtensor.applies(value):
            return dtensor.source(value)
        return whole(value)
