"""A conformance run, in the order things happen: plan, train and check, conclude, report."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from saver_conformance.cases.case import MODES, Case, Mode
from saver_conformance.cases.limits import why_untrainable
from saver_conformance.cases.profiles import Profile, cases_of, in_order
from saver_conformance.cases.shards import Shard, case_set, split
from saver_conformance.claims.claim import Claim, claimed_modes
from saver_conformance.claims.known_savers import check_address, find_claim
from saver_conformance.errors import HarnessFailedError, ShardError
from saver_conformance.execution.case_readers import CaseReaders
from saver_conformance.execution.case_runner import CaseRunner
from saver_conformance.execution.conclude import Terms, conclude
from saver_conformance.execution.explore import Exploration
from saver_conformance.execution.kept_output import KeptOutput
from saver_conformance.execution.pipeline import Pipeline
from saver_conformance.execution.progress import Progress, Silent
from saver_conformance.execution.workload import Workload
from saver_conformance.processes.fault_injection import CRASH_POINTS
from saver_conformance.processes.output_lines import Listener
from saver_conformance.processes.world import SAVE_LIMIT
from saver_conformance.readers.registry import choose
from saver_conformance.reports.report_folder import prepare
from saver_conformance.reports.report_json import write_report
from saver_conformance.spec import SPEC
from saver_conformance.verdict.verdict import CaseRecord, Pace, Verdict
from saver_conformance.verdict.waivers import Waiver, check_waivers, pairs_of


class RunInterruptedError(KeyboardInterrupt):
    """A signal ended the run; what was found until then is the verdict.

    Attributes:
        verdict: the verdict, marked as interrupted.
    """

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(f"interrupted after {verdict.executed} of {verdict.expected} cases")
        self.verdict = verdict


REFERENCE = "canonical_saver:save_trained_model"
"""Address of the saver that is judged when no other is named."""


def run_conformance(
    saver: str = REFERENCE,
    *,
    modes: Iterable[Mode] = MODES,
    profile: Profile = "gate",
    report: Path | None = None,
    save_limit: float = SAVE_LIMIT,
    crash_points: int = CRASH_POINTS,
    seconds: float | None = None,
    progress: Progress | None = None,
    workload: Workload | None = None,
    waivers: Sequence[Waiver] = (),
    claims: Claim | None = None,
    savers_dir: Path | None = None,
    readers: Sequence[str] | None = None,
    shard: Shard | None = None,
) -> Verdict:
    """Judge a saver.

    Args:
        saver: its address, ``package.module:function``, or its name; the current folder is
            importable.
        modes: the modes that are requested; those that the saver does not claim are left out.
        profile: which cases are tried.
        report: folder for ``report.json`` and the cases that failed; None writes nothing.
        save_limit: seconds after which a save counts as hanging.
        crash_points: system calls at which a save is killed, in the cases that do so.
        seconds: how long ``explore`` draws; None: until Ctrl-C or the first broken MUST.
        progress: reports how the run progresses.
        workload: what trains and reloads.
        waivers: clauses that are known to be broken.
        claims: what the saver claims, in place of what it says itself; see ``claims_file``.
        savers_dir: folder of the savers that have names; see ``known_savers``.
        readers: names of readers that read some of the folders, see ``readers.registry``, or groups
            of them; with none of them the area ``PORTABLE`` is judged by the files alone. None
            leaves the area out.
        shard: the part of the plan to run; None runs all of it.

    Raises:
        UnknownSaverError: there is no such saver.
        ReaderError: there is no such reader.
        ShardError: the plan has fewer cases than shards, or the profile has no plan.
        WaiverFileError: a waiver is about a clause or a mode that does not exist.
        ReportFolderError: the report could not be written.
        HarnessFailedError: nothing can be judged here, or nothing more; the report is written as
            far as the run has come.
        RunInterruptedError: a KeyboardInterrupt ended the run before its last case; the report is
            written as far as the run has come. It is the way to end ``explore``, which returns.
    """
    started = time.monotonic()
    check_waivers(waivers)
    claim = _find(saver, claims, savers_dir)
    if report is not None:
        prepare(report)
    claimed = claimed_modes(claim, tuple(modes))
    progress = progress or Silent()
    planned = plan(claim, claimed, profile)
    own = planned if shard is None else part_of(planned, shard, profile)
    with CaseRunner(
        claim.address,
        workload=workload,
        save_limit=save_limit,
        crash_points=crash_points,
        progress=progress,
        readers=None if readers is None else CaseReaders(choose(readers), planned),
        checkpoints=claim.checkpoints,
    ) as runner:
        smallest, interrupted, failure = None, False, None
        if profile == "explore":
            records, smallest = _explore(runner, claim, claimed, seconds, progress, waivers)
            paces: tuple[Pace, ...] = ()
        else:
            records, pipeline = _run_planned(runner, own, progress)
            paces, interrupted = pipeline.paces, pipeline.interrupted
            failure = pipeline.failure
    terms = Terms(
        *(saver, claim.address, profile, claimed, claim.unclaimed, tuple(waivers)),
        case_set=case_set(planned) if planned else "",
        shard=shard,
    )
    verdict = conclude(
        *(terms, records, paces, time.monotonic() - started),
        smallest=smallest,
        interrupted=interrupted,
    )
    if report is not None:
        write_report(verdict, report)
    if failure is not None:
        found = f"\nwhat was checked until then is in {report}" if report is not None else ""
        raise HarnessFailedError(f"{failure}{found}") from failure
    if interrupted:
        raise RunInterruptedError(verdict)
    return verdict


def replay(
    case: Case,
    saver: str = REFERENCE,
    *,
    save_limit: float = SAVE_LIMIT,
    crash_points: int = CRASH_POINTS,
    workload: Workload | None = None,
    waivers: Sequence[Waiver] = (),
    claims: Claim | None = None,
    progress: Progress | None = None,
    listen: Listener | None = None,
    keep: Path | None = None,
    savers_dir: Path | None = None,
) -> Verdict:
    """Judge a saver by one case; raises as ``run_conformance`` does.

    Args:
        case: the case.
        saver: its address or name.
        save_limit: seconds after which a save counts as hanging.
        crash_points: system calls at which a save is killed, if the case asks for it.
        workload: what trains and reloads.
        waivers: clauses that are known to be broken.
        claims: what the saver claims.
        progress: reports how the run progresses.
        listen: called with each line that a rank prints while it saves.
        keep: a folder, new or empty, for copies of the output folder before and after the save.
        savers_dir: folder of the savers that have names.

    Raises:
        KeepError: no copies can be kept there.

    Examples:
        >>> case = Case(Mode.parse("full-single"), existing_save="single")
        >>> verdict = replay(case, "saver_conformance.getting_started.stale_saver:save")
        >>> "FILES-005" in {row.clause for row in verdict.rows if row.status == "fail"}
        True
    """
    started = time.monotonic()
    check_waivers(waivers)
    claim = _find(saver, claims, savers_dir)
    progress = progress or Silent()
    with CaseRunner(
        claim.address,
        workload=workload,
        save_limit=save_limit,
        crash_points=crash_points,
        progress=progress,
        listen=listen,
        keep=KeptOutput(keep) if keep else None,
        checkpoints=claim.checkpoints,
    ) as runner:
        records, pipeline = _run_planned(runner, (case,), progress)
    terms = Terms(
        *(saver, claim.address, "replay", (case.mode,), claim.unclaimed, tuple(waivers)),
        case_set=case_set([case]),
    )
    verdict = conclude(
        *(terms, records, pipeline.paces, time.monotonic() - started),
        interrupted=pipeline.interrupted,
    )
    if pipeline.interrupted:
        raise RunInterruptedError(verdict)
    return verdict


def plan(claim: Claim, modes: Sequence[Mode], profile: Profile) -> tuple[Case, ...]:
    """The cases of a run in their order; none for ``explore``, which plans nothing.

    A saver may claim nothing that an engine can train.
    """
    every = [case for mode in modes for case in cases_of(mode, profile, modes)]
    fitting = dict.fromkeys(claim.fit(case) for case in every if claim.takes(case))
    return in_order([case for case in fitting if not why_untrainable(case)], profile)


def part_of(planned: Sequence[Case], shard: Shard, profile: Profile) -> tuple[Case, ...]:
    """The cases of one part of a plan.

    Raises:
        ShardError: the plan has fewer cases than parts, or the profile has no plan.
    """
    if profile == "explore":
        raise ShardError("the profile explore has no plan that could be split into shards")
    try:
        return split(planned, shard.of)[shard.number - 1]
    except ValueError as error:
        raise ShardError(str(error)) from error


def _find(saver: str, claims: Claim | None, savers_dir: Path | None) -> Claim:
    claim = find_claim(saver, Path.cwd(), savers_dir).claiming(claims)
    check_address(claim.address, Path.cwd())
    return claim


def _run_planned(
    runner: CaseRunner, planned: Sequence[Case], progress: Progress
) -> tuple[tuple[CaseRecord, ...], Pipeline]:
    progress.plan(len(planned))
    pipeline = Pipeline(runner, progress)
    return pipeline.run(planned), pipeline


def _explore(
    runner: CaseRunner,
    claim: Claim,
    modes: Sequence[Mode],
    seconds: float | None,
    progress: Progress,
    waivers: Sequence[Waiver],
) -> tuple[tuple[CaseRecord, ...], Case | None]:
    def judge_one(case: Case) -> CaseRecord:
        case = claim.fit(case)
        progress.train(case)
        record = runner.run(case)
        progress.finish(record)
        return record

    progress.plan(0)
    waived = pairs_of(waivers)
    waived |= {(clause, mode.name) for clause in SPEC if claim.leaves_out(clause) for mode in modes}
    exploration = Exploration(judge_one, modes, waived)
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        exploration.run(seconds)
    smallest = exploration.smallest
    return tuple(exploration.records.values()), claim.fit(smallest) if smallest else None
