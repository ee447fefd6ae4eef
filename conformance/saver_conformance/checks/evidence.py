"""An observation together with what its files say, each file read at most once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from saver_conformance.cases.case import Case
from saver_conformance.folder.layout import (
    ADAPTER_CONFIG,
    CONFIG,
    INDEX,
    SavedWeights,
    UnreadableJsonError,
    belongs_to_save,
    layout_of,
    read_json_object,
    read_weights,
)
from saver_conformance.folder.safetensors import Header, read_tensor
from saver_conformance.observation.finding import Defect
from saver_conformance.observation.observation import (
    Difference,
    Entry,
    Expectation,
    Observation,
    Reload,
    Tensor,
)


class BlockedError(Exception):
    """A check cannot be made, because of a defect that another clause reports."""


class Evidence:
    """What the checks look at.

    The registry knows a check's clause and the case; ``defect`` fills in what the folder and the
    expected tensor tell.
    """

    def __init__(self, observation: Observation, expected: Expectation | None = None) -> None:
        """Look at the whole output folder, or at the folder of the weights ``expected``."""
        self.observation = observation
        self._place = expected.folder if expected else ""
        self._expected = expected or observation.expected

    @cached_property
    def places(self) -> tuple[Evidence, ...]:
        """The same for each folder that weights are expected in; one but for named adapters."""
        expected = self.observation.expected
        if not (expected.folder or expected.others):
            return (self,)
        return tuple(Evidence(self.observation, one) for one in (expected, *expected.others))

    def is_of_model(self, path: str) -> bool:
        """Whether a path below the output folder is that of a file that a save brings."""
        folders = {f"{place.place}/" if place.place else "" for place in (self, *self.places)}
        return any(
            path.startswith(folder) and belongs_to_save(path.removeprefix(folder))
            for folder in folders
        )

    @cached_property
    def all_tensors(self) -> Mapping[str, Tensor]:
        """The tensors of all folders of weights, by folder and name."""
        return {
            f"{place.place}/{name}" if place.place else name: tensor
            for place in self.places
            for name, tensor in place.expected.tensors.items()
        }

    @property
    def tied_to(self) -> tuple[str, ...]:
        """For each name that stays out of the save, the tensor that it is a name of."""
        tied = self._expected.tied.values()
        return tuple(name for name in tied if name in self._expected.tensors)

    @property
    def place(self) -> str:
        """The folder that is looked at, relative to the output folder; empty for itself."""
        return self._place

    @property
    def case(self) -> Case:
        """What was run."""
        return self.observation.case

    @property
    def expected(self) -> Expectation:
        """What the oracle saw before the save."""
        return self._expected

    @property
    def folder(self) -> Path:
        """The output folder, or that of the weights."""
        return self.observation.folder / self._place

    @cached_property
    def before(self) -> Mapping[str, Entry]:
        """What lay in the folder before the save."""
        return self._inside(self.observation.before)

    @cached_property
    def after(self) -> Mapping[str, Entry]:
        """What lies in the folder now."""
        return self._inside(self.observation.after)

    @cached_property
    def written(self) -> Mapping[str, Entry]:
        """Paths that the save made, or whose content it changed."""
        return {
            path: entry
            for path, entry in self.after.items()
            if path not in self.before or _content(self.before[path]) != _content(entry)
        }

    @cached_property
    def saved(self) -> SavedWeights:
        """All weights that lie in the folder, stale ones included."""
        return read_weights(self.folder)

    @cached_property
    def own_files(self) -> tuple[str, ...]:
        """The weight files that a loader of this case's kind of save takes.

        A layout that the save has written counts; when it has written none, whatever lies there
        does, since the save may have left equal bytes in place.
        """
        if self._expected.folder != self._place:
            return ()
        layouts = ("adapter",) if self.case.saves_adapter else ("single", "sharded")
        present = [path for path in self.after if layout_of(path) in layouts]
        written = [path for path in present if path in self.written]
        if not written:
            return tuple(present)
        chosen = {layout_of(path) for path in written}
        index = self.saved.index.weight_map if self.saved.index else {}
        named = set(index.values())
        own = {
            path
            for path in present
            if path in self.written or (layout_of(path) in chosen and path in named)
        }
        headers = {path: header for path, header in self.saved.headers.items() if path in own}
        # Of another save of the same shapes the index is the same, byte for byte.
        if index and index == {name: path for path in headers for name in headers[path].tensors}:
            own.add(INDEX)
        return tuple(path for path in present if path in own)

    @cached_property
    def headers(self) -> Mapping[str, Header]:
        """The headers of this save's weight files.

        Raises:
            BlockedError: there is no weight file, or one of them cannot be parsed.
        """
        files = [path for path in self.own_files if path.endswith(".safetensors")]
        if not files:
            raise BlockedError("the folder has no safetensors weights of this kind of save")
        for problem in self.saved.problems:
            if problem.file in files:
                raise BlockedError(f"{problem.file} cannot be parsed: {problem.reason}")
        if vanished := [file for file in files if file not in self.saved.headers]:
            raise BlockedError(f"{vanished[0]} vanished while it was judged")
        return {file: self.saved.headers[file] for file in files}

    @property
    def indexed(self) -> Mapping[str, Header]:
        """The headers of the files that an index is about.

        Raises:
            BlockedError: as for ``headers``.
        """
        return {file: head for file, head in self.headers.items() if layout_of(file) == "sharded"}

    @cached_property
    def file_of(self) -> Mapping[str, str]:
        """The file that holds a tensor, by the tensor's name (the first one, if several do)."""
        files: dict[str, str] = {}
        for file, header in self.headers.items():
            for name in header.tensors:
                files.setdefault(name, file)
        return files

    def tensor(self, name: str) -> Tensor:
        """The saved tensor called ``name``."""
        file = self.file_of[name]
        return read_tensor(self.folder / file, self.headers[file], name)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """``config.json``.

        Raises:
            BlockedError: it cannot be read.
        """
        return self._json_object(CONFIG)

    @cached_property
    def adapter_config(self) -> Mapping[str, Any]:
        """``adapter_config.json``.

        Raises:
            BlockedError: it cannot be read.
        """
        return self._json_object(ADAPTER_CONFIG)

    @property
    def reload(self) -> Reload:
        """What a fresh process got.

        Raises:
            BlockedError: nothing was reloaded.
        """
        if self.observation.reload is None:
            raise BlockedError("nothing was reloaded")
        return self.observation.reload

    @property
    def reloaded(self) -> Reload:
        """What a fresh process got, when loading worked.

        Raises:
            BlockedError: nothing was reloaded, or loading failed.
        """
        if self.reload.error:
            raise BlockedError("the folder does not load")
        return self.reload

    def defect(
        self,
        expected: str,
        found: str,
        *,
        file: str | None = None,
        tensor: str | None = None,
        dtype: str | None = None,
        shape: tuple[int, ...] | None = None,
        rank: int | None = None,
        offset: int | None = None,
        differing: int | None = None,
    ) -> Defect:
        """A defect; of a tensor that belongs in the save, with its dtype and shape."""
        wanted = self.expected.tensors.get(tensor) if tensor else None
        if wanted is not None and dtype is None and shape is None:
            dtype, shape = wanted.dtype, tuple(wanted.shape)
        return Defect(
            expected=expected,
            found=found,
            file=file and self.path_of(file),
            tensor=tensor,
            dtype=dtype,
            shape=shape,
            rank=rank,
            offset=offset,
            differing=differing,
        )

    def difference(self, why: str, difference: Difference, *, file: str | None = None) -> Defect:
        """A tensor that differs from ``why``, which says whose it should be."""
        return self.defect(
            f"{why}: {difference.expected}",
            difference.found,
            file=file,
            tensor=difference.tensor,
            dtype=difference.dtype,
            shape=difference.shape,
            offset=difference.offset,
            differing=difference.differing,
        )

    def path_of(self, file: str) -> str:
        """The path of a file here, relative to the output folder."""
        return f"{self._place}/{file}" if self._place else file

    def _inside(self, entries: Mapping[str, Entry]) -> Mapping[str, Entry]:
        if not self._place:
            return entries
        prefix = f"{self._place}/"
        return {
            path.removeprefix(prefix): entry
            for path, entry in entries.items()
            if path.startswith(prefix)
        }

    def _json_object(self, name: str) -> Mapping[str, Any]:
        try:
            return read_json_object(self.folder / name)
        except UnreadableJsonError as error:
            raise BlockedError(str(error)) from error


def _content(entry: Entry) -> tuple[str, str]:
    return entry.kind, entry.sha256
