"""What an earlier save left in a folder, by the names and marks that saves use.

A folder below is one of an earlier save only if its model card says so: an adapter that somebody
put or copied there is a model of its own.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

CARD = "README.md"
CHECKSUMS = "SHA256SUMS"

_WEIGHTS = re.compile(
    r"(model|pytorch_model|adapter_model)(-\d{5}-of-\d{5})?\.(safetensors|bin)(\.index\.json)?"
    r"|__\d+_\d+\.distcp|\.metadata"
)
_WHOLE = frozenset({"config.json", "generation_config.json"})
_ADAPTER = frozenset({"adapter_config.json"})
_TOKENIZER = frozenset(
    {
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "merges.txt",
        "preprocessor_config.json",
        "processor_config.json",
        "sentencepiece.bpe.model",
        "special_tokens_map.json",
        "spiece.model",
        "tekken.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "video_preprocessor_config.json",
        "vocab.json",
        "vocab.txt",
    }
)


def card_mark(folder: str = "") -> str:
    """The line by which a later save knows a model card as ours.

    Args:
        folder: that of the adapter it describes, relative to the output folder.
    """
    what, kept = (
        (f" as the adapter in {folder}", "this folder") if folder else ("", "your own text")
    )
    return f"<!-- Written by canonical-saver{what}; remove this line to keep {kept}. -->"


def has_mark(output_dir: Path, folder: str = "") -> bool:
    """Whether a folder's model card is ours, and was written for this folder."""
    card = output_dir / folder / CARD
    try:
        return card.is_file() and card_mark(folder) in card.read_text("utf-8", "replace")
    except OSError:
        return False  # what cannot be read is somebody else's


def files(
    output_dir: Path, *, adapter: bool, tokenizer: bool, folders: Collection[str]
) -> list[str]:
    """Name what an earlier save left, whether or not this one replaces it.

    Args:
        output_dir: the output folder.
        adapter: whether this save is one of adapters.
        tokenizer: whether this save brings a tokenizer or processor.
        folders: relative folders of adapters that are saved now, beside the output folder.
    """
    # AutoModel would take an adapter beside config.json for a whole model.
    names = {CHECKSUMS} | (_WHOLE if adapter else _ADAPTER) | (_TOKENIZER if tokenizer else set())
    if has_mark(output_dir):
        names.add(CARD)
    found = _left(output_dir, "", names)
    for place in sorted(output_dir.iterdir()):
        folder = place.name
        if place.is_symlink() or not place.is_dir():
            continue
        if folder in folders:
            found += _left(output_dir, folder, {CHECKSUMS})
        elif has_mark(output_dir, folder):
            found += _left(output_dir, folder, {CARD, *_ADAPTER})
        elif folder == "additional_chat_templates" and tokenizer:
            found += [f"{folder}/{path.name}" for path in sorted(place.glob("*.jinja"))]
    return found


def _left(output_dir: Path, folder: str, names: Collection[str]) -> list[str]:
    """Name the weight files in a folder, and those of some other names."""
    place = output_dir / folder
    found = []
    for path in sorted(place.iterdir()):
        # .metadata alone may be anybody's; beside .distcp files it is DCP's.
        weights = _WEIGHTS.fullmatch(path.name) and (
            path.name != ".metadata" or any(place.glob("*.distcp"))
        )
        if (weights or path.name in names) and not path.is_dir():
            found.append(f"{folder}/{path.name}" if folder else path.name)
    return found
