"""Cases: every pair of values is tried, draws make sense, and both are the same everywhere."""

from __future__ import annotations

from itertools import combinations, pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saver_conformance.cases import engines
from saver_conformance.cases.case import MODES, Adapter, Case, Mode, WorldKey
from saver_conformance.cases.class_names import causal_lm_class_names, one_for_each_letter
from saver_conformance.cases.coverage import NO_COMPLETION, measure
from saver_conformance.cases.pairwise import cover_pairs
from saver_conformance.cases.profiles import FEWER_RANKS_MODES, cases_of, in_order
from saver_conformance.cases.strategies import (
    adapters,
    all_axes,
    axes_of,
    cases,
    is_valid,
    make_case,
    row_of,
)
from saver_conformance.cases.tables import pairs_of

TABLES = [mode for mode in MODES if mode.definition.pairs]
"""The modes that the gate has a table of all pairs for."""


@given(st.lists(st.integers(1, 4), min_size=2, max_size=4))
def test_every_pair_of_values_stands_in_some_row(sizes: list[int]) -> None:
    axes = {str(axis): tuple(range(size)) for axis, size in enumerate(sizes)}
    table = cover_pairs(axes)
    for first, second in combinations(axes, 2):
        seen = {(row[first], row[second]) for row in table.rows}
        assert seen == set(product(axes[first], axes[second]))
    assert table.covered == table.possible


def test_impossible_pairs_are_left_out() -> None:
    axes = {"a": (0, 1), "b": (0, 1), "c": (0, 1)}
    table = cover_pairs(axes, lambda row: not (row.get("a") and row.get("b")))
    assert not any(row["a"] and row["b"] for row in table.rows)
    assert table.covered == table.possible == 3 * 4 - 1


def test_the_first_row_is_the_simplest() -> None:
    assert cover_pairs({"a": (0, 1), "b": (0, 1)}).rows[0] == {"a": 0, "b": 0}


@pytest.mark.parametrize("mode", TABLES, ids=str)
def test_the_gate_covers_all_pairs_of_a_mode(mode: Mode) -> None:
    table = pairs_of(mode)
    assert table.covered == table.possible
    planned = cases_of(mode, "gate")
    rows = {tuple(row.items()) for row in table.rows}
    for engine in engines.sharing_a_table(mode.engine) or (mode.engine,):
        dealt = [row_of(case) for case in cases_of(Mode(mode.method, engine), "gate")]
        rows -= {tuple((axis, row[axis]) for axis in table.axes) for row in dealt}
    assert not rows
    assert planned == cases_of(mode, "gate")
    assert len(planned) <= 66
    for case in planned:
        assert Case.from_json(case.to_json()) == case


@pytest.mark.parametrize("mode", TABLES, ids=str)
def test_the_gate_meets_every_value_of_every_axis(mode: Mode) -> None:
    sharing = engines.sharing_a_table(mode.engine) or (mode.engine,)
    rows = [row_of(case) for e in sharing for case in cases_of(Mode(mode.method, e), "gate")]
    for name, values in axes_of(mode).items():
        assert {row[name] for row in rows} >= set(values)


def test_smoke_tries_every_mode_with_few_cases() -> None:
    for mode in MODES:
        assert 1 <= len(cases_of(mode, "smoke")) <= 3
        assert {case.mode for case in cases_of(mode, "smoke")} == {mode}


def test_smoke_visits_what_the_gate_does() -> None:
    for mode in TABLES:
        sharing = engines.sharing_a_table(mode.engine) or (mode.engine,)
        planned = [case for e in sharing for case in cases_of(Mode(mode.method, e), "smoke")]
        assert {case.vocabulary for case in planned} == {"same", "resized"}
        assert {case.wrapper for case in planned} >= {"checkpointing", "compile"}
        assert mode.method == "qlora" or "none" in {case.wrapper for case in planned}
        controlled = mode.method == "full" or (mode.method == "lora" and mode.definition.shards)
        assert ("control_run" in {case.probe for case in planned}) == controlled
        assert {case.architecture for case in planned} >= {"custom"}
        assert {case.existing_save for case in planned} >= {"another"}
        assert mode.engine == "single" or {case.nodes for case in planned} == {1, 2}
        assert not mode.is_adapter or {case.model_argument for case in planned} == {
            "trained",
            "base",
        }


