"""From which named tensors others are made, while another owner's code computes with them."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class OriginWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows tensors by their storages, through each operation on them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._origins: dict[int, frozenset[str]] = {}
        self._alive: list[torch.Tensor] = []

    def know(self, tensor: torch.Tensor, name: str) -> int:
        """Learn the name of a tensor; returns the key of its storage."""
        key = self.key(tensor)
        self._origins[key] = frozenset({name})
        return key

    def origins(self, tensor: torch.Tensor) -> frozenset[str]:
        """The names of all that a tensor is made of."""
        return self._origins.get(self.key(tensor), frozenset())

    def key(self, tensor: torch.Tensor) -> int:
        """The number of a tensor's storage."""
        # Keeping the tensor alive keeps its storage's number from being used again.
        self._alive.append(tensor)
        return int(tensor.untyped_storage()._cdata)

    def on_change(self, key: int) -> None:
        """An operation wrote into a storage."""

    def on_result(self, key: int, func: Any, args: Any, kwargs: Any, output: torch.Tensor) -> None:
        """An operation gave a tensor, in a storage of its own or of an input."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
        origins = frozenset[str]().union(*(self.origins(tensor) for tensor in inputs))
        for output in tree_flatten(result)[0]:
            if origins and isinstance(output, torch.Tensor):
                key = self.key(output)
                self._origins[key] = self._origins.get(key, frozenset()) | origins
                if func._schema.is_mutable:
                    self.on_change(key)
                else:
                    self.on_result(key, func, args, kwargs or {}, output)
        return result
