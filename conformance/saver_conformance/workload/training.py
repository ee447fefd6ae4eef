"""Trains a case with a real trainer under the case's engine."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import torch
from accelerate.parallelism_config import ParallelismConfig
from peft import PeftConfig, get_peft_model, prepare_model_for_kbit_training
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast, Trainer

from saver_conformance.cases.case import Case, Engine
from saver_conformance.workload import trainers
from saver_conformance.workload.models import sizing
from saver_conformance.workload.version_compat import FSDP_BY_WORDS

STEPS = 2
"""Optimizer steps of a case."""


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


def fsdp_argument() -> bool | str:
    """``TrainingArguments.fsdp`` for layers that are units of their own."""
    return "full_shard auto_wrap" if FSDP_BY_WORDS.is_needed else True


def fsdp_config(case: Case) -> dict[str, Any] | None:
    """``TrainingArguments.fsdp_config`` of the case; None when the engine is not FSDP."""
    if case.mode.engine not in ("fsdp1", "fsdp2"):
        return None
    shared: dict[str, Any] = {
        "version": 1 if case.mode.engine == "fsdp1" else 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "transformer_layer_cls_to_wrap": list(case.family.layers),
        "state_dict_type": "FULL_STATE_DICT",
        "final_state_dict_type": "FULL_STATE_DICT",
        "cpu_ram_efficient_loading": False,
        "activation_checkpointing": case.wrapper == "checkpointing",
    }
    if case.mode.engine == "fsdp1":
        return {**shared, "use_orig_params": True, "sync_module_states": False}
    return {**shared, "reshard_after_forward": True}


def deepspeed_config(case: Case) -> dict[str, Any] | None:
    """DeepSpeed's configuration of the case; None when the engine is not DeepSpeed."""
    if not case.mode.engine.startswith("zero"):
        return None
    stage = int(case.mode.engine.removeprefix("zero"))
    zero: dict[str, Any] = {"stage": stage}
    if stage > 1:
        zero["offload_optimizer"] = {"device": "cpu"}
    if stage == 3:
        # What DeepSpeed and accelerate ask their users to set for a save of whole weights.
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    if stage == 3 and case.persistence_threshold == "zero":
        zero["stage3_param_persistence_threshold"] = 0
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "bf16": {"enabled": case.dtype != "float32"},
        "zero_optimization": zero,
        "optimizer": {"type": "AdamW", "params": {"lr": "auto", "torch_adam": True}},
    }


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
    replicated = case.mode.engine in ("single", "ddp")
    if case.mode.method == "qlora" and replicated:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    # Flat parameters and DeepSpeed's bf16 engine want one dtype: no fp32 adapter on a bf16 base.
    return add_adapters(model, case, upcast=replicated)


def add_adapters(model: Any, case: Case, *, upcast: bool = True) -> Any:
    """The model with all adapters that ``case`` names, the first of them active.

    Args:
        model: the base.
        case: has the adapters' names and shape.
        upcast: whether half-precision adapters are made float32.
    """
    assert case.adapter is not None
    first, *others = case.adapter.names
    model = get_peft_model(model, adapter_config(case), first, autocast_adapter_dtype=upcast)
    for index, name in enumerate(others, start=1):
        model.add_adapter(name, adapter_config(case, index), autocast_adapter_dtype=upcast)
    model.set_adapter(first)
    return model


def make_trainer(
    case: Case, model: Any, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> Trainer:
    """A trainer for :data:`STEPS` steps; accelerate and the engine start inside.

    Its ``model`` is the one that is trained: a trainer may put the adapter on itself.
    """
    fsdp = fsdp_config(case)
    mesh = None
    if case.replicas > 1:
        shards = case.world_size // case.replicas
        mesh = ParallelismConfig(dp_replicate_size=case.replicas, dp_shard_size=shards)
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
        fsdp=fsdp_argument() if fsdp else None,
        fsdp_config=fsdp,
        deepspeed=deepspeed_config(case),
        ddp_find_unused_parameters=True,
        dataloader_pin_memory=False,
        # FSDP has its own way, in fsdp_config.
        gradient_checkpointing=case.wrapper == "checkpointing" and fsdp is None,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        torch_compile=compiled,
        torch_compile_backend="eager" if compiled else None,
        parallelism_config=mesh,
    )
    adapter = adapter_config(case) if case.adapter and trainers.brings_adapter(case) else None
    dataset = RandomRows(case, case.seed)
    return trainers.make(case, model, arguments, dataset, tokenizer, adapter)


def uncompiled(model: Any) -> Any:
    """The model that ``torch.compile`` or accelerate's regional compilation was given."""
    return getattr(model, "_orig_mod", model)


def running_engine(trainer: Trainer) -> Engine:
    """The engine that really trains, read from the wrapped model.

    A framework that quietly falls back to another engine would make every verdict worthless.
    """
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
    from torch.nn.parallel import DistributedDataParallel

    wrapped = uncompiled(trainer.model_wrapped)
    if trainer.is_deepspeed_enabled:
        engine: Engine = f"zero{wrapped.zero_optimization_stage()}"  # type: ignore[assignment]
        return engine
    if isinstance(wrapped, FullyShardedDataParallel):
        return "fsdp1"
    # FSDP2 shards the compiled model; elsewhere the wrapped model is compiled.
    if isinstance(wrapped, FSDPModule) or isinstance(trainer.model_wrapped, FSDPModule):
        return "fsdp2"
    return "ddp" if isinstance(wrapped, DistributedDataParallel) else "single"


def running_replicas(root: Any) -> int:
    """The number of replicas that FSDP2 really shards within; 1 for every other engine."""
    for parameter in root.parameters():
        mesh = getattr(parameter, "device_mesh", None)
        if mesh is not None and mesh.ndim > 1:
            replicas: int = mesh.size(0)
            return replicas
    return 1