@pytest.mark.parametrize("mode", TABLES, ids=str)
def test_the_gate_visits_worlds_of_several_shapes_and_sequences(mode: Mode) -> None:
    planned = cases_of(mode, "gate")
    last, *more = [case for case in planned if case.after]
    assert [case.mode.name for case in more] == (
        [mode.name] if mode.name in FEWER_RANKS_MODES else []
    )
    assert last.after
    assert last.after.after
    assert last.mode == last.after.mode != last.after.after.mode
    if mode.engine == "single":
        return
    assert {(2, 1), (3, 2)} <= {(case.world_size, case.nodes) for case in planned}
    if mode.engine in ("fsdp1", "fsdp2", "zero3"):
        four = [case for case in planned if case.world_size == 4]
        assert [case.replicas for case in four if case.probe != "memory"] == [
            2 if mode.engine == "fsdp2" else 1
        ]
        watched = [case.replicas for case in four if case.probe == "memory"]
        assert watched == ([1] if mode.method == "full" else [])


@pytest.mark.parametrize("mode", TABLES, ids=str)
def test_the_gate_covers_every_reachable_pair(mode: Mode) -> None:
    sharing = engines.sharing_a_table(mode.engine) or (mode.engine,)
    cases = [case for e in sharing for case in cases_of(Mode(mode.method, e), "gate")]
    whole = measure([mode], cases)
    assert whole.covered == whole.possible == pairs_of(mode).possible
    part = measure([mode], cases_of(mode, "gate")[:1])
    axes = len(pairs_of(mode).axes)
    assert part.covered == axes * (axes - 1) // 2
    assert NO_COMPLETION not in whole.unreachable


def test_pairs_that_no_case_has_are_counted_by_reason() -> None:
    mode = Mode("lora", "fsdp1")
    counted = measure([mode], ())
    axes = all_axes(mode)
    pairs = sum(len(axes[a]) * len(axes[b]) for a, b in combinations(axes, 2))
    assert counted.possible + sum(counted.unreachable.values()) == pairs
    assert any("one dtype" in reason for reason in counted.unreachable)


@pytest.mark.parametrize("name", FEWER_RANKS_MODES)
def test_survey_and_gate_save_over_a_save_of_more_ranks(name: str) -> None:
    for profile in ("survey", "gate"):
        planned = cases_of(Mode.parse(name), profile)  # type: ignore[arg-type]
        [case] = [one for one in planned if one.after and one.after.after is None]
        assert case.after
        assert (case.after.world_size, case.world_size) == (3, 2)
        assert case.after.mode == case.mode
        assert case.after.seed != case.seed


def test_explore_plans_nothing() -> None:
    assert cases_of(MODES[0], "explore") == ()


@pytest.mark.slow
@given(cases())
def test_drawn_cases_travel_as_json(case: Case) -> None:
    assert Case.from_json(case.to_json()) == case
    if case.architecture == "llama-tied" and case.adapter:
        assert not case.adapter.modules_to_save


@pytest.mark.slow
@given(cases(earlier=2, probes=True))
def test_drawn_sequences_travel_as_json(case: Case) -> None:
    assert Case.from_json(case.to_json()) == case
    if case.after:
        assert case.after.mode.engine == case.mode.engine
        assert (case.existing_save, case.foreign_files) == ("empty", "none")


@given(cases(nodes=1))
def test_a_case_is_made_of_its_values(case: Case) -> None:
    again = make_case(
        case.mode,
        row_of(case),
        world_size=case.world_size,
        replicas=case.replicas,
        seed=case.seed,
    )
    assert again == case


@given(cases(Mode("lora", "fsdp2"), world_size=3))
def test_draws_keep_to_the_mode_and_the_world_size(case: Case) -> None:
    assert case.mode == Mode("lora", "fsdp2")
    assert case.world_size == 3


@given(adapters("phi3"))
def test_adapters_target_layers_that_exist(adapter: Adapter) -> None:
    linears = {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}
    assert set(adapter.targets) <= linears | {"embed_tokens"}


def test_the_simplest_value_goes_with_everything() -> None:
    for mode in MODES:
        for name, values in axes_of(mode).items():
            for value in values:
                assert is_valid({name: value}, mode), (mode, name, value)
                make_case(mode, {name: value})


def test_class_names_are_those_of_the_library() -> None:
    pytest.importorskip("transformers")
    names = causal_lm_class_names()
    assert {"LlamaForCausalLM", "FalconForCausalLM"} <= set(names)
    assert [name[0] for name in one_for_each_letter("FSDP")] == list("FSDP")


def test_neighbours_share_a_world() -> None:
    ordered = in_order(case for mode in MODES for case in cases_of(mode, "smoke"))
    keys = [WorldKey.of(case.mode, case.world_size, case.nodes) for case in ordered]
    changes = sum(before != after for before, after in pairwise(keys))
    assert changes == len(set(keys)) - 1
