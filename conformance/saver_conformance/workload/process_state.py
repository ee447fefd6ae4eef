"""What a case needs of its process, and gives back to it."""

from __future__ import annotations

import ctypes
import gc
import os
import random
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import transformers

from saver_conformance.cases.case import Case
from saver_conformance.workload import cpu_patches, version_compat


@cache
def start_process() -> None:
    """Do once a process what every case needs."""
    cpu_patches.enable()
    version_compat.adjust()
    transformers.logging.set_verbosity_error()
    # Compiled models keep their wrappers and names, and run without the seconds of compiling.
    torch.compiler.set_stance("force_eager")


def forget_garbage() -> None:
    """Free the case before, and keep the garbage collector from what outlives it.

    Trainers and engines collect garbage several times a case. That would take a quarter of a second
    each with all that is imported, and ever longer with what DeepSpeed never gives back of a ZeRO-3
    engine, about 5,000 objects.
    """
    gc.collect()
    gc.freeze()


def return_freed_memory() -> None:
    """Give to the system what training has freed: a save that takes it again would not show."""
    gc.collect()
    with suppress(AttributeError):  # glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def seed_all(seed: int) -> None:
    """Seed every generator that training draws from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def barrier() -> None:
    """Wait for the other ranks, if there are any."""
    if dist.is_initialized():
        dist.barrier()


def rank() -> int:
    """The number of this rank."""
    return dist.get_rank() if dist.is_initialized() else 0


def give_back(environment: Mapping[str, str], case: Case, trainer: Any = None) -> None:
    """Give back what a case leaves in the process: engine, shared state, environment."""
    from accelerate.state import AcceleratorState, GradientState
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    engine = getattr(trainer, "deepspeed", None)
    if engine is not None:
        engine.destroy()
    case.mode.definition.forget()
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    unset_hf_deepspeed_config()
    os.environ.clear()
    os.environ.update(environment)
