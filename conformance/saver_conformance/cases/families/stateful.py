"""Models with state that no optimizer trains, in ``workload/stateful_model.py``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from saver_conformance.cases.families.llama import LLAMA
from saver_conformance.cases.families.llama import settings as llama_settings
from saver_conformance.cases.family import Sizing
from saver_conformance.cases.limit import Limit


def settings(size: Sizing) -> dict[str, Any]:
    """A Llama with BatchNorm before its head."""
    return {**llama_settings(size), "counts_calls": False}


def counting_settings(size: Sizing) -> dict[str, Any]:
    """A Llama that counts calls before its head."""
    return {**llama_settings(size), "counts_calls": True}


BATCH_NORM = replace(
    LLAMA,
    name="batch-norm",
    place=22,
    text="it keeps statistics of batches in buffers, which differ among ranks, and counts batches",
    model_type="stateful",
    class_name="StatefulForCausalLM",
    settings=settings,
    module="saver_conformance.workload.stateful_model",
    pairs=False,
    limits=(
        Limit(
            "DeepSpeed casts the weight of BatchNorm and not its statistics, which torch refuses "
            "(torch, functional.py, batch_norm)",
            modes="*-zero*",
            when={"dtype": ("mixed",)},
        ),
        Limit(
            "FSDP2 casts BatchNorm's input to the dtype of its matrices, and not its statistics "
            "(expected scalar type BFloat16 but found Float)",
            modes="*-fsdp2*,*-hsdp",
            when={"dtype": ("mixed",)},
        ),
        Limit(
            "the norms beside 4-bit weights are float32, and the statistics of BatchNorm are not "
            "(expected scalar type Float but found BFloat16)",
            modes="qlora-single,qlora-ddp,qlora-fsdp1*",
            when={"dtype": ("bfloat16",)},
        ),
        Limit(
            "DoRA of 4-bit weights gives BatchNorm another dtype than its statistics have "
            "(expected scalar type Float but found BFloat16)",
            modes="qlora-*",
            when={"dtype": ("bfloat16",), "dora": (True,)},
        ),
    ),
)
EXTRA_STATE = replace(
    BATCH_NORM,
    name="extra-state",
    place=23,
    text="a module adds extra state to the state dict, which is no parameter and no buffer",
    settings=counting_settings,
)
