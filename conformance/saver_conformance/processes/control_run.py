"""After a save: the same save again, one more step of training, and its unsaved control."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from saver_conformance.cases.case import Case
from saver_conformance.errors import HarnessFailedError
from saver_conformance.folder.layout import scan
from saver_conformance.folder.safetensors import read_header, read_tensor
from saver_conformance.observation.observation import ControlRun, Difference
from saver_conformance.observation.tensor_diff import compare
from saver_conformance.processes.world import World


def run_control(world: World, saver: str, limit: float, case: Case, folder: Path) -> ControlRun:
    """Save ``case`` again, train on, and compare with a training that was never saved.

    The output folder is afterwards what the first save made of it. The world is left with the
    control's training, or with ranks that did not return.

    Args:
        world: ranks that have returned from the first save.
        saver: the saver's address.
        limit: seconds after which a save counts as hanging.
        case: the case.
        folder: its scratch folder.

    Raises:
        HarnessFailedError: the unsaved control could not be trained, or not twice alike.
    """
    output, first, again = folder / "out", folder / "first", folder / "again"
    shutil.copytree(output, first, symlinks=True)
    outcomes = world.save(saver, limit)
    output.rename(again)
    first.rename(output)
    files = scan(again)
    if any(outcome.status != "returned" for outcome in outcomes):
        return ControlRun(outcomes, again, files)
    saved = folder / "saved.safetensors"
    for rank, answer in enumerate(world.step(saved)):
        if answer.status != "returned":
            return ControlRun(
                outcomes, again, files, f"rank {rank} {answer.status}\n{answer.detail}"
            )
    control = _train_unsaved(world, case, folder / "control")
    differences = tuple(_differences(control, saved))
    if differences:
        # Training itself may end differently each time, and that is no saver's doing.
        other = _train_unsaved(world, case, folder / "other-control")
        differences = tuple(_differences(other, saved))
        if differences and any(_differences(other, control)):
            raise HarnessFailedError(
                f"{case.to_json()} ends with other weights each time, saved or not"
            )
    return ControlRun(outcomes, again, files, differences=differences)


def _train_unsaved(world: World, case: Case, folder: Path) -> Path:
    """Train ``case`` and one step more; returns the file of its weights."""
    if not world.close():
        raise HarnessFailedError("a case could not be ended before its control is trained")
    folder.mkdir()
    path = folder / "stepped.safetensors"
    for answers in (world.prepare(case, folder), world.step(path)):
        for rank, answer in enumerate(answers):
            if answer.status != "returned":
                raise HarnessFailedError(
                    f"the unsaved control of {case.to_json()} could not be trained: "
                    f"rank {rank} {answer.status}\n{answer.detail}"
                )
    return path


def _differences(unsaved: Path, saved: Path) -> Iterator[Difference]:
    expected, found = read_header(unsaved), read_header(saved)
    for name in expected.tensors:
        right, there = read_tensor(unsaved, expected, name), read_tensor(saved, found, name)
        if difference := compare(name, right, there):
            yield difference
