"""``stage3_gather_16bit_weights_on_model_save`` of DeepSpeed, which is off unless asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saver_conformance.cases.setting import Arguments, Setting

if TYPE_CHECKING:
    from saver_conformance.cases.case import Case


def _change(arguments: Arguments, case: Case) -> dict[str, Any]:
    del case
    config = arguments["deepspeed"]
    off = {"stage3_gather_16bit_weights_on_model_save": False}
    zero = {**config["zero_optimization"], **off}
    return {**arguments, "deepspeed": {**config, "zero_optimization": zero}}


NO_GATHER = Setting(
    name="no-gather",
    place=20,
    text="DeepSpeed's `stage3_gather_16bit_weights_on_model_save` is off, as it is by default",
    modes=("*-zero3", "*-zero3-offload", "*-autotp"),
    change=_change,
)
