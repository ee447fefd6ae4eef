"""Which modules train and reload."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Workload:
    """Modules that train and reload; other ones than the default serve tests of the runner.

    Attributes:
        prepare: has ``prepare(case, folder)``, called on every rank.
        expectation: has ``read(folder)``, called by the suite.
        reload: has ``reload(case, folder)``, called in a fresh process.
        process_group: whether worlds of several ranks join a process group.
        operators: is run, as a program, before the first world of a DeepSpeed engine starts; empty
            for none.
    """

    prepare: str = "saver_conformance.workload.prepare"
    expectation: str = "saver_conformance.workload.expectation"
    reload: str = "saver_conformance.workload.reload"
    process_group: bool = True
    operators: str = "saver_conformance.processes.compile_operators"
