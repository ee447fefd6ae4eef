"""What an earlier save left in a folder and this one replaces.

Removing takes proof. The weights of an earlier save are those that a loader would take by their
names, and those that their index names. Files of a tokenizer or a processor go only where
this save brings the same kind. A folder below is one of an earlier save only if its model card says
so: an adapter that somebody put or copied there is a model of its own.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from canonical_saver.publishing.staging import Staging
from canonical_saver.weights.saved_tensors import WeightSet

CARD = "README.md"
CHECKSUMS = "SHA256SUMS"
DIGESTS_ENDING = ".digests.json"
"""The ending of a file of digests, behind the stem of the weights."""

_STEMS = {
    False: (("model", ".safetensors"), ("pytorch_model", ".bin")),
    True: (("adapter_model", ".safetensors"), ("adapter_model", ".bin")),
}
"""Stem and ending of the weight files that loaders take: of whole models, and of adapters."""
_WHOLE_CONFIGS = frozenset({"config.json", "generation_config.json"})
_ADAPTER_CONFIG = "adapter_config.json"
_DCP_INDEX = ".metadata"
_DCP = re.compile(r"__\d+_\d+\.distcp|\.metadata")
_TOKENIZER = frozenset(
    {
        "added_tokens.json",
        "merges.txt",
        "sentencepiece.bpe.model",
        "special_tokens_map.json",
        "spiece.model",
        "tekken.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
    }
)
_PROCESSOR = "processor_config.json"
_INSIDE_PROCESSOR = {
    "image_processor": "preprocessor_config.json",
    "feature_extractor": "preprocessor_config.json",
    "video_processor": "video_preprocessor_config.json",
}
"""Parts of a processor's configuration, and the file that such a part has when it is alone."""
_TEMPLATE = "chat_template.jinja"
_OLD_TEMPLATE = "chat_template.json"
_TEMPLATES = "additional_chat_templates"
_SIDECARS = _TOKENIZER | {_PROCESSOR, *_INSIDE_PROCESSOR.values(), _TEMPLATE, _OLD_TEMPLATE}


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
        return False  # what cannot be read is another owner's


@dataclass(frozen=True)
class Arrival:
    """What a save brings to the output folder.

    Attributes:
        staged: the folder where its files are now.
        names: the files, relative to the output folder.
        folders: where its weights go, relative to the output folder; "" is the folder itself.
        adapter: whether they are adapters.
    """

    staged: Path
    names: frozenset[str]
    folders: frozenset[str]
    adapter: bool


def arrival_of(staging: Staging, weight_sets: Sequence[WeightSet]) -> Arrival:
    """What is staged by now of a save of some weights."""
    folders = frozenset(weights.folder for weights in weight_sets)
    adapter = weight_sets[0].adapter is not None
    return Arrival(staging.folder, frozenset(staging.staged()), folders, adapter)


class EarlierSave:
    """What lies in an output folder before a save, as far as the save has to do with it.

    Args:
        staging: the folder in which everything is staged by now.
        weight_sets: what is saved.
    """

    def __init__(self, staging: Staging, weight_sets: Sequence[WeightSet]) -> None:
        self._output_dir = staging.output_dir
        self._arrival = arrival_of(staging, weight_sets)
        self._shared: dict[str, list[str]] = {}

    def stale(self, outdated: Sequence[str]) -> list[str]:
        """Name the files that this save replaces.

        Args:
            outdated: those of which the new ones could not be written: this save brings files of
                their kind, all the same.
        """
        names = self._arrival.names.union(outdated)
        found = files(self._output_dir, replace(self._arrival, names=names))
        self._shared = _replaced_of_others(self._output_dir, self._arrival.names, found)
        return [*found, *outdated]

    def left(self) -> tuple[list[str], list[str]]:
        """Name the files of other models that stay, after the save; and say what loads then."""
        shared = [
            f"{self._output_dir / name} was replaced, and {', '.join(indexes)} names it too: what "
            "that describes is no longer one model; remove it, or save to another folder"
            for name, indexes in sorted(self._shared.items())
        ]
        left = others(self._output_dir, self._arrival)
        return left, [*shared, *self._warnings_of(left)]

    def _warnings_of(self, left: Sequence[str]) -> list[str]:
        if not left:
            return []
        effect = ""
        if self._arrival.adapter and "config.json" in left and "" in self._arrival.folders:
            effect = "; AutoModel takes the model in this folder for the adapter's base"
        named = ", ".join(left)
        return [f"files of another model stay in {self._output_dir}: {named}{effect}"]


