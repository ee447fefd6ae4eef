"""From a plan to the published folder: what rank 0 only does before and after the weights."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from canonical_saver.errors import VerifyError
from canonical_saver.formats import Archive
from canonical_saver.formats.layout import File
from canonical_saver.publishing import sidecars, stale_files
from canonical_saver.publishing.mount_probe import check_mount
from canonical_saver.publishing.staging import Staging
from canonical_saver.writing.free_space import Room
from canonical_saver.writing.shared_folder import View
from canonical_saver.writing.write_plan import WritePlan
from canonical_saver.writing.writer import Written

if TYPE_CHECKING:
    from canonical_saver.publishing.base_model import BaseModel


@dataclass(frozen=True)
class Staged:
    """Where the files of a save are made.

    Attributes:
        output_dir: the output folder as rank 0 received it.
        name: the staging folder, relative to the output folder.
        token: what its probe holds, for ranks to see whether they see this folder.
        archives: where tensors lie in files of the ``torch`` format.
        carried: tensors of the base that the model's class never loads.
    """

    output_dir: Path
    name: str
    token: str
    archives: list[Archive]
    carried: tuple[Any, ...]


@dataclass(frozen=True)
class Published:
    """What a save left.

    Attributes:
        names: the files of the model, relative to the output folder.
        left: files of other models that stay there.
        warnings: what is not as one may expect and was saved all the same.
        portability: what was done for readers of other versions, and what some cannot read.
    """

    names: list[str]
    left: list[str]
    warnings: list[str]
    portability: tuple[str, ...]


class Publication:
    """The staged folder of a save; every rank has one, and rank 0 only uses its folder.

    Args:
        write_plan: the plan.

    Attributes:
        room: explains errors of a full disk, on every rank.
    """

    def __init__(self, write_plan: WritePlan) -> None:
        self._plan = write_plan
        self._request = write_plan.request
        self._undo = ExitStack()
        self.room = Room(self._request.output_dir, write_plan.needed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def stage(self) -> Staged:
        """Make the staging folder, the files next to the weights, and room for the weights.

        Raises:
            RequestError: the folder is one of the adapter's base.
            OSError: the file system refused.
        """
        request, plan = self._request, self._plan
        with self.room:
            base = self._base()
            staging = self._staging = Staging(request.output_dir)
            self._undo.callback(staging.abandon)
            folder = staging.folder
            check_mount(folder)
            self._sidecars = sidecars.write(plan.model, plan.weight_sets, request, folder)
            if request.portable:
                from canonical_saver.publishing import portable

                self._sidecars = portable.complete(plan, folder, self._sidecars)
            if base is not None:
                base.refuse_changes(self._arrival(), checksums=request.checksums)
            plan = plan.carrying(self._sidecars.carried, rank=0)
            archives = plan.format.create(folder, plan.weight_sets, plan.files)
            token = secrets.token_hex(16)
            probe = folder / "probe"
            probe.write_text(token)
            self._mode = probe.stat().st_mode & 0o777
        return Staged(request.output_dir, staging.name, token, archives, self._sidecars.carried)

    def take(self, _: None, everyone: list[Written]) -> None:
        """Learn what every rank wrote."""
        self._written = everyone

    def publish(self, files: Sequence[File], views: Sequence[View]) -> Published:
        """Check the staged files and make them the model.

        Args:
            files: the final layout.
            views: for each rank, what it saw of the folder and from where.

        Raises:
            VerifyError: a file is not as it was written.
            WriteError: the files could not be put in their places.
        """
        folder, output_dir = self._staging.folder, self._request.output_dir
        _check_files(folder, files)
        if len({view.host for view in views}) > 1:
            from canonical_saver.writing.hosts import read_back

            samples = [one.samples for one in self._written]
            read_back(folder, files, samples, [view.host for view in views])
        with self.room:
            (folder / "probe").unlink()
            if self._request.checksums:
                from canonical_saver.publishing.checksums import write_checksums

                write_checksums(folder)
            arrival = self._arrival()
            # What could not be written is of a kind that this save brings, all the same.
            outdated = self._sidecars.outdated
            brought = replace(arrival, names=arrival.names.union(outdated))
            old = [*stale_files.files(output_dir, brought), *outdated]
            names = self._staging.commit(old, self._mode)
        self._undo.pop_all()  # nothing is left to be undone once the other ranks hear of it
        left = stale_files.others(output_dir, arrival)
        warnings = [*self._sidecars.warnings, *_of_left(left, output_dir, arrival)]
        if self._request.dtype is not None:
            from canonical_saver.writing import overflow

            counts = [one.overflows for one in self._written]
            warnings += overflow.warnings(counts, self._request.dtype)
        return Published(names, left, warnings, self._sidecars.portability)

    def _base(self) -> BaseModel | None:
        """The base of the adapters that are saved; None for a whole model.

        Raises:
            RequestError: the folder is the base's.
        """
        if self._plan.weight_sets[0].adapter is None:
            return None
        from canonical_saver.publishing.base_model import BaseModel

        base = BaseModel(self._plan.model, self._request)
        base.refuse_folder(self._plan.weight_sets)
        return base

    def _arrival(self) -> stale_files.Arrival:
        """What is staged by now."""
        weight_sets = self._plan.weight_sets
        folders = frozenset(weights.folder for weights in weight_sets)
        staged = frozenset(self._staging.staged())
        adapter = weight_sets[0].adapter is not None
        return stale_files.Arrival(self._staging.folder, staged, folders, adapter)


def _of_left(left: Sequence[str], output_dir: Path, arrival: stale_files.Arrival) -> list[str]:
    """Say which files of other models stay, and what loads then."""
    if not left:
        return []
    effect = ""
    if arrival.adapter and "config.json" in left and "" in arrival.folders:
        effect = "; AutoModel takes the model in this folder for the adapter's base"
    return [f"files of another model stay in {output_dir}: {', '.join(left)}{effect}"]


def _check_files(folder: Path, files: Sequence[File]) -> None:
    for file in files:
        path = folder / file.name
        if (found := path.stat().st_size) != file.size:
            raise VerifyError(
                f"{file.name}: expected {file.size} bytes, found {found}; check the disk"
            )
        with path.open("rb") as stream:
            if stream.read(len(file.header)) != file.header:
                raise VerifyError(
                    f"{file.name}: the header reads back differently than it was written; check "
                    "the disk"
                )
