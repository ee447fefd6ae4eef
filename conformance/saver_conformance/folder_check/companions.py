"""META: configuration and tokenizer, where there are any."""

from __future__ import annotations

from collections.abc import Iterator

from saver_conformance.checks.evidence import BlockedError
from saver_conformance.folder.layout import (
    CONFIG,
    GENERATION_CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
    UnreadableJsonError,
    read_json_object,
)
from saver_conformance.folder_check import formats
from saver_conformance.folder_check.folder import Folder
from saver_conformance.folder_check.registry import Remark, folder_check
from saver_conformance.observation.finding import Defect
from saver_conformance.safe_text import quoted

_WRAPPERS = (
    "FSDP",
    "FullySharded",
    "DistributedDataParallel",
    "DeepSpeedEngine",
    "OptimizedModule",
)


@folder_check("META-001")
def config_is_readable(folder: Folder) -> Iterator[Defect | Remark]:
    """``config.json`` is an object; a plain module has none, a model that generates does."""
    if CONFIG in folder.listing:
        try:
            _ = folder.config
        except BlockedError as reason:
            yield folder.defect("a JSON object", str(reason), file=CONFIG)
        return
    has_weights = formats.has_whole_model(folder.listing) or formats.has_safetensors(folder.listing)
    if not has_weights and folder.folders:
        return
    if GENERATION_CONFIG in folder.listing or not has_weights:
        yield folder.defect("a JSON object", f"there is no {CONFIG}", file=CONFIG)
    else:
        text = f"there is no {CONFIG}; from_pretrained needs one, the loader of a plain module none"
        yield Remark(text, file=folder.path_of(CONFIG))


@folder_check("META-002")
def architecture_is_told(folder: Folder) -> Iterator[Defect | Remark]:
    """A wrapper's prefix in ``architectures`` is told; ``transformers`` goes by ``model_type``."""
    named = folder.settings.get("architectures")
    for name in named if isinstance(named, list) else []:
        if isinstance(name, str) and name.startswith(_WRAPPERS):
            text = (
                f"architectures names {quoted(name)}, with the name of a wrapper before the class"
            )
            yield Remark(text, file=folder.path_of(CONFIG))


@folder_check("META-006")
def generation_config_is_readable(folder: Folder) -> Iterator[Defect | Remark]:
    """``generation_config.json``, where there is one, is an object.

    ``from_pretrained`` makes one of defaults without a word when it cannot read the file.
    """
    yield from _readable(folder, GENERATION_CONFIG)


@folder_check("META-007")
def tokenizer_is_readable(folder: Folder) -> Iterator[Defect | Remark]:
    """``tokenizer.json`` and ``tokenizer_config.json``, where there are any, are objects.

    Which files a tokenizer needs depends on its class, and a model need not have one.
    """
    yield from _readable(folder, TOKENIZER_CONFIG)
    yield from _readable(folder, TOKENIZER)


@folder_check("META-009")
def no_local_path(folder: Folder) -> Iterator[Defect | Remark]:
    """``_name_or_path`` is left out."""
    if "_name_or_path" in folder.settings:
        found = f"_name_or_path is {quoted(folder.settings['_name_or_path'])}"
        yield folder.defect("no _name_or_path", found, file=CONFIG)


def _readable(folder: Folder, name: str) -> Iterator[Defect]:
    if name not in folder.listing:
        return
    try:
        read_json_object(folder.folder / name)
    except UnreadableJsonError as error:
        yield folder.defect("a JSON object", str(error), file=name)
