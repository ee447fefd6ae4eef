"""A workload without a framework: what the ranks and the suite need of one, in milliseconds."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

from saver_conformance.cases.case import Case
from saver_conformance.errors import Unavailable
from saver_conformance.observation.observation import Expectation, Reload


def prepare(case: Case, folder: Path) -> SimpleNamespace:
    if case.seed == 404:
        raise Unavailable("the fake library is not installed")
    if case.seed == 500:
        raise RuntimeError("the fake workload is broken")
    out = folder / "out"
    out.mkdir(parents=True, exist_ok=True)
    return SimpleNamespace(
        cfg=SimpleNamespace(output_dir=str(out), architecture=case.architecture),
        trainer=None,
        model=None,
        look=dict,
        close=lambda: None,
    )


def read(folder: Path) -> Expectation:
    assert folder.is_dir()
    return Expectation(tensors={})


def reload(case: Case, folder: Path) -> Reload:
    if case.seed == 600:
        time.sleep(600)
    if case.seed == 601:
        os._exit(9)
    return Reload(class_name=case.architecture)
