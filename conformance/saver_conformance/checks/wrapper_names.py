"""Tensor names and the parts that training wrappers put into them."""

from __future__ import annotations

# DDP, DeepSpeed and FSDP1; torch FSDP1; activation checkpointing; torch.compile; FSDP1's old name.
WRAPPER_PARTS = frozenset(
    {
        "module",
        "_fsdp_wrapped_module",
        "_checkpoint_wrapped_module",
        "_orig_mod",
        "_fpw_module",
        "_forward_module",
    }
)


def without_wrappers(name: str) -> str:
    """``name`` without the parts that wrappers put there."""
    return ".".join(part for part in name.split(".") if part not in WRAPPER_PARTS)