def files(output_dir: Path, arrival: Arrival) -> list[str]:
    """Name what an earlier save left, whether or not this one replaces it.

    A whole model takes the place of a whole model, and of the adapter in the same folder, which
    ``transformers`` would put on top of it. Adapters take the place of adapters only. What another
    index names too, such as that of a variant, stays.

    Args:
        output_dir: the output folder.
        arrival: what this save brings.

    Returns:
        Paths relative to the output folder, sorted.
    """
    found = _adapter(output_dir, "", arrival) | _sidecars(output_dir, arrival)
    if arrival.adapter:
        for folder in {*_marked(output_dir), *arrival.folders} - {""}:
            found |= _adapter(output_dir, folder, arrival)
    else:
        found |= weight_files(output_dir, adapter=False)
    found |= {name for name in _digests(arrival) if _is_of_digests(output_dir / name)}
    if _tells_only_of(output_dir / CHECKSUMS, found | arrival.names):
        found.add(CHECKSUMS)
    if found:
        from canonical_saver.publishing.other_indexes import named_by_others

        found -= named_by_others(output_dir, found)
    return sorted(found)


def _replaced_of_others(
    output_dir: Path, coming: Collection[str], going: Collection[str]
) -> dict[str, list[str]]:
    """Name the files that are there and come anew, with the indexes of others that name them."""
    replaced = {name for name in coming if (output_dir / name).is_file()}
    if not replaced:
        return {}
    from canonical_saver.publishing.other_indexes import indexes_of

    return indexes_of(output_dir, replaced, {*coming, *going})


def others(output_dir: Path, arrival: Arrival) -> list[str]:
    """Name the weights and configurations of other models that stay in the output folder.

    Args:
        output_dir: the output folder, after the save.
        arrival: what the save brought.
    """
    found = weight_files(output_dir, adapter=False) | weight_files(output_dir, adapter=True)
    found |= _dcp(output_dir) | ({*_WHOLE_CONFIGS, _ADAPTER_CONFIG} & _names(output_dir))
    for folder in _marked(output_dir):
        found |= {f"{folder}/{name}" for name in weight_files(output_dir / folder, adapter=True)}
    return sorted(found - arrival.names)


def holds_model(output_dir: Path) -> bool:
    """Whether there are weights in an output folder, or of an adapter in a folder of ours below."""
    return bool(
        weight_files(output_dir, adapter=False)
        or weight_files(output_dir, adapter=True)
        or _dcp(output_dir)
        or any(weight_files(output_dir / name, adapter=True) for name in _marked(output_dir))
    )


def weight_files(place: Path, *, adapter: bool) -> set[str]:
    """Name the weight files in a folder that a loader takes, and those that their index names.

    Args:
        place: the folder.
        adapter: whether those of an adapter are meant, or those of a whole model.
    """
    found, present = set[str](), _names(place)
    for stem, ending in _STEMS[adapter]:
        index = f"{stem}{ending}.index.json"
        shard = re.compile(rf"{stem}-\d{{5}}-of-\d{{5}}{re.escape(ending)}")
        found |= {n for n in present if shard.fullmatch(n) or n in (f"{stem}{ending}", index)}
        # A link under a name of its own may have other uses than that by the index.
        named = {name for name in _indexed(place / index) & present if name.endswith(ending)}
        found |= {name for name in named if not (place / name).is_symlink()}
    # An adapter's index has no say about a whole model.
    return found - weight_files(place, adapter=False) if adapter else found


def _adapter(output_dir: Path, folder: str, arrival: Arrival) -> set[str]:
    """Name the files of an earlier adapter in a folder: weights, configuration, our model card."""
    place = output_dir / folder
    names = weight_files(place, adapter=True) | ({_ADAPTER_CONFIG} & _names(place))
    path = f"{folder}/" if folder else ""
    ours = has_mark(output_dir, folder)
    names |= {CARD} if ours else set()
    # Nothing says whose a checkpoint of DCP is, except a card next to it where no whole model is.
    if f"{path}{_DCP_INDEX}" in arrival.names or (ours and "config.json" not in _names(place)):
        names |= _dcp(place)
    return {path + name for name in names}


