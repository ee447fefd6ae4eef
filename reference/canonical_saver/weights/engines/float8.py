"""Float8 training by torchao: what it puts around a weight so that FSDP gathers it in float8.

The weight inside is in its own precision. torchao itself is never imported.
"""

from __future__ import annotations

from typing import Any

import torch


def unwrapped(tensor: Any) -> torch.Tensor:
    """The weight itself."""
    if type(tensor).__module__ == "torchao.float8.fsdp_utils":
        tensor = tensor._tensor
    return tensor  # type: ignore[no-any-return]
