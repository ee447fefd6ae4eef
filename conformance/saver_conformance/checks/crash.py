"""CRASH: what is left of a save that was cut off."""

from __future__ import annotations

from collections.abc import Iterator

from saver_conformance.cases.case import Case
from saver_conformance.checks.evidence import BlockedError, Evidence
from saver_conformance.checks.registry import check
from saver_conformance.observation.file_trace import FileTrace
from saver_conformance.observation.finding import Defect
from saver_conformance.observation.flushing import Disk, replay
from saver_conformance.observation.observation import Crashes, Fault


def has_faults(case: Case) -> bool:
    """Whether saves are killed and made to fail."""
    return case.probe == "fault_injection"


def shows_files(case: Case) -> bool:
    """Whether what a save does to files is traced."""
    return case.probe in ("fault_injection", "file_trace")


@check("CRASH-001", when=has_faults)
def leaves_no_mixture(e: Evidence) -> Iterator[Defect]:
    """After a kill a loader gets the old model, or the new one, or refuses."""
    crashes = crashes_of(e)
    allowed = {crashes.models["old"], crashes.models["new"], None}
    for item in _kills(crashes):
        if crashes.models[item.state] not in allowed:
            yield e.defect(
                f"{item.place}: the earlier model, the new one, or none loads",
                "a model loads that is neither",
                rank=item.rank,
            )


@check("CRASH-002", when=has_faults)
def saves_after_a_kill(e: Evidence) -> Iterator[Defect]:
    """The next save in the same folder returns, and the new model loads."""
    crashes = crashes_of(e)
    for item in _kills(crashes):
        expected = f"{item.place}: the next save makes the model"
        for outcome in item.outcomes:
            if outcome.status != "returned":
                found = f"it {outcome.status}: {outcome.detail}"
                yield e.defect(expected, found, rank=outcome.rank)
        if item.has_returned and crashes.models[f"{item.state}-again"] != crashes.models["new"]:
            found = "another model loads, or none"
            yield e.defect(expected, found, rank=item.rank)


@check("CRASH-003", when=has_faults)
def reports_failures(e: Evidence) -> Iterator[Defect]:
    """A save that met a failing call raises, unless it saved the model nevertheless.

    What becomes of the other ranks is a matter of RANKS-005.
    """
    crashes = crashes_of(e)
    for item in failures_of(crashes):
        expected = f"{item.place}: the saver raises, or has saved the model"
        ended = item.outcomes[item.rank]
        if item.has_returned and crashes.models[item.state] != crashes.models["new"]:
            found = "it returned, and the model is not there"
            yield e.defect(expected, found, rank=item.rank)
        elif ended.status not in ("returned", "raised"):
            found = f"it {ended.status}: {ended.detail}"
            yield e.defect(expected, found, rank=item.rank)


@check("CRASH-004", when=has_faults)
def keeps_the_old_model(e: Evidence) -> Iterator[Defect]:
    """Where a save raised because a call failed, the earlier model loads, or the new one."""
    crashes = crashes_of(e)
    for item in _raised(crashes):
        if crashes.models[item.state] not in (crashes.models["old"], crashes.models["new"]):
            found = "no model" if crashes.models[item.state] is None else "another model"
            yield e.defect(
                f"{item.place}: the earlier model loads, or the new one",
                f"{found} loads",
                rank=item.rank,
            )


@check("CRASH-005", when=has_faults)
def tidies_up_after_failures(e: Evidence) -> Iterator[Defect]:
    """Where a save raised because a call failed, the folder has nothing temporary."""
    crashes = crashes_of(e)
    for item in _raised(crashes):
        yield from _leftovers(e, item.place, item, item.state, crashes)


@check("CRASH-006", when=has_faults)
def tidies_up_after_kills(e: Evidence) -> Iterator[Defect]:
    """After the next save the folder has nothing of the save that was killed."""
    crashes = crashes_of(e)
    for item in _kills(crashes):
        if item.has_returned:
            place = f"{item.place}, then saved again"
            yield from _leftovers(e, place, item, f"{item.state}-again", crashes)


@check("CRASH-007", when=shows_files)
def flushes_data_before_names(e: Evidence) -> Iterator[Defect]:
    """Each file of the model was flushed before it was renamed, or else before the end."""
    disk = _disk_of(e)
    for path in _files_of_model(e):
        place = f"{e.folder}/{path}"
        if place in disk.unready:
            yield e.defect("flushed before it gets its name", "renamed before a flush", file=path)
        elif disk.loses(place):
            yield e.defect("flushed before the saver returns", "written and not flushed", file=path)


@check("CRASH-008", when=shows_files)
def flushes_names(e: Evidence) -> Iterator[Defect]:
    """Each folder was flushed after the last file of the model got its name there."""
    entries = _disk_of(e).entries
    for path in _files_of_model(e):
        folder, _, name = f"{e.folder}/{path}".rpartition("/")
        if name in entries.get(folder, ()):
            yield e.defect("its folder is flushed after it got its name", "it is not", file=path)


def _disk_of(e: Evidence) -> Disk:
    existing = {f"{e.folder}/{path}" for path in e.before}
    return replay(trace_of(e).events, {*existing, str(e.folder)})


def _files_of_model(e: Evidence) -> list[str]:
    """Files of the model, relative to the output folder."""
    return [path for path, entry in e.after.items() if entry.kind == "file" and e.is_of_model(path)]


def _leftovers(
    e: Evidence, place: str, item: Fault, state: str, crashes: Crashes
) -> Iterator[Defect]:
    known = crashes.files["old"] | crashes.files["new"]
    if strange := sorted(crashes.files[state] - known):
        yield e.defect(
            f"{place}: no file but the earlier and the new model's",
            f"left: {', '.join(strange)}",
            file=strange[0],
            rank=item.rank,
        )


def crashes_of(e: Evidence) -> Crashes:
    """The outcomes of the saves with injected faults.

    Raises:
        BlockedError: there are none.
    """
    crashes = e.observation.crashes
    if crashes is None:
        raise BlockedError("no fault was injected into a save")
    if crashes.unavailable:
        raise BlockedError(crashes.unavailable)
    return crashes


def trace_of(e: Evidence) -> FileTrace:
    """What the save did to files.

    Raises:
        BlockedError: it was not traced.
    """
    if e.case.probe == "fault_injection":
        if (trace := crashes_of(e).trace) is not None:
            return trace
        raise BlockedError("the save that was left alone was not traced")
    if e.observation.trace is None:
        raise BlockedError(e.observation.untraced or "the save was not traced")
    return e.observation.trace


def _kills(crashes: Crashes) -> tuple[Fault, ...]:
    return _some(tuple(item for item in crashes.faults if item.kind == "kill"))


def failures_of(crashes: Crashes) -> tuple[Fault, ...]:
    """The saves in which a call failed.

    Raises:
        BlockedError: there are none.
    """
    return _some(tuple(item for item in crashes.faults if item.kind != "kill"))


def _raised(crashes: Crashes) -> tuple[Fault, ...]:
    return tuple(item for item in failures_of(crashes) if item.has_raised)


def _some(faults: tuple[Fault, ...]) -> tuple[Fault, ...]:
    if not faults:
        raise BlockedError("no chosen call occurred again, so no fault could be injected")
    return faults
