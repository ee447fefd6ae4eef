"""Trains a case with a real trainer under the case's engine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import peft
import torch
from peft import PeftConfig, prepare_model_for_kbit_training
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast, Trainer

from saver_conformance.cases.case import Case
from saver_conformance.workload import trainers
from saver_conformance.workload.models import sizing
from saver_conformance.workload.running_engine import uncompiled
from saver_conformance.workload.version_compat import FSDP_BY_WORDS

STEPS = 2
"""Optimizer steps of a case."""
NOTHING: Mapping[str, Any] = MappingProxyType({})


class RandomRows(Dataset[dict[str, torch.Tensor]]):
    """Rows made of eight random tokens each, the same on every rank."""

    def __init__(self, case: Case, seed: int, length: int = 16) -> None:
        self._family, self._sizing = case.family, sizing(case)
        generator = torch.Generator().manual_seed(seed)
        self._tokens = torch.randint(4, self._sizing.vocabulary, (length, 8), generator=generator)

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self._family.batch(self._tokens[index], self._sizing)


def fsdp_argument(config: Mapping[str, Any]) -> bool | str:
    """``TrainingArguments.fsdp`` for layers that are units of their own.

    Args:
        config: ``TrainingArguments.fsdp_config``.
    """
    if not FSDP_BY_WORDS.is_needed:
        return True
    return "full_shard auto_wrap offload" if config.get("cpu_offload") else "full_shard auto_wrap"


def adapter_config(case: Case, index: int = 0) -> PeftConfig:
    """The configuration of the adapter with this number; each has another rank."""
    assert case.adapter is not None
    kind = case.adapter.method
    settings = dict(kind.settings(replace(case.adapter, r=case.adapter.r + index), case.family))
    if index:
        settings |= kind.untrained
    made: PeftConfig = getattr(peft, kind.config)(**settings, task_type=case.family.task)
    return made


def adapt(model: Any, case: Case) -> Any:
    """The model with the case's adapter on it, or the model itself where none is put on it here."""
    if case.adapter is None or trainers.brings_adapter(case):
        return model
    keeps_dtypes = case.mode.definition.keeps_dtypes
    if case.base_bits and keeps_dtypes:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    # Flat parameters and DeepSpeed's bf16 engine want one dtype: no fp32 adapter on a bf16 base.
    return add_adapters(model, case, upcast=keeps_dtypes)


def add_adapters(model: Any, case: Case, *, upcast: bool = True) -> Any:
    """The model with all adapters that ``case`` names, the first of them active.

    Args:
        model: the base.
        case: has the adapters' names and shape.
        upcast: whether half-precision adapters are made float32.
    """
    assert case.adapter is not None
    first, *others = case.adapter.names
    model = case.adapter.method.put_on(model, adapter_config(case), first, upcast)
    for index, name in enumerate(others, start=1):
        model.add_adapter(name, adapter_config(case, index), autocast_adapter_dtype=upcast)
    model.set_adapter(first)
    return model


def make_trainer(
    case: Case,
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    *,
    more_arguments: Mapping[str, Any] = NOTHING,
    parts: Mapping[str, Any] = NOTHING,
) -> Trainer:
    """A trainer for :data:`STEPS` steps; accelerate and the engine start inside.

    Its ``model`` is the one that is trained: a trainer may put the adapter on itself.

    Args:
        case: what is trained.
        model: the model, with its adapter.
        tokenizer: the model's tokenizer.
        folder: the trainer's folder.
        more_arguments: of ``TrainingArguments``, in place of the usual ones.
        parts: of ``transformers.Trainer``, in addition to the usual ones.
    """
    own = case.arguments
    compiled = case.wrapper in ("compile", "regional")
    if case.wrapper == "regional":  # TrainingArguments has no word for it
        os.environ["ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION"] = "true"
    arguments: dict[str, Any] = dict(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        bf16=case.dtype != "float32",
        use_cpu=not torch.cuda.is_available(),
        seed=case.seed,
        report_to=[],
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        ddp_find_unused_parameters=True,
        dataloader_pin_memory=False,
        # FSDP has its own way, in fsdp_config.
        gradient_checkpointing=case.wrapper == "checkpointing" and "fsdp_config" not in own,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        torch_compile=compiled,
        torch_compile_backend="eager" if compiled else None,
    )
    if case.probe == "memory":  # what AdamW keeps would take most of the case's time
        arguments |= {"optim": "sgd", "max_steps": 1}
    arguments |= own
    if own.get("fsdp") is True:
        arguments["fsdp"] = fsdp_argument(own.get("fsdp_config", {}))
    arguments |= more_arguments
    adapter = adapter_config(case) if case.adapter and trainers.brings_adapter(case) else None
    dataset = RandomRows(case, case.seed)
    return trainers.make(case, model, arguments, dataset, tokenizer, adapter, parts)


def is_trained_by_its_engine(case: Case, trainer: Trainer) -> bool:
    """Whether the engine of ``case`` really trained; see ``Engine.trains``."""
    return case.mode.definition.trains(trainer, uncompiled(trainer.model_wrapped))


def running_replicas(root: Any) -> int:
    """The number of replicas that DTensors are really sharded within; 1 without DTensors."""
    for parameter in root.parameters():
        for dimension, placement in enumerate(getattr(parameter, "placements", ())):
            if placement.is_replicate():
                replicas: int = parameter.device_mesh.size(dimension)
                return replicas
    return 1
