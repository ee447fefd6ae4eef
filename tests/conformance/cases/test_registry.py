"""Families of models and kinds of adapters register themselves, and are judged like any other."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from saver_conformance.cases import adapter_kinds, engines, families, registry
from saver_conformance.cases.axis_text import explain
from saver_conformance.cases.case import METHODS, MODES, Case, Method, Mode
from saver_conformance.cases.families import llama
from saver_conformance.cases.family import Family, Sizing
from saver_conformance.cases.limit import Limit
from saver_conformance.cases.limits import why_untrainable
from saver_conformance.cases.profiles import cases_of
from saver_conformance.cases.strategies import WIDE, is_valid, make_case, row_of
from saver_conformance.cases.visits import visitors, visits
from saver_conformance.verdict.verdict import INCONCLUSIVE

TABLES = [name for name, engine in engines.engines().items() if engine.pairs]

ROOT = Path(__file__).parents[3]

FAMILY = """
from dataclasses import replace

from saver_conformance.cases.families.llama import LLAMA, settings


def deep(size):
    return {**settings(size), "num_hidden_layers": 3}


DEEP = replace(LLAMA, name="deep-llama", place=90, text="three layers", settings=deep)
"""


@pytest.fixture
def package_of_others(tmp_path: Path) -> dict[str, str]:
    """An environment in which another package has a family of its own."""
    (tmp_path / "deep_llama.py").write_text(FAMILY)
    record = tmp_path / "deep_llama-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: deep-llama\nVersion: 1.0\n")
    (record / "entry_points.txt").write_text(f"[{families.GROUP}]\ndeep = deep_llama:DEEP\n")
    return {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}


def run(
    environment: dict[str, str], *command: str, given: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        input=given,
        capture_output=True,
        text=True,
    )


def replay(environment: dict[str, str], case: str, saver: str) -> subprocess.CompletedProcess[str]:
    command = ("-m", "saver_conformance", "replay", "-", "--saver", saver)
    return run(environment, *command, given=case)


@pytest.mark.parametrize("mode", ["full-single", "lora-fsdp2"])
def test_family_of_another_package_is_trained_saved_and_reloaded(
    package_of_others: dict[str, str], mode: str
) -> None:
    case = f'{{"mode": "{mode}", "architecture": "deep-llama"}}'
    done = replay(package_of_others, case, "canonical_saver:save_trained_model")
    assert done.returncode == 0, done.stdout + done.stderr


def test_family_whose_requirement_is_missing_is_unavailable_and_nobodys_fault(
    package_of_others: dict[str, str], tmp_path: Path
) -> None:
    needy = FAMILY.replace("place=90", 'requires=("no-such-lib>=2",), place=90')
    (tmp_path / "deep_llama.py").write_text(needy)
    case = '{"mode": "full-single", "architecture": "deep-llama"}'
    done = replay(package_of_others, case, "canonical_saver:save_trained_model")
    assert done.returncode == INCONCLUSIVE, done.stdout + done.stderr
    assert "the family deep-llama needs no-such-lib>=2, which is not installed" in " ".join(
        done.stdout.split()
    )


def test_family_of_another_package_shows_what_a_saver_loses(
    package_of_others: dict[str, str],
) -> None:
    case = '{"mode": "full-single", "architecture": "deep-llama"}'
    broken = "fixtures.mutants.families:forgets_the_base_of_the_rotation"
    done = replay(package_of_others, case, broken)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "RELOAD-006" in done.stdout


def test_family_of_another_package_is_a_value_of_its_axis(
    package_of_others: dict[str, str],
) -> None:
    done = run(package_of_others, "-m", "saver_conformance", "explain", "architecture")
    assert "deep-llama" in done.stdout
    assert "three layers" in done.stdout


def test_planning_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'peft')))\n"
        "from saver_conformance.cases.case import MODES\n"
        "from saver_conformance.cases.profiles import cases_of\n"
        "assert all(cases_of(mode, 'nightly') for mode in MODES[:1])"
    )
    done = run(dict(os.environ), "-c", code)
    assert done.returncode == 0, done.stderr


THING = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Thing:
    name: str
    place: int = 0
"""


def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, **files: str) -> Any:
    """A package in which things are registered, importable as long as the test runs."""
    folder = tmp_path / name
    folder.mkdir()
    for module, text in files.items():
        start = f"from {name} import Thing\n"
        (folder / f"{module}.py").write_text(start + text)
    (folder / "__init__.py").write_text(THING)
    monkeypatch.syspath_prepend(str(tmp_path))
    return importlib.import_module(name)


