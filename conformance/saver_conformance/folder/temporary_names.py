"""Names of files and folders that savers and engines make for a while, and forget to remove."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

# Staging and lock files, and the files that FSDP, DeepSpeed and torch.distributed.checkpoint write
# for each rank or shard.
LEFTOVERS = (
    ".*",
    "*.tmp",
    "*.temp",
    "*.part",
    "*.partial",
    "*.lock",
    "*.distcp",
    "tmp*",
    "*rank[_-][0-9]*",
    "*rank[0-9]*",
    "pytorch_model_fsdp*",
    "global_step*",
    "zero_to_fp32.py",
    "zero_pp_*",
    "*_optim_states.pt",
    "*_model_states.pt",
)
"""Patterns of such names inside of a saved folder."""
_KEPT = (".*", "*.lock")
"""Those that mean nothing outside of one: caches are hidden, and locks stay where they are."""


def is_leftover(name: str) -> bool:
    """Whether a name in a saved folder is that of something temporary."""
    return any(fnmatchcase(name, pattern) for pattern in LEFTOVERS)


def looks_temporary(name: str, folder: str) -> bool:
    """Whether a name next to a saved folder called ``folder`` is that of something temporary.

    Examples:
        >>> [looks_temporary(name, "out") for name in ("out.tmp", ".out-3f2a", "out.log")]
        [True, True, False]
    """
    if name.endswith((".lock", ".log", ".txt", ".json", ".jsonl", ".csv", ".md")):
        return False
    if re.fullmatch(rf"\.?{re.escape(folder)}[^a-zA-Z].*", name):
        return True
    return any(fnmatchcase(name, pattern) for pattern in LEFTOVERS if pattern not in _KEPT)
