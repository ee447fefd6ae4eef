"""A base that bitsandbytes has quantized to 8 bits, below a LoRA that is trained.

The Trainer refuses to train a quantized model without an adapter ("purely quantized models",
transformers/trainer_utils.py), so no case saves a quantized model whole.
"""

from __future__ import annotations

from saver_conformance.cases.setting import Setting

EIGHT_BITS = Setting(
    name="8-bit-base",
    place=40,
    text="the base is quantized to 8 bits (`adapter: lora` and `load_in_8bit` in cfg), not to 4",
    modes=("qlora-single", "qlora-ddp", "qlora-zero1", "qlora-zero2"),
    base_bits=8,
)
