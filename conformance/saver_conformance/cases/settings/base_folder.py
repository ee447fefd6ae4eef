"""The output folder is the folder of the base model."""

from __future__ import annotations

from saver_conformance.cases.setting import Setting

SAVED_OVER = Setting(
    name="output-is-base",
    place=61,
    text="`output_dir` in cfg is the folder of the base model; a saver may refuse it",
    modes=("full-single", "full-zero3", "lora-single", "lora-fsdp2"),
    content="base",
)
