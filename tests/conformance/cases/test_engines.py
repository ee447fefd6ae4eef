"""Engines register themselves, and what they train is judged like everything else."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.engine_page import PAGE, make_page

from saver_conformance.cases import engines
from saver_conformance.cases.case import METHODS, MODES, Case, Mode
from saver_conformance.cases.engine import Engine
from saver_conformance.cases.limits import why_untrainable
from saver_conformance.cases.profiles import FEW_DRAWS, cases_of
from saver_conformance.cases.strategies import make_case, row_of

ROOT = Path(__file__).parents[3]

ENGINE = """
from dataclasses import replace

from saver_conformance.cases.engines.fsdp2 import FSDP2, arguments


def kept(case):
    found = arguments(case)
    return {**found, "fsdp_config": {**found["fsdp_config"], "reshard_after_forward": False}}


KEPT = replace(FSDP2, name="fsdp2-kept", place=90, text="whole until backward", arguments=kept)
"""


@pytest.fixture
def package_of_others(tmp_path: Path) -> dict[str, str]:
    """An environment in which another package has an engine of its own."""
    (tmp_path / "kept.py").write_text(ENGINE)
    record = tmp_path / "kept-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: kept\nVersion: 1.0\n")
    (record / "entry_points.txt").write_text(f"[{engines.GROUP}]\nkept = kept:KEPT\n")
    return {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}


def run(
    environment: dict[str, str], *command: str, given: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "saver_conformance", *command],
        cwd=ROOT,
        env=environment,
        input=given,
        capture_output=True,
        text=True,
    )


def test_contributing_shows_the_engine_that_is_tested() -> None:
    assert ENGINE.strip() in (ROOT / "CONTRIBUTING.md").read_text()


def test_engine_of_another_package_trains_and_is_judged(package_of_others: dict[str, str]) -> None:
    saver = "canonical_saver:save_trained_model"
    case = '{"mode": "lora-fsdp2-kept"}'
    done = run(package_of_others, "replay", "-", "--saver", saver, given=case)
    assert done.returncode == 0, done.stdout + done.stderr


def test_engine_of_another_package_is_a_mode_of_each_method(
    package_of_others: dict[str, str],
) -> None:
    done = run(package_of_others, "list", "modes")
    assert {f"{method}-fsdp2-kept" for method in METHODS} <= set(done.stdout.split())


def test_modes_are_those_that_engines_train() -> None:
    found = engines.engines()
    assert [mode.name for mode in MODES[:3]] == ["full-single", "full-ddp", "full-fsdp1"]
    assert len(MODES) == sum(len(engine.methods) for engine in found.values())
    for mode in MODES:
        assert Mode.parse(mode.name) == mode
        assert mode.definition is found[mode.engine]


def test_mode_of_a_method_that_the_engine_does_not_train_is_unavailable() -> None:
    with pytest.raises(ValueError, match="unavailable mode 'qlora-autotp': "):
        Mode.parse("qlora-autotp")


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_plainest_case_of_a_mode_needs_no_more_than_its_name(mode: Mode) -> None:
    case = Case.from_json(f'{{"mode": "{mode}"}}')
    assert why_untrainable(case) == ""
    assert case.to_short_json() == f'{{"mode": "{mode}"}}'
    assert case.world_size == mode.definition.world_sizes[0]


@pytest.mark.parametrize("engine", engines.engines().values(), ids=lambda engine: engine.name)
def test_engine_has_limits_of_axes_that_exist(engine: Engine) -> None:
    mode = Mode(engine.methods[-1], engine.name)
    axes = {*Case.__dataclass_fields__, *row_of(make_case(Mode("lora", "ddp"), {}))}
    for limit in engine.limits:
        assert {*limit.when, *limit.unless} <= axes
    assert make_case(mode, {}, world_size=3).world_size in engine.world_sizes


@pytest.mark.parametrize(
    ("engine", "size", "fits"),
    [
        ("single", 1, True),
        ("single", 2, False),
        ("ddp", 1, False),
        ("ddp", 8, True),
        ("tp", 2, True),
        ("tp", 4, False),
        ("hsdp", 2, False),
        ("fsdp2-tp", 4, True),
    ],
)
def test_takes_the_numbers_of_ranks_that_it_can_train(engine: str, size: int, fits: bool) -> None:
    assert engines.engines()[engine].takes(size) is fits
    if not fits:
        with pytest.raises(ValueError, match=f"ranks, found {size}"):
            Case(Mode("full", engine), world_size=size)


@pytest.mark.parametrize("mode", [mode for mode in MODES if not mode.definition.pairs], ids=str)
def test_engine_without_a_table_has_few_cases_before_nightly(mode: Mode) -> None:
    assert len(cases_of(mode, "smoke")) == 1
    gate = cases_of(mode, "gate")
    planned = [case for case in gate if case.result == "trained"]
    assert len(gate) <= len(planned) + 1  # one of a merged model
    first = cases_of(mode, "smoke")[0]
    assert replace(first, probe=planned[0].probe) == planned[0]
    assert (first.probe == "control_run") == (mode.method == "full")
    assert FEW_DRAWS < len(planned) <= FEW_DRAWS + 2
    assert not [case for case in planned if why_untrainable(case)]


def test_page_of_engines_is_current() -> None:
    assert PAGE.read_text() == make_page(), "run: python -m fixtures.engine_page"
