"""Which weight files of a folder a loader takes, and which lie next to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from canonical_saver.errors import ProofError
from canonical_saver.proving.chunks import joined, read_chunks
from canonical_saver.proving.found_tensors import Chunk, FoundFile, FoundTensor, FoundWeights
from canonical_saver.proving.safe_files import (
    UnreadableError,
    parse_object,
    printable,
    quoted,
    read_bytes,
)
from canonical_saver.proving.safetensors_header import read_header
from canonical_saver.proving.torch_header import read_archive
from canonical_saver.publishing.stale_files import weight_files

MOST_PROBLEMS = 100
"""What is wrong with an index can be as long as the index."""

_STEMS = {False: ("model", "pytorch_model"), True: ("adapter_model", "adapter_model")}
_ENDINGS = (".safetensors", ".bin")
_READERS: dict[str, Callable[[Path, str], list[FoundTensor]]] = {
    ".safetensors": read_header,
    ".bin": read_archive,
}
_SHARD = r"-(\d{5,})-of-(\d{5,})"
_OF_RANK = re.compile(rf"shard-\d{{5,}}-model{_SHARD}\.safetensors")
"""A file that torch.distributed.checkpoint writes for one rank."""
_IN_CHUNKS = (
    "the files are shards of ranks, which torch.distributed.checkpoint loads and transformers does "
    "not; HuggingFaceStorageWriter(enable_consolidation=True) writes a model that both load"
)


@dataclass(frozen=True)
class Contents:
    """What a folder holds.

    Attributes:
        whole: whether the weights of a whole model lie in it.
        adapters: where in it those of adapters lie; "" is the folder itself.
    """

    whole: bool
    adapters: tuple[str, ...]


@dataclass(frozen=True)
class _Choice:
    """The files that a loader takes.

    Attributes:
        files: their names.
        index: the index that names them, "" where there is none.
        places: for each tensor the file that the index gives it.
        problems: what is wrong with the index.
        in_chunks: the tensors lie in parts, as the ranks held them.
    """

    files: tuple[str, ...] = ()
    index: str = ""
    places: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()
    in_chunks: bool = False


def contents_of(root: Path) -> Contents:
    """Find out what a folder holds.

    The folders of a trainer's checkpoints are saves of their own, and not looked into.

    Raises:
        ProofError: there is no such folder, or it cannot be read.
    """
    try:
        present = {path.name for path in root.iterdir()}
        below = [path.parent for path in root.glob("*/adapter_model.*")]
        below += [path.parent for path in root.glob("*/*/adapter_model.*")]
    except OSError as error:
        raise ProofError(
            f"{root}: expected a folder with a saved model, found that it cannot be read: {error}"
        ) from error
    names = {path.relative_to(root).as_posix() for path in below}
    adapters = sorted(name for name in names if not _is_checkpoint(name))
    if _choose(root, present, adapter=True).files:
        adapters.insert(0, "")
    return Contents(bool(_choose(root, present, adapter=False).files), tuple(adapters))


def read_weights(root: Path, folder: str, *, adapter: bool) -> FoundWeights:
    """Read the headers of the weights that a loader takes.

    Args:
        root: the folder of the saved model.
        folder: the place in it.
        adapter: whether those of an adapter are meant, or those of a whole model.
    """
    place = root / folder
    try:
        present = {path.name for path in place.iterdir() if not path.is_dir()}
    except OSError:
        return FoundWeights(folder)
    choice = _choose(place, present, adapter=adapter)
    problems = list(choice.problems)
    tensors: list[FoundTensor] = []
    files: list[FoundFile] = []
    inside = f"{folder}/" if folder else ""
    chunks: list[tuple[FoundTensor, Chunk]] = []
    for name in choice.files:
        try:
            if choice.in_chunks:
                chunks += read_chunks(root, inside + name)
            else:
                tensors += _READERS[Path(name).suffix](root, inside + name)
            status = (place / name).stat()
            files.append(FoundFile(inside + name, status.st_size, status.st_mtime_ns))
        except (OSError, UnreadableError) as error:
            problems.append(f"{printable(inside + name)}: {_reason(error)}")
    whole, unlike = joined(chunks)
    tensors += whole
    problems += unlike
    problems += islice(_contradictions(inside, choice, tensors), MOST_PROBLEMS)
    return FoundWeights(
        folder,
        tuple(tensors),
        tuple(files),
        tuple(problems[:MOST_PROBLEMS]),
        tuple(inside + name for name in _others(place, present, choice, adapter=adapter)),
        (_IN_CHUNKS,) if choice.in_chunks else (),
    )


def _is_checkpoint(name: str) -> bool:
    first, _, step = name.partition("/")[0].partition("-")
    return first == "checkpoint" and step.isdecimal()


def _choose(place: Path, present: set[str], *, adapter: bool) -> _Choice:
    """Choose as transformers and PEFT do: safetensors first, and one file before its shards."""
    for stem, ending in zip(_STEMS[adapter], _ENDINGS, strict=True):
        if f"{stem}{ending}" in present:
            return _Choice((f"{stem}{ending}",))
        if f"{stem}{ending}.index.json" in present:
            return _indexed(place, f"{stem}{ending}.index.json", ending)
    for stem, ending in zip(_STEMS[adapter], _ENDINGS, strict=True):
        if shards := _numbered(present, stem, ending):
            return _Choice(
                shards,
                problems=(
                    f"{stem}{ending}.index.json: expected the index of the shards, found none",
                ),
            )
    of_ranks = () if adapter else tuple(sorted(filter(_OF_RANK.fullmatch, present)))
    return _Choice(of_ranks, in_chunks=bool(of_ranks))


def _numbered(present: set[str], stem: str, ending: str) -> tuple[str, ...]:
    """Shards that no index names; only a complete set of them, one of one included."""
    found = {name: re.fullmatch(stem + _SHARD + re.escape(ending), name) for name in present}
    numbers = {int(m[1]): name for name, m in sorted(found.items()) if m}
    counts = {int(m[2]) for m in found.values() if m}
    complete = len(counts) == 1 and sorted(numbers) == list(range(1, max(counts) + 1))
    return tuple(numbers[number] for number in sorted(numbers)) if complete else ()


def _indexed(place: Path, index: str, ending: str) -> _Choice:
    try:
        mapping = parse_object(read_bytes(place / index)).get("weight_map")
    except (OSError, UnreadableError) as error:
        return _Choice((), index, (), (f"{index}: {_reason(error)}",))
    if not isinstance(mapping, dict):
        return _Choice((), index, (), (f"{index}: expected a weight_map, found none",))
    named = dict.fromkeys(name for name in mapping.values() if isinstance(name, str))
    files, problems = [], []
    for name in sorted(named):
        if Path(name).name != name or not name.endswith(ending) or name.startswith("."):
            problems.append(f"{index}: expected names of files beside it, found {quoted(name)}")
        else:
            files.append(name)
    places = tuple((k, v) for k, v in mapping.items() if isinstance(v, str))
    return _Choice(tuple(files), index, places, tuple(problems))


def _contradictions(inside: str, choice: _Choice, tensors: list[FoundTensor]) -> Iterator[str]:
    """Say where the index and the files contradict each other, and which names are twice there."""
    where: dict[str, str] = {}
    for tensor in tensors:
        if tensor.name in where:
            yield (
                f"{printable(tensor.file)}: expected each tensor in one file, found "
                f"{quoted(tensor.name)} in {printable(where[tensor.name])} too"
            )
        where.setdefault(tensor.name, tensor.file)
    if not choice.index:
        return
    places = dict(choice.places)
    for name in sorted(places.keys() | where.keys()):
        named = inside + places[name] if name in places else "no file"
        found = where.get(name, "no file")
        if named != found:
            yield (
                f"{inside}{choice.index}: expected {quoted(name)} in {found} as it lies there, "
                f"found {named}"
            )


def _others(place: Path, present: set[str], choice: _Choice, *, adapter: bool) -> list[str]:
    """Weight files that are no part of what was chosen, and that some reader would take.

    Where there is no index, many readers take every ``*.safetensors``; where there is one, some
    take every ``model*.safetensors``. A whole model beside an adapter is its base.
    """
    found = weight_files(place, adapter=True)
    if not adapter:
        found |= weight_files(place, adapter=False)
        start = "model" if choice.index else ""
        named = {n for n in present if n.startswith(start) and not n.startswith(".")}
        found |= {name for name in named if name.endswith(".safetensors")}
    return sorted(found - {*choice.files, choice.index})


def _reason(error: Exception) -> str:
    return str(error.strerror if isinstance(error, OSError) else error)
