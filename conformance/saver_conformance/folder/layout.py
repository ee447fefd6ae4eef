"""What lies in a saved folder: its paths, and its weights read as a loader would find them."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from saver_conformance.folder.regular_file import opened, read_whole
from saver_conformance.folder.safetensors import (
    MAX_HEADER_BYTES,
    Header,
    SafetensorsError,
    read_header,
)
from saver_conformance.folder.untrusted_json import UntrustedJsonError, parse_object
from saver_conformance.observation.observation import Entry

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
CARD = "README.md"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
CHAT_TEMPLATES = "additional_chat_templates/"
PROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
"""Configurations of processors of images, sound and video; no training of the suite has one."""

Layout = Literal["single", "sharded", "adapter", "pickle"]

_SHARD = re.compile(r"model-(?P<number>\d{5,})-of-(?P<count>\d{5,})\.safetensors")
_PICKLE = re.compile(
    r"(pytorch_model|adapter_model|model)(-\d{5}-of-\d{5})?\.(bin|pt|pth|pkl)(\.index\.json)?"
)
# What transformers and PEFT write next to the weights.
_COMPANIONS = frozenset(
    {
        ADAPTER_CONFIG,
        CONFIG,
        GENERATION_CONFIG,
        TOKENIZER,
        TOKENIZER_CONFIG,
        CHAT_TEMPLATE,
        CARD,
        "added_tokens.json",
        "chat_template.json",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.model",
        "training_args.bin",
        "vocab.json",
        "vocab.txt",
    }
)
_MAX_JSON_BYTES = 100_000_000
_MAX_HEADERS_BYTES = 2 * MAX_HEADER_BYTES
_BLOCK_BYTES = 1 << 20


def scan(folder: Path) -> dict[str, Entry]:
    """Every path below ``folder`` by its relative POSIX path; links are listed, never followed.

    A file that cannot be read has an empty digest.
    """
    entries: dict[str, Entry] = {}
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as items:
            for item in items:
                status = item.stat(follow_symlinks=False)
                path = Path(item.path)
                kind = kind_of(status.st_mode)
                if kind == "folder":
                    pending.append(path)
                entries[path.relative_to(folder).as_posix()] = Entry(
                    kind=kind,
                    mode=stat.S_IMODE(status.st_mode),
                    size=status.st_size,
                    sha256=_sha256(path) if kind == "file" else "",
                )
    return dict(sorted(entries.items()))


def digest(path: Path) -> str:
    """The SHA-256 of a file's bytes as hex.

    Raises:
        OSError: the file cannot be read, or is no regular file.
    """
    sha256 = hashlib.sha256()
    with opened(path) as descriptor:
        while block := os.read(descriptor, _BLOCK_BYTES):
            sha256.update(block)
    return sha256.hexdigest()


def layout_of(path: str) -> Layout | None:
    """The weight layout that a file of this relative path belongs to; None for other files."""
    if path == SINGLE:
        return "single"
    if path == INDEX or _SHARD.fullmatch(path):
        return "sharded"
    if path == ADAPTER:
        return "adapter"
    if _PICKLE.fullmatch(path):
        return "pickle"
    return None


def belongs_to_save(path: str) -> bool:
    """Whether a saver may replace or remove a file of this relative path."""
    return (
        layout_of(path) is not None
        or path in _COMPANIONS
        or path == CHAT_TEMPLATES.rstrip("/")
        or path.startswith(CHAT_TEMPLATES)
    )


def is_of_whole_model(path: str) -> bool:
    """Whether a file of this relative path is a weight file or a configuration of a whole model."""
    if layout_of(path) in ("single", "sharded") or path in (CONFIG, GENERATION_CONFIG):
        return True
    return layout_of(path) == "pickle" and not path.startswith("adapter_")


def shard_place(path: str) -> tuple[int, int] | None:
    """The number of a shard and the count of all, as its name has them; None for other files."""
    named = _SHARD.fullmatch(path)
    return named and (int(named["number"]), int(named["count"]))


def shard_names(count: int) -> tuple[str, ...]:
    """The file names of a save in ``count`` shards."""
    return tuple(f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1))


class UnreadableJsonError(ValueError):
    """A file holds no JSON object."""


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file at ``path``.

    ``NaN`` and ``Infinity`` are read: ``transformers`` before 5 writes them, and Python reads them.

    Raises:
        UnreadableJsonError: there is no such regular file, or something else is in it.
    """
    try:
        return parse_object(read_whole(path, _MAX_JSON_BYTES), constants=True)
    except FileNotFoundError:
        raise UnreadableJsonError(f"there is no {path.name}") from None
    except UntrustedJsonError as error:
        raise UnreadableJsonError(f"{path.name} {error}") from error
    except OSError as error:
        raise UnreadableJsonError(f"{path.name} cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Index:
    """The index of a sharded save.

    Attributes:
        metadata: whatever stands under ``metadata``; empty when that is no object.
        weight_map: file name by tensor name.
        has_metadata: whether there is an object under ``metadata``.
    """

    metadata: Mapping[str, Any]
    weight_map: Mapping[str, str]
    has_metadata: bool = True


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that cannot be read.

    Attributes:
        file: its relative path.
        reason: what was expected and what was found.
        offset: where in the file, in bytes.
        defect: as in ``SafetensorsError``; ``index`` for the index, ``file`` when the file cannot
            be opened.
    """

    file: str
    reason: str
    offset: int | None = None
    defect: Literal["header", "tiling", "index", "file"] = "file"


@dataclass(frozen=True, slots=True)
class SavedWeights:
    """The safe weights of a folder.

    Attributes:
        folder: where they lie.
        layouts: file names by the weight layout that they belong to.
        headers: header by file name, of every file that could be parsed.
        index: the index, if there is a readable one.
        problems: what could not be read.
    """

    folder: Path
    layouts: Mapping[Layout, tuple[str, ...]]
    headers: Mapping[str, Header]
    index: Index | None
    problems: tuple[Problem, ...]

    @property
    def files_of(self) -> Mapping[str, tuple[str, ...]]:
        """File names by tensor name; more than one when a tensor was written twice."""
        files: dict[str, tuple[str, ...]] = {}
        for file, header in self.headers.items():
            for name in header.tensors:
                files[name] = (*files.get(name, ()), file)
        return MappingProxyType(files)


def read_weights(folder: Path, shards: Collection[str] = ()) -> SavedWeights:
    """Read the headers of all safe weight files of ``folder``, and its index; never raises.

    Args:
        folder: the folder.
        shards: names of files in the folder that are shards too, whatever they are called.
    """
    layouts: dict[Layout, tuple[str, ...]] = {}
    headers: dict[str, Header] = {}
    problems: list[Problem] = []
    index: Index | None = None
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    for name in sorted(names):
        layout = layout_of(name) or ("sharded" if name in shards else None)
        if layout is None:
            continue
        layouts[layout] = (*layouts.get(layout, ()), name)
        if layout == "pickle":
            continue
        if name == INDEX:
            try:
                index = read_index(folder / name)
            except UnreadableJsonError as error:
                problems.append(Problem(name, str(error), defect="index"))
            continue
        if sum(header.data_start for header in headers.values()) > _MAX_HEADERS_BYTES:
            reason = f"more than {_MAX_HEADERS_BYTES} bytes of headers are in the files before it"
            problems.append(Problem(name, reason))
            continue
        try:
            headers[name] = read_header(folder / name)
        except SafetensorsError as error:
            problems.append(Problem(name, error.reason, error.offset, error.defect))
        except OSError as error:
            problems.append(Problem(name, f"cannot be read: {error}"))
    return SavedWeights(
        folder=folder,
        layouts=MappingProxyType(layouts),
        headers=MappingProxyType(headers),
        index=index,
        problems=tuple(problems),
    )


def read_index(path: Path) -> Index:
    """The index in the file at ``path``, of shards in any format.

    Raises:
        UnreadableJsonError: there is no such regular file, or it holds no index.
    """
    plain = read_json_object(path)
    weight_map = plain.get("weight_map")
    if not isinstance(weight_map, dict) or not all(
        isinstance(file, str) for file in weight_map.values()
    ):
        raise UnreadableJsonError(
            f"{path.name}: weight_map does not map tensor names to file names"
        )
    metadata = plain.get("metadata")
    if not isinstance(metadata, dict):
        return Index(metadata={}, weight_map=weight_map, has_metadata=False)
    return Index(metadata=metadata, weight_map=weight_map)


def kind_of(mode: int) -> Literal["file", "folder", "link", "other"]:
    """What the mode of a path says it is."""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISLNK(mode):
        return "link"
    return "other"


def _sha256(path: Path) -> str:
    try:
        return digest(path)
    except OSError:
        return ""
