"""Tiny adapters of every kind that PEFT knows, every trained tensor with values of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from tests.helpers import models

TARGETS: dict[str, Any] = {"target_modules": ["q_proj"]}
PROMPT: dict[str, Any] = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 3}
ADALORA = TARGETS | {"init_r": 4, "target_r": 2, "total_step": 10, "tinit": 1, "tfinal": 1}
VBLORA = TARGETS | {"num_vectors": 8, "vector_length": 4, "topk": 2, "r": 2}
OPTIONS: dict[str, dict[str, Any]] = {
    "ADALORA": ADALORA,
    "ADAMSS": TARGETS,
    "ADAPTION_PROMPT": {"task_type": "CAUSAL_LM", "adapter_len": 4, "adapter_layers": 1},
    "BEFT": {"target_modules": ["v_proj"]},
    "BOFT": TARGETS | {"boft_block_size": 4},
    "C3A": TARGETS | {"block_size": 4},
    "CARTRIDGE": PROMPT,
    "CPT": {
        "task_type": "CAUSAL_LM",
        "cpt_token_ids": [1, 2, 3],
        "cpt_mask": [1, 1, 1],
        "cpt_tokens_type_mask": [1, 2, 3],
    },
    "FOURIERFT": TARGETS | {"n_frequency": 10},
    "IA3": {"target_modules": ["k_proj"], "feedforward_modules": []},
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "MULTITASK_PROMPT_TUNING": PROMPT | {"num_tasks": 2},
    "OFT": TARGETS | {"oft_block_size": 4, "r": 0},
    "POLY": TARGETS | {"r": 2, "n_tasks": 2, "n_skills": 2, "n_splits": 1},
    "PREFIX_TUNING": PROMPT,
    "PROMPT_TUNING": PROMPT,
    "P_TUNING": PROMPT | {"encoder_hidden_size": 8},
    "ROAD": TARGETS | {"group_size": 4},
    "SHADOW": {"task_type": "CAUSAL_LM"},
    "SHIRA": TARGETS | {"r": 2},
    "TRAINABLE_TOKENS": {"token_indices": [1, 5], "target_modules": ["embed_tokens"]},
    "MISS": TARGETS | {"r": 2},
    "VBLORA": VBLORA,
    "WAVEFT": TARGETS | {"n_frequency": 10},
}
"""What each kind needs to be tiny; the others take ``TARGETS``."""

NEEDS_MORE = frozenset({"XLORA", "ADAMSS"})
"""Kinds that need other adapters on disk, or scikit-learn."""

PATTERN = {f"model.layers.{n}.self_attn.q_proj.lora_E": [True, False, True, False] for n in (0, 1)}
EMPTY = PATTERN | {"model.layers.0.self_attn.q_proj.lora_E": [False] * 4}


def kinds() -> list[str]:
    """The names of all kinds of adapters that this version of PEFT has."""
    return [str(kind).rpartition(".")[2] for kind in PEFT_TYPE_TO_TUNER_MAPPING]


def adapted(kind: str, **options: Any) -> Any:
    """A model with an adapter of a kind, the same at each call."""
    torch.manual_seed(0)
    by_name = {str(k).rpartition(".")[2]: v for k, v in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    config = by_name[kind](**OPTIONS.get(kind, TARGETS) | options)
    return filled(get_peft_model(models.llama(biases=kind == "BEFT"), config))


def filled(model: Any) -> Any:
    """Give every trained tensor values of its own, the same at each call."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def allocated(pattern: dict[str, list[bool]]) -> Any:
    """AdaLoRA after it has given out its budget of ranks."""
    model = adapted("ADALORA")
    model.peft_config["default"].rank_pattern = dict(pattern)
    return model


def experts() -> Any:
    """LoRA on the fused parameters of experts."""
    targets = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    torch.manual_seed(0)
    return filled(get_peft_model(models.mixtral(), LoraConfig(r=2, target_parameters=targets)))


def mixture(folder: Path, **options: Any) -> Any:
    """X-LoRA over two adapters.

    Args:
        folder: where the adapters are put, or lie already.
        **options: more of X-LoRA's configuration.
    """
    from peft import XLoraConfig

    for number in range(2):
        if not (folder / str(number)).exists():
            adapted("LORA", r=2).save_pretrained(folder / str(number))
    base = models.llama()
    base.config.use_cache = False
    torch.manual_seed(0)
    adapters = {str(number): str(folder / str(number)) for number in range(2)}
    config = XLoraConfig(hidden_size=32, xlora_depth=1, adapters=adapters, **options)
    return filled(get_peft_model(base, config))


VARIANTS: dict[str, Callable[[], Any]] = {
    "adalora_rank_pattern": lambda: allocated(PATTERN),
    "adalora_rank_zero": lambda: allocated(EMPTY),
    "lora_dora_biases": lambda: adapted("LORA", use_dora=True, bias="lora_only"),
    "lora_experts": experts,
    "lora_layers": lambda: adapted("LORA", layers_to_transform=[1], r=2),
    "lora_olora": lambda: adapted("LORA", init_lora_weights="olora", r=2),
    "lora_patterns": lambda: adapted("LORA", rank_pattern={"0.self_attn.q_proj": 3}, r=2),
    "lora_pissa": lambda: adapted("LORA", init_lora_weights="pissa", r=2),
    "lora_tokens": lambda: adapted("LORA", trainable_token_indices=[1, 5]),
    "prefix_projection": lambda: adapted(
        "PREFIX_TUNING", prefix_projection=True, encoder_hidden_size=8
    ),
    "randlora_without_projection": lambda: adapted("RANDLORA", save_projection=False),
    "vblora_topk": lambda: adapted("VBLORA", save_only_topk_weights=True),
    "vera_without_projection": lambda: adapted("VERA", save_projection=False),
}
"""Ways to use a kind that change what is saved."""
