"""The ``cfg`` that savers are passed: what axolotl would pass.

``Config`` is a mapping with attribute access in which a missing key is None, nested likewise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saver_conformance.cases.case import Case

CFG_KEYS: dict[str, str] = {
    "base_model": "folder or name of the model that training started from",
    "output_dir": "folder that becomes the saved model",
    "adapter": "None, 'lora', or 'qlora' where the base is quantized to 4 bits",
    "load_in_4bit": "whether the base is quantized to 4 bits",
    "load_in_8bit": "whether the base is quantized to 8 bits",
    "lora_r": "rank of the adapter",
    "lora_alpha": "scale of the adapter",
    "lora_target_modules": "names of the adapted layers",
    "lora_modules_to_save": "names of the modules trained whole",
    "peft_use_dora": "whether magnitudes are trained",
    "fsdp_version": "1 or 2; None without FSDP",
    "fsdp_config": "mapping with state_dict_type, final_state_dict_type, version; None without",
    "deepspeed": "DeepSpeed's configuration as a mapping; None without",
    "local_rank": "rank on this machine; 0 without a launcher",
    "save_safetensors": "True: weights are written as safetensors",
    "max_shard_size": "limit of a weight file in bytes; None: the library's default",
    "bf16": "whether training computes in bfloat16",
    "seed": "seed of training",
    "rl": "'dpo' where the saver gets the base model of preference tuning; else None",
    "relora": "whether ReLoRA trained, which ends with the adapter merged into the base",
    "merge_lora": "whether the adapter is to be merged into the base",
    "qat": "None: no quantization-aware training",
}
"""Every key that the suite may set, with its meaning."""


class Config(dict[str, Any]):
    """A mapping with attribute access; what is not there is None."""

    def __missing__(self, key: str) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def _nested(value: Any) -> Any:
    if isinstance(value, dict):
        return Config({key: _nested(item) for key, item in value.items()})
    return value


def make_config(
    case: Case,
    base: Path,
    output_dir: Path,
    local_rank: int,
) -> Config:
    """The ``cfg`` of ``case``; keys with the value None are left out."""
    adapter = case.adapter
    arguments = case.arguments
    fsdp_config = arguments.get("fsdp_config")
    values: dict[str, Any] = {
        "base_model": case.training_setting.base_name or str(base),
        "output_dir": str(output_dir),
        "adapter": ("qlora" if case.base_bits == 4 else "lora") if adapter else None,
        "load_in_4bit": True if case.base_bits == 4 else None,
        "load_in_8bit": True if case.base_bits == 8 else None,
        "lora_r": adapter.r if adapter else None,
        "lora_alpha": adapter.alpha if adapter else None,
        "lora_target_modules": list(adapter.targets) if adapter else None,
        "lora_modules_to_save": list(adapter.modules_to_save) if adapter else None,
        "peft_use_dora": adapter.dora if adapter else None,
        "fsdp_version": fsdp_config["version"] if fsdp_config else None,
        "fsdp_config": fsdp_config,
        "deepspeed": arguments.get("deepspeed"),
        "local_rank": local_rank,
        "save_safetensors": True,
        "max_shard_size": case.max_shard_size,
        "bf16": arguments.get("bf16", case.dtype != "float32"),
        "seed": case.seed,
        "rl": "dpo" if case.model_argument == "base" else None,
        "relora": True if case.result == "relora" else None,
        "merge_lora": True if case.result == "merged" else None,
    }
    given = {key: item for key, item in values.items() if item is not None}
    return Config({k: _nested(v) for k, v in case.training_setting.settings(given).items()})
