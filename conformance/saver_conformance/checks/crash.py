"""CRASH: what is left of a save that was cut off."""

from __future__ import annotations

from collections.abc import Iterator

from saver_conformance.case import Case
from saver_conformance.checks.evidence import BlockedError, Evidence
from saver_conformance.checks.registry import check
from saver_conformance.finding import Finding
from saver_conformance.observation import Crashes, Disturbance


def _is_disturbed(case: Case) -> bool:
    return case.trial == "crash"


@check("CRASH-001", when=_is_disturbed)
def leaves_no_mixture(e: Evidence) -> Iterator[Finding]:
    """After a kill a loader gets the old model, or the new one, or refuses."""
    crashes = _crashes(e)
    allowed = {crashes.models["old"], crashes.models["new"], None}
    for item in _kills(crashes):
        if crashes.models[item.state] not in allowed:
            yield e.finding(
                "CRASH-001",
                f"killed at {item.call}: the earlier model, the new one, or none loads",
                "a model loads that is neither",
            )


@check("CRASH-002", when=_is_disturbed)
def saves_after_a_kill(e: Evidence) -> Iterator[Finding]:
    """The next save in the same folder returns, and the new model loads."""
    crashes = _crashes(e)
    for item in _kills(crashes):
        expected = f"killed at {item.call}: the next save makes the model"
        if item.status != "returned":
            yield e.finding("CRASH-002", expected, f"it {item.status}: {item.detail}")
        elif crashes.models[f"{item.state}-again"] != crashes.models["new"]:
            yield e.finding("CRASH-002", expected, "another model loads, or none")


@check("CRASH-003", when=_is_disturbed)
def reports_failures(e: Evidence) -> Iterator[Finding]:
    """A save that met a failing call raises, unless it saved the model nevertheless."""
    crashes = _crashes(e)
    for item in _failures(crashes):
        expected = f"{item.kind} at {item.call}: the saver raises, or has saved the model"
        if item.status == "returned" and crashes.models[item.state] != crashes.models["new"]:
            yield e.finding("CRASH-003", expected, "it returned, and the model is not there")
        elif item.status not in ("returned", "raised"):
            yield e.finding("CRASH-003", expected, f"it {item.status}: {item.detail}")


@check("CRASH-004", when=_is_disturbed)
def keeps_the_old_model(e: Evidence) -> Iterator[Finding]:
    """Where a save raised because a call failed, the earlier model loads, or the new one."""
    crashes = _crashes(e)
    for item in _raised(crashes):
        if crashes.models[item.state] not in (crashes.models["old"], crashes.models["new"]):
            found = "no model" if crashes.models[item.state] is None else "another model"
            yield e.finding(
                "CRASH-004",
                f"{item.kind} at {item.call}: the earlier model loads, or the new one",
                f"{found} loads",
            )


@check("CRASH-005", when=_is_disturbed)
def tidies_up_after_failures(e: Evidence) -> Iterator[Finding]:
    """Where a save raised because a call failed, the folder has nothing temporary."""
    crashes = _crashes(e)
    for item in _raised(crashes):
        yield from _leftovers(e, "CRASH-005", f"{item.kind} at {item.call}", item.state, crashes)


@check("CRASH-006", when=_is_disturbed)
def tidies_up_after_kills(e: Evidence) -> Iterator[Finding]:
    """After the next save the folder has nothing of the save that was killed."""
    crashes = _crashes(e)
    for item in _kills(crashes):
        if item.status == "returned":
            place = f"killed at {item.call}, then saved again"
            yield from _leftovers(e, "CRASH-006", place, f"{item.state}-again", crashes)


def _leftovers(
    e: Evidence, clause: str, place: str, state: str, crashes: Crashes
) -> Iterator[Finding]:
    known = crashes.files["old"] | crashes.files["new"]
    if strange := sorted(crashes.files[state] - known):
        yield e.finding(
            clause,
            f"{place}: no file but the earlier and the new model's",
            f"left: {', '.join(strange)}",
            file=strange[0],
        )


def _crashes(e: Evidence) -> Crashes:
    crashes = e.observation.crashes
    if crashes is None:
        raise BlockedError("no save was disturbed")
    if crashes.unavailable:
        raise BlockedError(crashes.unavailable)
    return crashes


def _kills(crashes: Crashes) -> tuple[Disturbance, ...]:
    return _some(tuple(item for item in crashes.disturbances if item.kind == "kill"))


def _failures(crashes: Crashes) -> tuple[Disturbance, ...]:
    return _some(tuple(item for item in crashes.disturbances if item.kind != "kill"))


def _raised(crashes: Crashes) -> tuple[Disturbance, ...]:
    return tuple(item for item in _failures(crashes) if item.status == "raised")


def _some(disturbances: tuple[Disturbance, ...]) -> tuple[Disturbance, ...]:
    if not disturbances:
        raise BlockedError("no call came again when it was to be disturbed")
    return disturbances
