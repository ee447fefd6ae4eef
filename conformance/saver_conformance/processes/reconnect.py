"""Process groups of forked ranks: connected anew, since a fork takes along none of their threads.

Whoever holds a process group (DDP, a device mesh, DeepSpeed) holds the same object afterwards; only
the connections below it are new.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

LIMIT = timedelta(seconds=120)
"""For the forked ranks to find each other."""


def connect_again(folder: Path) -> None:
    """Connect every group of this process with its members; collective over the forked ranks.

    Args:
        folder: an empty folder in which they meet.
    """
    import torch
    import torch.distributed as dist
    from torch._C._distributed_c10d import FileStore, PrefixStore
    from torch.distributed.distributed_c10d import _world

    store = FileStore(str(folder / "store"), dist.get_world_size())
    # In one order on all ranks, each of which waits for the other members of a group.
    for group, name in sorted(_world.pg_names.items(), key=lambda item: item[1]):
        members = _world.pg_group_ranks[group]
        backend = dist.ProcessGroupGloo(
            PrefixStore(name, store), members[dist.get_rank()], len(members), LIMIT
        )
        # A type that no group has: a known one would be given its old backend again
        # (torch/csrc/distributed/c10d/ProcessGroup.hpp, setBackend).
        group._register_backend(torch.device("cpu"), dist.ProcessGroup.BackendType.CUSTOM, backend)
