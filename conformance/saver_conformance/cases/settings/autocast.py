"""The Trainer's usual mixed precision: float32 weights, and computation in bfloat16."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saver_conformance.cases.setting import Arguments, Setting

if TYPE_CHECKING:
    from saver_conformance.cases.case import Case


def _change(arguments: Arguments, case: Case) -> dict[str, Any]:
    del case
    return {**arguments, "bf16": True}


AUTOCAST = Setting(
    name="autocast",
    place=30,
    text="computation is in bfloat16 (`bf16=True`) whatever the weights' dtype",
    # Under FSDP2 its mixed precision meets packed 4-bit weights, which then have a shape that
    # bitsandbytes refuses (backends/cpu/ops.py).
    modes=("*-single", "*-ddp", "*-fsdp1", "full-fsdp2", "lora-fsdp2", "full-hsdp", "lora-hsdp"),
    change=_change,
)
