"""One more step of training after a save, and what the weights are then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from saver_conformance.cases.case import Case
from saver_conformance.folder.safetensors import write
from saver_conformance.workload import oracle, trainers
from saver_conformance.workload.training import RandomRows


def step(case: Case, trainer: Any, names: oracle.Names, path: Path) -> None:
    """Train one step and have rank 0 write the bits of all that is trained; collective.

    The batch is made here, so that no state of the trainer's data loader has a part in it.
    """
    root, device = trainer.model_wrapped, trainer.args.device
    dataset = RandomRows(case, case.seed + 1, length=2)
    rows = {key: torch.stack([dataset[0][key], dataset[1][key]]).to(device) for key in dataset[0]}
    trainer.training_step(root, trainers.make_batch(case, trainer, rows))
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    memory = oracle.snapshot(case.mode.engine, root, names, names.trainable)
    if not dist.is_initialized() or dist.get_rank() == 0:
        write(path, memory)
