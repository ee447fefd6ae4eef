"""From a plan to the published folder: what rank 0 only does before and after the weights."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canonical_saver.errors import VerifyError
from canonical_saver.formats import Archive
from canonical_saver.formats.layout import File, stored_size
from canonical_saver.publishing import sidecars
from canonical_saver.publishing.mount_probe import check_mount
from canonical_saver.publishing.staging import Staging
from canonical_saver.writing.free_space import Room
from canonical_saver.writing.write_plan import WritePlan

if TYPE_CHECKING:
    from canonical_saver.publishing.base_model import BaseModel
    from canonical_saver.publishing.stale_files import EarlierSave
    from canonical_saver.writing.shared_folder import View
    from canonical_saver.writing.watch import Written


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
        undo: what is to be done at the end of a save that was not published.

    Attributes:
        room: explains errors of a full disk, on every rank.
    """

    def __init__(self, write_plan: WritePlan, undo: ExitStack) -> None:
        self._plan, self._undo = write_plan, undo
        self._request = write_plan.request
        self._written: Sequence[Written | None] = ()
        dtype = self._request.dtype
        needed = sum(stored_size(one.saved_tensors, dtype) for one in write_plan.weight_sets)
        self.room = Room(self._request.output_dir, needed)

    def stage(self) -> Staged:
        """Make the staging folder, the files next to the weights, and room for the weights.

        Raises:
            RequestError: the folder is one of the adapter's base.
            OSError: the file system refused.
        """
        request, plan = self._request, self._plan
        with self.room:
            base: BaseModel | None = None
            if plan.weight_sets[0].adapter is not None:
                from canonical_saver.publishing.base_model import BaseModel

                base = BaseModel(plan.model, request)
                base.refuse_folder(plan.weight_sets)
            staging = self._staging = Staging(request.output_dir)
            self._undo.callback(staging.abandon)
            folder = staging.folder
            check_mount(folder)
            self._sidecars = sidecars.write(plan.model, plan.weight_sets, request, folder)
            if request.portable:
                from canonical_saver.publishing import portable

                self._sidecars = portable.complete(plan, folder, self._sidecars)
            if base is not None:
                base.refuse_changes(staging, plan.weight_sets)
            plan = plan.final(self._sidecars.carried, [], rank=0)
            archives = plan.format.create(folder, plan.weight_sets, plan.files)
            token = secrets.token_hex(16)
            probe = folder / "probe"
            probe.write_text(token)
            self._mode = probe.stat().st_mode & 0o777
        return Staged(request.output_dir, staging.name, token, archives, self._sidecars.carried)

    def take(self, _: None, everyone: list[Written | None]) -> None:
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
        folder, request = self._staging.folder, self._request
        _check_files(folder, files)
        found: list[str] = []
        written = [one for one in self._written if one is not None]  # of all ranks, or of none
        if written:
            from canonical_saver.writing.watch import check

            found = check(written, folder, files, views, request.dtype)
        earlier: EarlierSave | None = None
        with self.room:
            (folder / "probe").unlink()
            if request.checksums:
                from canonical_saver.publishing.checksums import write_checksums

                write_checksums(folder)
            if not self._staging.has_folder_alone():
                from canonical_saver.publishing.stale_files import EarlierSave

                earlier = EarlierSave(self._staging, self._plan.weight_sets)
            stale = () if earlier is None else earlier.stale(self._sidecars.outdated)
            names = self._staging.commit(stale, self._mode)
        self._undo.pop_all()  # nothing is left to be undone once the other ranks hear of it
        left, also = ([], []) if earlier is None else earlier.left()
        warnings = [*self._sidecars.warnings, *also, *found]
        return Published(names, left, warnings, self._sidecars.portability)


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