def test_load_finds_every_file_in_the_order_of_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = "A = Thing('a', 1)", "B = Thing('b')\nC = Thing('c', 2)\nOTHER = 3"
    things = package(tmp_path, monkeypatch, "things_in_order", two=second, one=first)
    assert list(registry.load(things, "no.group", things.Thing)) == ["b", "a", "c"]


def test_load_refuses_two_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    things = package(
        tmp_path, monkeypatch, "things_alike", one="A = Thing('a')", two="B = Thing('a', 1)"
    )
    with pytest.raises(ValueError, match=r"things_alike\.two: 'a' is registered already"):
        registry.load(things, "no.group", things.Thing)


def test_load_entry_point_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name, value = "odd", "odd:THING"

        def load(self) -> object:
            return 3

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point()])
    with pytest.raises(ValueError, match=r"entry point odd .*: expected a Family, found int at"):
        registry.load(families, "a.group", Family)


@pytest.mark.parametrize(
    ("limit", "values", "mode", "holds"),
    [
        (Limit("x"), {}, "", True),
        (Limit("x", modes="*-fsdp?"), {}, "full-fsdp2", True),
        (Limit("x", modes="*-fsdp?"), {}, "full-ddp", False),
        (Limit("x", modes="*-fsdp?"), {}, "", False),
        (Limit("x", when={"a": (1, 2)}), {"a": 2}, "full-ddp", True),
        (Limit("x", when={"a": (1, 2)}), {"a": 3}, "full-ddp", False),
        (Limit("x", when={"a": (1, 2)}), {}, "full-ddp", False),
        (Limit("x", when={"a": (1,), "b": (2,)}), {"a": 1}, "full-ddp", False),
        (Limit("x", unless={"a": (1,)}), {"a": 2}, "full-ddp", True),
        (Limit("x", unless={"a": (1,)}), {"a": 1}, "full-ddp", False),
        (Limit("x", unless={"a": (1,)}), {}, "full-ddp", False),
    ],
)
def test_limit_holds_where_all_its_conditions_do(
    limit: Limit, values: dict[str, int], mode: str, holds: bool
) -> None:
    assert limit.holds(values, mode) is holds


@pytest.mark.parametrize("name", families.names())
def test_family_has_limits_of_axes_that_exist(name: str) -> None:
    family = families.families()[name]
    axes = {*Case.__dataclass_fields__, *row_of(make_case(Mode("lora", "ddp"), {}))}
    for limit in family.limits:
        assert {*limit.when, *limit.unless} <= axes
    assert set(family.attention) <= set(family.linear)
    assert family.linear != family.attention or name == "modernbert"
    assert name in explain("architecture")


@pytest.mark.parametrize("name", adapter_kinds.names())
def test_adapter_kind_has_limits_of_axes_that_exist(name: str) -> None:
    kind = adapter_kinds.adapter_kinds()[name]
    axes = {*Case.__dataclass_fields__, *row_of(make_case(Mode("lora", "ddp"), {}))}
    for limit in kind.limits:
        assert {*limit.when, *limit.unless} <= axes
    assert name in explain("kind")


@pytest.mark.parametrize("method", METHODS)
def test_visits_every_family_and_kind_meets_engines_of_each_method(method: Method) -> None:
    planned = [case for mode in MODES if mode.method == method for case in visits(mode)]
    met: Counter[tuple[str, str]] = Counter()
    for case in planned:
        assert why_untrainable(case) == ""
        row = row_of(case)
        met.update((axis, row[axis]) for axis in WIDE if axis in row)
    for axis, name in visitors(method):
        able = any(is_valid({axis: name}, Mode(method, engine)) for engine in TABLES)
        assert (met[axis, name] >= 1) == able, f"{method} cases with {axis} {name}"
    assert len(planned) <= 70
    assert len(set(planned)) == len(planned)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode.engine in TABLES], ids=str)
def test_visits_are_in_the_gate(mode: Mode) -> None:
    assert set(visits(mode)) <= set(cases_of(mode, "gate"))


def test_settings_of_a_tiny_model_are_not_the_defaults() -> None:
    import transformers

    found = llama.settings(Sizing(64))["rope_parameters"]
    assert found["rope_theta"] != transformers.LlamaConfig().rope_parameters["rope_theta"]