def _dcp(place: Path) -> set[str]:
    """Name the files of a checkpoint of DCP; ``.metadata`` alone may be anybody's."""
    found = {name for name in _names(place) if _DCP.fullmatch(name)}
    return found if found != {_DCP_INDEX} else set()


def _sidecars(output_dir: Path, arrival: Arrival) -> set[str]:
    """Name the files of tokenizers and processors that are of a kind that this save brings."""
    new, present = arrival.names, _names(output_dir)
    templates = {_TEMPLATE} & present
    if (output_dir / _TEMPLATES).is_dir() and not (output_dir / _TEMPLATES).is_symlink():
        more = _names(output_dir / _TEMPLATES)
        templates |= {f"{_TEMPLATES}/{name}" for name in more if name.endswith(".jinja")}
    brings_template = any(name == _TEMPLATE or name.startswith(f"{_TEMPLATES}/") for name in new)
    found: set[str] = set()
    if new & _TOKENIZER:
        found |= _TOKENIZER & present
    if new & _TOKENIZER or brings_template:
        found |= templates
    # A processor prefers the old form of the template, where it is there.
    if _PROCESSOR in new or brings_template:
        found |= {_OLD_TEMPLATE} & present
    if _PROCESSOR in new:
        parts = _read_object(arrival.staged / _PROCESSOR)
        found |= {name for part, name in _INSIDE_PROCESSOR.items() if part in parts} & present
    return found


def _digests(arrival: Arrival) -> set[str]:
    """Name the files of digests that an earlier save may have left of what this one replaces."""
    stems = ("adapter_model",) if arrival.adapter else ("adapter_model", "model")
    return {f"{stem}{DIGESTS_ENDING}" for stem in stems}


def _is_of_digests(path: Path) -> bool:
    """Whether a file has digests, as a save writes them."""
    version = _read_object(path).get("version")
    if version is None:
        return False
    from canonical_saver.writing.model_digest import VERSION

    return bool(version == VERSION)


def _marked(output_dir: Path) -> Iterator[str]:
    """Find the folders below that our model card says are of an adapter.

    An adapter called ``org/style`` lies in a folder of ``org``, which has nothing else, or is an
    adapter's too. No other folder is looked into: a dataset may lie there.
    """
    pending = [""]
    while pending:
        above = pending.pop()
        for name in sorted(_folders(output_dir / above)):
            folder = f"{above}/{name}" if above else name
            ours = has_mark(output_dir, folder)
            if ours:
                yield folder
            if ours or not _has_files(output_dir / folder):
                pending.append(folder)


def _names(place: Path) -> set[str]:
    """Name the files in a folder, links included; none if there is no such folder."""
    try:
        with os.scandir(place) as entries:
            return {entry.name for entry in entries if not entry.is_dir()}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _has_files(place: Path) -> bool:
    """Whether a folder has files, without a look at more than one of them."""
    try:
        with os.scandir(place) as entries:
            return any(not entry.is_dir(follow_symlinks=False) for entry in entries)
    except OSError:
        return True  # nothing in it can be known as ours


def _folders(place: Path) -> set[str]:
    """Name the folders in a folder, without links and hidden ones."""
    with os.scandir(place) as entries:
        return {
            entry.name
            for entry in entries
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
        }


def _indexed(index: Path) -> set[str]:
    """The files that an index of shards names."""
    named = _read_object(index).get("weight_map")
    values = named.values() if isinstance(named, dict) else ()
    # What is no name of a file in the same folder will not be found there.
    return {name for name in values if isinstance(name, str)}


def _tells_only_of(checksums: Path, names: Collection[str]) -> bool:
    """Whether a file of checksums tells of files of models, and of some that are replaced."""
    try:
        lines = checksums.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return False
    told = {line.partition("  ")[2] for line in lines}
    known = {*names, *_SIDECARS, *_WHOLE_CONFIGS, _ADAPTER_CONFIG, CARD}
    return bool(told & set(names)) and told <= known


def _read_object(path: Path) -> dict[str, Any]:
    """Read an object of JSON; empty if there is none."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
