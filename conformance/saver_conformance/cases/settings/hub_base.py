"""A base model that is known by its name on the Hub, which cannot be reached."""

from __future__ import annotations

from saver_conformance.cases.setting import Setting

HUB_BASE = Setting(
    name="hub-base",
    place=60,
    text="the base model is called by a name on the Hub, which nothing can be loaded from",
    modes=("full-single", "lora-single", "lora-fsdp2", "lora-zero3", "qlora-ddp"),
    base_name="saver-conformance/tiny",
)
