"""One more step of training after a save, and what the weights are then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from saver_conformance.cases.case import Case
from saver_conformance.folder.safetensors import write
from saver_conformance.workload import oracle, trainers
from saver_conformance.workload.training import RandomTokens


def step(case: Case, trainer: Any, names: oracle.Names, vocabulary: int, path: Path) -> None:
    """Train one step and have rank 0 write the bits of all that is trained; collective.

    The batch is made here, so that no state of the trainer's data loader has a part in it.
    """
    root, device = trainer.model_wrapped, trainer.args.device
    dataset = RandomTokens(vocabulary, case.seed + 1, length=2)
    tokens = torch.stack([dataset[0]["input_ids"], dataset[1]["input_ids"]]).to(device)
    trainer.training_step(root, trainers.make_batch(case, trainer, tokens))
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    memory = oracle.snapshot(case.mode.engine, root, names, names.trainable)
    if not dist.is_initialized() or dist.get_rank() == 0:
        write(path, memory)
