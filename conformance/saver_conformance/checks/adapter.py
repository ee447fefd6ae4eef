"""ADAPTER: what an adapter's folder holds, and how faithful its configuration is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saver_conformance.checks.evidence import BlockedError, Evidence
from saver_conformance.checks.registry import check
from saver_conformance.checks.wrapper_names import without_wrappers
from saver_conformance.folder.layout import ADAPTER_CONFIG, CARD
from saver_conformance.observation.finding import Defect
from saver_conformance.safe_text import quoted

# Fields of adapter_config.json with a clause of their own.
_OWN_CLAUSE = frozenset(
    {
        "base_model_name_or_path",
        "inference_mode",
        "lora_alpha",
        "modules_to_save",
        "peft_type",
        "r",
        "target_modules",
    }
)


@check("ADAPTER-001")
def no_frozen_base(e: Evidence) -> Iterator[Defect]:
    """No tensor of the base is in the file."""
    for name, file in e.file_of.items():
        if is_base(e, name):
            yield e.defect(
                "adapter tensors only",
                "a tensor of the frozen base",
                file=file,
                tensor=name,
            )


@check("ADAPTER-002")
def config_is_readable(e: Evidence) -> Iterator[Defect]:
    """``adapter_config.json`` is an object with the right ``peft_type``."""
    try:
        config = e.adapter_config
    except BlockedError as reason:
        yield e.defect("a JSON object", str(reason), file=ADAPTER_CONFIG)
        return
    found, wanted = config.get("peft_type"), e.expected.adapter.get("peft_type")
    if found != wanted:
        yield e.defect(f"peft_type is {wanted!r}", quoted(found), file=ADAPTER_CONFIG)


@check("ADAPTER-003")
def rank_and_scale(e: Evidence) -> Iterator[Defect]:
    """``r`` and ``lora_alpha`` are those of the training."""
    yield from _fields(e, "r", "lora_alpha")


@check("ADAPTER-004")
def targets(e: Evidence) -> Iterator[Defect]:
    """``target_modules`` has the same names, in any order."""
    yield from _fields(e, "target_modules")


@check("ADAPTER-005")
def modules_saved_whole(e: Evidence) -> Iterator[Defect]:
    """``modules_to_save`` has the same names, in any order."""
    yield from _fields(e, "modules_to_save")


@check("ADAPTER-006")
def base_model(e: Evidence) -> Iterator[Defect]:
    """``base_model_name_or_path`` is the base of the training."""
    yield from _fields(e, "base_model_name_or_path")


@check("ADAPTER-007")
def other_settings(e: Evidence) -> Iterator[Defect]:
    """All other fields that the oracle knows are those of the training."""
    yield from _fields(e, *(key for key in e.expected.adapter if key not in _OWN_CLAUSE))


@check("ADAPTER-008", structural=True)
def inference_mode(e: Evidence) -> Iterator[Defect]:
    """The adapter is saved for inference."""
    if e.adapter_config.get("inference_mode") is not True:
        yield e.defect(
            "inference_mode is true",
            quoted(e.adapter_config.get("inference_mode")),
            file=ADAPTER_CONFIG,
        )


@check("ADAPTER-009")
def model_card(e: Evidence) -> Iterator[Defect]:
    """The card tells no path of the base."""
    base = str(e.expected.adapter.get("base_model_name_or_path") or "")
    path = e.folder / CARD
    if CARD not in e.written or not path.is_file() or not Path(base).is_absolute():
        return
    card = path.read_text(encoding="utf-8", errors="replace")
    if base in card:
        line = next(line for line in card.splitlines() if base in line)
        yield e.defect("no path of the base model", quoted(line), file=CARD)


def is_base(e: Evidence, name: str) -> bool:
    """Whether a saved tensor's name is that of a tensor of the frozen base, wrapped or not."""
    for known in (name, without_wrappers(name)):
        if known in e.expected.tensors or known in e.expected.optional:
            return False
    plain = _model_name(name)
    # A quantized base has tensors below its weights, such as ``weight.absmax``.
    return any(plain == base or plain.startswith(f"{base}.") for base in _base_names(e))


def _base_names(e: Evidence) -> frozenset[str]:
    return frozenset(_model_name(name) for name in e.expected.base)


def _model_name(name: str) -> str:
    """The name that a tensor of the base has in the base model itself."""
    return without_wrappers(name).removeprefix("base_model.model.").replace(".base_layer.", ".")


def _fields(e: Evidence, *keys: str) -> Iterator[Defect]:
    for key in keys:
        if key not in e.expected.adapter:
            continue
        wanted, found = e.expected.adapter[key], e.adapter_config.get(key)
        if _comparable(found) != _comparable(wanted):
            yield e.defect(f"{key} is {wanted!r}", quoted(found), file=ADAPTER_CONFIG)


def _comparable(value: Any) -> Any:
    """Lists of names are sets to PEFT, and an empty one is as good as none."""
    if isinstance(value, list | tuple | set | frozenset):
        names = sorted(str(item) for item in value)
        return names or None
    return value
