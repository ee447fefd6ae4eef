"""Weight files that belong to another model of the folder, whose index names them.

A variant, as ``model.fp16.safetensors.index.json`` or ``model.safetensors.index.fp16.json``, may
share shards with the model that is replaced.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

_ENDINGS = (".safetensors", ".bin", ".distcp", ".pt", ".pth", ".gguf")


def named_by_others(output_dir: Path, going: Collection[str]) -> set[str]:
    """Name the weight files that would go, and that an index which stays names.

    Args:
        output_dir: the output folder.
        going: what would go, relative to the output folder.
    """
    return set(indexes_of(output_dir, going, going))


def indexes_of(
    output_dir: Path, names: Collection[str], going: Collection[str]
) -> dict[str, list[str]]:
    """Find the indexes that name weight files, by the files' names.

    Args:
        output_dir: the output folder.
        names: the files, relative to it.
        going: indexes that do not count.

    Returns:
        For each file that an index names, the indexes, relative to the output folder, sorted.
    """
    weights = {name for name in names if name.endswith(_ENDINGS)}
    found: dict[str, list[str]] = {}
    for place in sorted({Path(name).parent for name in weights}):
        for index in sorted((output_dir / place).glob("*index*.json")):
            own = (place / index.name).as_posix()
            if own not in going:
                for name in weights & {(place / name).as_posix() for name in _files(index)}:
                    found.setdefault(name, []).append(own)
    return found


def _files(index: Path) -> set[str]:
    """The files that an index names, of whatever form; what is no index names none."""
    try:
        content = json.loads(index.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return set()
    mapping = content.get("weight_map") if isinstance(content, dict) else None
    values = mapping.values() if isinstance(mapping, dict) else ()
    return {name for name in values if isinstance(name, str)}
