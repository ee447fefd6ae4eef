"""An engine that the launcher or the trainer has set up, of which ``cfg`` says nothing."""

from __future__ import annotations

from saver_conformance.cases.setting import Setting, Settings

_OF_ENGINES = frozenset({"fsdp_version", "fsdp_config", "deepspeed"})


def _without_engine(settings: Settings) -> Settings:
    return {key: value for key, value in settings.items() if key not in _OF_ENGINES}


UNNAMED_ENGINE = Setting(
    name="unnamed-engine",
    place=70,
    text="cfg has no `fsdp_config` and no `deepspeed`; the trainer and the model alone tell",
    modes=("full-fsdp1", "full-fsdp2", "full-zero3", "lora-fsdp1", "lora-fsdp2", "lora-zero3"),
    settings=_without_engine,
)
