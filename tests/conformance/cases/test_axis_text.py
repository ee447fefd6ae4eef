"""The words of the axes: none is missing, and only what is unusual is told."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from saver_conformance.cases import strategies
from saver_conformance.cases.axis_text import AXES, explain, unusual
from saver_conformance.cases.case import MODES, Adapter, Case, Mode
from saver_conformance.cases.profiles import cases_of

LORA = Mode("lora", "ddp")


def words(case: Case) -> tuple[str, ...]:
    return unusual(json.loads(case.to_json()))


def test_axes_every_field_has_words() -> None:
    assert set(AXES) == {item.name for kind in (Case, Adapter) for item in fields(kind)}


def named_values() -> list[tuple[str, Any]]:
    """Every value that a table can list, by the types of the fields and by the axes' tables."""
    found: list[tuple[str, Any]] = []
    for kind in (Case, Adapter):
        for name, hint in get_type_hints(kind).items():
            if get_origin(hint) is Literal:
                found += [(name, value) for value in get_args(hint)]
            elif hint is bool:
                found += [(name, False), (name, True)]
    return found


@pytest.mark.parametrize(("name", "value"), named_values(), ids=str)
def test_axes_every_named_value_has_words(name: str, value: Any) -> None:
    spelled = value if isinstance(value, str) else json.dumps(value)
    assert AXES[name].values[spelled]
    assert spelled in explain(name)


@pytest.mark.parametrize("name", [*strategies.AXES, *strategies.ADAPTER_AXES])
def test_axes_values_of_the_strategies_have_words(name: str) -> None:
    for value in {**strategies.AXES, **strategies.ADAPTER_AXES}[name]:
        spelled = value if isinstance(value, str) else json.dumps(value)
        assert spelled in AXES[name].values or AXES[name].other


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_unusual_plainest_case_says_nothing(mode: Mode) -> None:
    plainest = Case.from_json(json.dumps({"mode": mode.name}))
    assert words(plainest) == ()
    assert words(replace(plainest, seed=7)) == ()


def test_unusual_names_value_and_meaning() -> None:
    case = Case(LORA, adapter=Adapter(names=("a", "b")), world_size=2, model_argument="base")
    told = words(case)
    assert [line.partition(" ")[0].rstrip(":") for line in told] == ["names", "model_argument"]
    assert "a, b" in told[0]
    assert "trainer.model" in told[1]


def test_unusual_tells_saves_before() -> None:
    earlier = Case(Mode("full", "ddp"), world_size=2, dtype="mixed")
    [told] = words(Case(LORA, adapter=Adapter(), world_size=2, after=earlier))
    assert "full-ddp (dtype mixed: " in told


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"mode": "x", "new_axis": "\x1b[2J"},
        {"adapter": [], "after": 3, "architecture": "a" * 10_000},
        {"adapter": {"targets": {"a": 1}}, "existing_save": None, "tie": ["x"], "after": {}},
    ],
)
def test_unusual_other_content_is_told_as_it_is(plain: dict[str, Any]) -> None:
    told = unusual(plain)
    assert all(len(line) < 400 for line in told)
    assert any("new_axis" in line for line in told) == ("new_axis" in plain)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_short_json_is_the_case(mode: Mode) -> None:
    for case in cases_of(mode, "smoke"):
        short = json.loads(case.to_short_json())
        assert Case.from_json(case.to_short_json()) == case
        usual = json.loads(Case.from_json(json.dumps({"mode": mode.name})).to_json())
        assert all(short[name] != usual[name] for name in short if name != "mode")
