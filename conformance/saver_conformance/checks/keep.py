"""KEEP: what becomes of checkpoints while training goes on, when it is cut off, and resumed."""

from __future__ import annotations

from collections.abc import Iterator

from saver_conformance.cases.case import Case
from saver_conformance.checks.evidence import BlockedError, Evidence
from saver_conformance.checks.registry import check
from saver_conformance.observation.checkpoints import Checkpoints, Cut, Moment
from saver_conformance.observation.finding import Defect


def _has_checkpoints(case: Case) -> bool:
    return case.probe == "checkpoints"


def _is_cut_off(case: Case) -> bool:
    """Whether a save is killed; what several ranks leave then is a matter of CRASH."""
    return _has_checkpoints(case) and case.world_size == 1


@check("KEEP-001", when=_has_checkpoints)
def best_stays(e: Evidence) -> Iterator[Defect]:
    """The checkpoint of the best evaluation so far is there and whole."""
    for moment in _trained(e).moments:
        if fault := moment.fault_of(moment.best):
            yield _defect(e, moment, _best(moment), fault)


@check("KEEP-002", when=_has_checkpoints)
def newest_is_whole(e: Evidence) -> Iterator[Defect]:
    """The newest checkpoint is there and has the weights of its step."""
    found = _checkpoints(e)
    if found.error:
        expected = "training goes on with checkpoints as it does without"
        yield e.defect(expected, found.error)
    for moment in found.moments:
        fault = moment.fault_of(moment.step)
        if fault and moment.step != moment.best:  # which is the best one's loss
            yield _defect(e, moment, f"the newest checkpoint, whole: {_at(moment.step)}", fault)


@check("KEEP-003", when=_is_cut_off)
def older_ones_survive_a_kill(e: Evidence) -> Iterator[Defect]:
    """Where a save was cut off, the best and the newest whole checkpoint are whole still."""
    for cut in _cuts(e):
        moment = cut.moment
        if fault := moment.fault_of(moment.best):
            yield _defect(e, moment, _best(moment), fault)
        newer = [step for step in moment.checkpoints if step > moment.step]
        fault = moment.fault_of(moment.step)
        if fault and all(moment.fault_of(step) for step in newer):
            expected = f"the newest checkpoint before, whole: {_at(moment.step)}, or a newer one"
            yield _defect(e, moment, expected, fault)


@check("KEEP-004", when=_is_cut_off)
def cut_off_is_not_found(e: Evidence) -> Iterator[Defect]:
    """Where a save was cut off, loaders find a whole checkpoint, or none."""
    for cut in _cuts(e):
        if cut.last is None:
            continue
        if fault := cut.moment.fault_of(cut.last) or cut.resume_fault:
            expected = "get_last_checkpoint finds a whole checkpoint"
            yield _defect(e, cut.moment, expected, f"{_at(cut.last)}: {fault}")


@check("KEEP-005", when=_has_checkpoints)
def files_of_others_stay(e: Evidence) -> Iterator[Defect]:
    """What lies beside the checkpoints and is none of them is left as it was."""
    told: set[str] = set()
    for moment in _trained(e).moments:
        for name in moment.foreign:
            if name not in told:
                told.add(name)
                expected = f"{moment.name}: a file that belongs to no checkpoint stays"
                found = "missing, or with other bytes"
                yield e.defect(expected, found, file=name)


@check("KEEP-006", when=_has_checkpoints)
def no_more_goes_than_must(e: Evidence) -> Iterator[Defect]:
    """As many checkpoints stay as the limit allows: the best one, and the newest."""
    found = _trained(e)
    for moment in found.moments:
        there = [step for step in moment.checkpoints if step not in (moment.best, moment.step)]
        # The loss of the best or the newest is told by clauses of their own.
        room = found.limit - len({moment.best, moment.step})
        steps = range(1, moment.step)
        wanted = [step for step in reversed(steps) if step != moment.best][:room]
        if lost := sorted(set(wanted) - set(there)):
            others = ", ".join(map(_at, wanted))
            expected = f"of {moment.step} checkpoints, {found.limit} stay, {others} among them"
            yield _defect(e, moment, expected, f"missing: {', '.join(map(_at, lost))}")


@check("KEEP-007", when=_has_checkpoints)
def resumes_bit_for_bit(e: Evidence) -> Iterator[Defect]:
    """A resumed training ends as the uninterrupted one."""
    found = _trained(e)
    if not found.resumes:
        raise BlockedError("the saver does not claim that training resumes bit for bit")
    if found.resume_fault:
        yield e.defect("the weights of the uninterrupted training", found.resume_fault)


def _checkpoints(e: Evidence) -> Checkpoints:
    """What came of the trainings with checkpoints.

    Raises:
        BlockedError: nothing did.
    """
    found = e.observation.checkpoints
    if found is None:
        raise BlockedError("no training with checkpoints was tried")
    if found.unavailable:
        raise BlockedError(found.unavailable)
    return found


def _trained(e: Evidence) -> Checkpoints:
    """As ``_checkpoints``, of a training that came to its end."""
    found = _checkpoints(e)
    if found.error:
        raise BlockedError("the training with checkpoints failed")
    return found


def _cuts(e: Evidence) -> tuple[Cut, ...]:
    found = _trained(e)
    if found.no_cuts:
        raise BlockedError(found.no_cuts)
    return found.cuts


def _best(moment: Moment) -> str:
    return f"the best checkpoint so far, whole: {_at(moment.best)}"


def _at(step: int) -> str:
    return f"checkpoint-{step}"


def _defect(e: Evidence, moment: Moment, expected: str, found: str) -> Defect:
    return e.defect(f"{moment.name}: {expected}", found)
