"""PURITY: what the call leaves as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from saver_conformance.cases.case import Case
from saver_conformance.checks.crash import shows_files, trace_of
from saver_conformance.checks.evidence import BlockedError, Evidence
from saver_conformance.checks.registry import check
from saver_conformance.folder.layout import read_weights
from saver_conformance.folder.safetensors import read_tensor
from saver_conformance.folder.temporary_names import looks_temporary
from saver_conformance.folder.weight_copies import find_copies
from saver_conformance.observation.finding import Defect
from saver_conformance.observation.observation import ControlRun, Entry
from saver_conformance.observation.process_diff import BASE, LIBRARIES
from saver_conformance.observation.tensor_diff import compare
from saver_conformance.safe_text import count, quoted

SHOWN = 8
"""Changes of one kind on one rank that are reported one by one."""


def _has_control(case: Case) -> bool:
    return case.probe == "control_run"


@check("PURITY-001")
def keeps_weights(e: Evidence) -> Iterator[Defect]:
    """Parameters, gradients and buffers have their bits, dtype and device."""
    return _unchanged(e, "weights")


@check("PURITY-002")
def keeps_flags(e: Evidence) -> Iterator[Defect]:
    """``requires_grad`` and ``training`` are as before."""
    return _unchanged(e, "flags")


@check("PURITY-003")
def keeps_modules(e: Evidence) -> Iterator[Defect]:
    """Modules, parameter objects, hooks and methods are those of before."""
    return _unchanged(e, "modules")


@check("PURITY-004")
def keeps_random_states(e: Evidence) -> Iterator[Defect]:
    """No random number was drawn, and no generator seeded."""
    return _unchanged(e, "random")


@check("PURITY-005")
def keeps_configuration(e: Evidence) -> Iterator[Defect]:
    """``cfg`` and the trainer's arguments are as before."""
    return _unchanged(e, "configuration")


@check("PURITY-006")
def keeps_model_configuration(e: Evidence) -> Iterator[Defect]:
    """The configurations that the model carries are as before."""
    return _unchanged(e, "model configuration")


@check("PURITY-007")
def keeps_optimizer(e: Evidence) -> Iterator[Defect]:
    """Optimizer, schedule and counters are as before."""
    return _unchanged(e, "optimizer")


@check("PURITY-008")
def keeps_process_settings(e: Evidence) -> Iterator[Defect]:
    """Torch's global settings, the working directory and the umask are as before."""
    return _unchanged(e, "process")


@check("PURITY-009")
def keeps_environment(e: Evidence) -> Iterator[Defect]:
    """Environment variables are as before."""
    return _unchanged(e, "environment")


@check("PURITY-010", when=_has_control)
def saves_the_same_weights_again(e: Evidence) -> Iterator[Defect]:
    """The second save returned, and holds each tensor with the same bits."""
    control = _control(e)
    for outcome in control.outcomes:
        if outcome.status != "returned":
            yield e.defect(
                "a second save returns like the first",
                f"rank {outcome.rank} {outcome.status}: {outcome.detail}",
                rank=outcome.rank,
            )
            return
    for place in e.places:
        yield from _differences_of_second_save(place, control.folder / place.expected.folder)


def _differences_of_second_save(e: Evidence, folder: Path) -> Iterator[Defect]:
    headers = read_weights(folder).headers
    file_of = {name: file for file in headers for name in headers[file].tensors}
    # A file that an earlier save left may hold the same names: compare like with like.
    for name, file in e.file_of.items():
        if file in headers and name in headers[file].tensors:
            file_of[name] = file
    for name in e.file_of:
        if name not in file_of:
            yield e.defect("the second save holds it too", "it is missing", tensor=name)
            continue
        file = file_of[name]
        again = read_tensor(folder / file, headers[file], name)
        if difference := compare(name, e.tensor(name), again):
            yield e.difference("the bits of the first save", difference, file=file)


@check("PURITY-011", when=_has_control)
def saves_the_same_bytes_again(e: Evidence) -> Iterator[Defect]:
    """The second save made the same files with the same bytes."""
    control = _returned_control(e)
    for path in sorted({*e.after, *control.files}):
        first, second = e.after.get(path), control.files.get(path)
        if first != second:
            yield e.defect(
                f"as after the first save: {_describe(first)}",
                f"after the second save: {_describe(second)}",
                file=path,
            )


@check("PURITY-012", when=_has_control)
def trains_on_alike(e: Evidence) -> Iterator[Defect]:
    """One more step makes the weights that it makes where nothing was saved."""
    control = _returned_control(e)
    if control.step_error:
        yield e.defect("training continues after the save", control.step_error)
    for difference in control.differences:
        yield e.difference("the bits of the unsaved control after a step", difference)


@check("PURITY-013")
def keeps_the_base_model(e: Evidence) -> Iterator[Defect]:
    """The files of the model that training started from are as before."""
    return _unchanged(e, BASE)


@check("PURITY-014", when=_has_control)
def keeps_library_functions(e: Evidence) -> Iterator[Defect]:
    """Functions and methods of imported modules are as before, but for what an import changes."""
    if e.observation.changes is None:
        raise BlockedError("nobody looked at what changed in the processes")
    for rank, changes in enumerate(e.observation.changes):
        patches = [change for change in changes if change.area == LIBRARIES]
        for patch in patches[:SHOWN]:
            yield e.defect(f"{patch.name} as before the save", patch.after, rank=rank)


@check("PURITY-015", when=shows_files)
def leaves_nothing_elsewhere(e: Evidence) -> Iterator[Defect]:
    """Files that were made outside of the output folder hold no weights and look not temporary."""
    trace, parent = trace_of(e), e.folder.parent
    names = {copy: path for path, copy in trace.copies.items()}
    for copy, tensors in find_copies(e.all_tensors, names).items():
        found = f"{names[copy]} holds {count(len(tensors), 'tensor')}, such as {quoted(tensors[0])}"
        yield e.defect("no weights outside of the output folder", found)
    for path in trace.left:
        place = Path(path)
        if place.parent == parent and looks_temporary(place.name, e.folder.name):
            yield e.defect("nothing temporary outside of the output folder", f"left: {path}")


def _unchanged(e: Evidence, area: str) -> Iterator[Defect]:
    if e.observation.changes is None:
        raise BlockedError("nobody looked at what changed in the processes")
    for rank, changes in enumerate(e.observation.changes):
        mine = [change for change in changes if change.area == area]
        for change in mine[:SHOWN]:
            yield e.defect(
                f"{change.name} as before the save: {change.before}",
                f"now: {change.after}",
                rank=rank,
            )
        if len(mine) > SHOWN:
            yield e.defect("no change", f"{len(mine) - SHOWN} more of the {area}", rank=rank)


def _control(e: Evidence) -> ControlRun:
    if e.observation.control is None:
        raise BlockedError("the save left no folder, so nothing was saved again")
    return e.observation.control


def _returned_control(e: Evidence) -> ControlRun:
    control = _control(e)
    for outcome in control.outcomes:
        if outcome.status != "returned":
            raise BlockedError(f"rank {outcome.rank} {outcome.status} in the second save")
    return control


def _describe(entry: Entry | None) -> str:
    if entry is None:
        return "nothing"
    return f"{entry.kind} of {entry.size} bytes, mode {entry.mode:04o}, sha256 {entry.sha256[:12]}"
