"""Hypothesis strategies for cases, for this suite and for tests of one's own.

Every axis lists its simplest value first, which is where shrinking ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from hypothesis import strategies as st

from saver_conformance.cases.adapter_kinds import adapter_kinds
from saver_conformance.cases.case import MODES, Adapter, Architecture, Case, Mode, Probe
from saver_conformance.cases.class_names import causal_lm_class_names, one_for_each_letter
from saver_conformance.cases.engine import WORLD_SIZES
from saver_conformance.cases.families import families
from saver_conformance.cases.limits import limited, why_untrainable
from saver_conformance.cases.method import Method

AXES: Mapping[str, Sequence[Any]] = {
    "architecture": tuple(name for name, family in families().items() if family.pairs),
    "sizes": ("even", "odd"),
    "dtype": ("float32", "bfloat16", "mixed"),
    "max_shard_size": (None, 20_000, 4_000),
    "tokenizer": ("plain", "chat"),
    "special_values": (False, True),
    "views": (False, True),
    "existing_save": ("empty", "single", "sharded", "adapter", "another"),
    "foreign_files": ("none", "strangers", "readonly", "processor"),
    "vocabulary": ("same", "resized"),
    "wrapper": ("none", "checkpointing", "compile", "regional"),
}
"""The axes of every case and their values, the simplest first."""

ADAPTER_AXES: Mapping[str, Sequence[Any]] = {
    "r": (4, 1, 7),
    "targets": ("attention", "all", "embeddings"),
    "modules_to_save": ((), ("lm_head",), ("embed_tokens", "lm_head")),
    "bias": ("none", "all", "lora_only"),
    "dora": (False, True),
    "names": (("default",), ("style",), ("default", "style")),
    "kind": tuple(name for name, kind in adapter_kinds().items() if kind.pairs),
}
"""The axes of an adapter; ``targets`` is a selection, resolved for each architecture."""

ONLY_FULL = ("tie", "generation", "class_name")
"""Axes of cases that train the whole model."""

WIDE: Mapping[str, Sequence[Any]] = {
    "architecture": tuple(families()),
    "kind": tuple(adapter_kinds()),
}
"""Axes with more values than a table of all pairs has room for in ``gate``: all their values."""

UNPAIRED: Mapping[Method, frozenset[str]] = {
    "qlora": frozenset(
        {"max_shard_size", "tokenizer", "existing_save", "foreign_files", "model_argument"}
    )
}
"""Axes that take their values in turns in the gate's table of a method, and have no pairs in it.

A base of 4 bits changes neither what lies in the folder nor what is saved beside the adapter, and
``lora`` has these pairs on the same engine.
"""

NODES = (1, 2)
"""Numbers of machines that the ranks are spread over, the simplest first."""

ORDINARY = 9
"""Draws without a probe for one with each: a probe makes many saves."""

LARGEST_SEED = 99
"""Seeds are small, so that a case stays easy to read."""


@cache
def axes_of(mode: Mode, *, wide: bool = False) -> Mapping[str, Sequence[Any]]:
    """The axes of ``mode``'s cases, with the values that its engine can train.

    Args:
        mode: the mode.
        wide: whether with every family and kind of adapter.
    """
    axes = all_axes(mode, wide=wide)
    return {
        name: tuple(
            value
            for value in values
            if not why_untrainable(make_case(mode, with_family({name: value})))
        )
        for name, values in axes.items()
    }


def paired(axes: Mapping[str, Sequence[Any]], mode: Mode) -> dict[str, Sequence[Any]]:
    """Those of ``axes`` that the gate has all pairs of in ``mode``."""
    unpaired = UNPAIRED.get(mode.method, frozenset())
    return {name: values for name, values in axes.items() if name not in unpaired}


def make_case(
    mode: Mode,
    values: Mapping[str, Any],
    *,
    world_size: int = 2,
    nodes: int = 1,
    replicas: int = 1,
    seed: int = 0,
) -> Case:
    """The case with ``values`` on the axes; an axis that is not named takes its simplest value.

    ``world_size``, ``nodes`` and ``replicas`` are those of the engines that take them; another one
    has its simplest. ``values`` may name them too, and ``probe``, ``after``, ``setting``,
    ``result`` and ``disks``: they are no axes, because the profiles plan them apart.
    """
    row = {name: values.get(name, options[0]) for name, options in all_axes(mode).items()}
    row |= {"probe": values.get("probe", "none"), "after": values.get("after")}
    row |= {"setting": values.get("setting", "usual"), "result": values.get("result", "trained")}
    row |= {"disks": values.get("disks", "shared")}
    size, spread = values.get("world_size", world_size), values.get("nodes", nodes)
    return _case(mode, row, size, spread, values.get("replicas", replicas), seed)


def all_axes(mode: Mode, *, wide: bool = False) -> dict[str, Sequence[Any]]:
    """The axes of ``mode``'s cases, with the values that its engine cannot train too."""
    axes = {**AXES, **(ADAPTER_AXES if mode.is_adapter else {})}
    if not mode.is_adapter:
        # Removing a prefix is easily confused with removing any of its letters.
        axes["tie"] = ("declared", "contrary")
        axes["generation"] = ("sampling", "contradictory")
        axes["class_name"] = ("", *one_for_each_letter("FSDP"))
    if mode.is_adapter:
        axes["model_argument"] = ("trained", "base")
    if wide:
        axes |= {name: WIDE[name] for name in axes if name in WIDE}
    others = {*AXES, *ADAPTER_AXES, *ONLY_FULL}.difference(axes)
    return axes | {k: v for k, v in mode.definition.axes.items() if k not in others}


def _case(
    mode: Mode,
    row: Mapping[str, Any],
    world_size: int = 2,
    nodes: int = 1,
    replicas: int = 1,
    seed: int = 0,
) -> Case:
    shape = {name: value for name, value in row.items() if name in ADAPTER_AXES}
    plain = {name: value for name, value in row.items() if name not in ADAPTER_AXES}
    adapter = _adapter(row["architecture"], shape) if mode.is_adapter else None
    engine = mode.definition
    if not engine.takes(world_size):
        world_size = engine.world_sizes[0]
    nodes = min(nodes, world_size)
    if replicas not in (fitting := engine.replicas_on(world_size)):
        replicas = fitting[0]
    plain |= {"world_size": world_size, "nodes": nodes, "replicas": replicas, "seed": seed}
    return Case(mode, adapter=adapter, **plain)


def row_of(case: Case) -> dict[str, Any]:
    """The values of ``case`` on the axes of its mode; what ``make_case`` was given."""
    row = {
        name: getattr(case.adapter if name in ADAPTER_AXES else case, name)
        for name in all_axes(case.mode)
        if name != "targets"
    }
    if case.adapter is not None:
        row["targets"] = case.family.selection_of(case.adapter.targets)
    return row


def _adapter(architecture: Architecture, shape: Mapping[str, Any]) -> Adapter:
    targets = families()[architecture].selections[shape["targets"]]
    return Adapter(alpha=2 * shape["r"], **{**shape, "targets": targets})


def why_invalid(values: Mapping[str, Any], mode: Mode | None = None) -> str:
    """Why no case has ``values`` on some of the axes; empty when one has, and ``mode`` trains it.

    The simplest value of an axis goes with everything, so a part of the axes is enough to tell.
    """
    family = families().get(values.get("architecture", ""))
    if values.get("views") and family and not family.views:
        return f"{family.name} has no buffers that could share a storage"
    kind = adapter_kinds().get(values.get("kind", ""))
    if why := limited(values, mode, family, kind):
        return why
    trained = values.get("modules_to_save") or ()
    if values.get("targets") == "embeddings" and "embed_tokens" in trained:
        return "a module is adapted or trained whole"
    if len(values.get("names") or ()) > 1 and values.get("bias", "none") != "none":
        return "PEFT trains biases where there is one adapter only (peft/tuners/lora/model.py)"
    return "" if mode is None else why_untrainable(make_case(mode, with_family(values)))


def with_family(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """``values`` with the simplest family that the kind of adapter fits, where none is named."""
    kind = adapter_kinds().get(values.get("kind", ""))
    if "architecture" in values or kind is None or not kind.needs:
        return values
    able = (name for name, family in families().items() if getattr(family, kind.needs))
    return {**values, "architecture": next(able)}


def fitting(row: Mapping[str, Any], mode: Mode) -> dict[str, Any]:
    """The values of ``row`` that ``mode`` can have and train together, the first ones first."""
    axes = {**all_axes(mode, wide=True), "probe": ("none", "control_run", "file_trace")}
    found: dict[str, Any] = {}
    for name, value in row.items():
        if value in axes.get(name, ()) and is_valid({**found, name: value}, mode):
            found[name] = value
    return found


def is_valid(values: Mapping[str, Any], mode: Mode | None = None) -> bool:
    """Whether a case with ``values`` on some of the axes makes sense, and ``mode`` can train it."""
    return not why_invalid(values, mode)


@st.composite
def adapters(draw: st.DrawFn, architecture: Architecture = "llama") -> Adapter:
    """Draw the shape of an adapter for a model of ``architecture``."""
    shape: dict[str, Any] = {}
    for name, values in ADAPTER_AXES.items():
        values = WIDE.get(name, values)
        known = {"architecture": architecture, **shape}
        fitting = [value for value in values if is_valid({**known, name: value})]
        shape[name] = draw(st.sampled_from(fitting))
    return _adapter(architecture, shape)


@st.composite
def cases(
    draw: st.DrawFn,
    mode: Mode | None = None,
    world_size: int | None = None,
    nodes: int | None = None,
    *,
    earlier: int = 0,
    probes: bool = False,
) -> Case:
    """Draw a case that can be trained, of ``mode`` or of any.

    Args:
        draw: given by Hypothesis.
        mode: the mode, an object or None for all.
        world_size: number of ranks of the modes that have several; None for any.
        nodes: number of machines that they are spread over; None for any.
        earlier: how many saves into the same folder may come before it.
        probes: whether more than one save may be made of it.

    Examples:
        >>> from hypothesis import given
        >>> @given(cases(Mode("full", "single")))
        ... def test_a_case_survives_its_journey(case):
        ...     assert Case.from_json(case.to_json()) == case
    """
    chosen = draw(st.sampled_from(MODES)) if mode is None else mode
    row: dict[str, Any] = {}
    for name, values in axes_of(chosen, wide=True).items():
        if name == "class_name":
            values = ("", *causal_lm_class_names())
        # The same draws whatever came out before, so that shrinking can change one value alone.
        value = draw(st.sampled_from(values))
        row[name] = value if is_valid({**row, name: value}, chosen) else values[0]
    if probes:
        row["probe"] = draw(st.sampled_from((*["none"] * ORDINARY, *_probes(chosen))))
    seed = draw(st.integers(0, LARGEST_SEED))
    engine = chosen.definition
    sizes = WORLD_SIZES if engine.world_sizes == (1,) else engine.world_sizes
    size = draw(st.sampled_from(sizes)) if world_size is None else world_size
    spread = draw(st.sampled_from(NODES)) if nodes is None else nodes
    fitting = engine.replicas_on(size) or engine.replicas
    replicas = draw(st.sampled_from(fitting))
    case = make_case(chosen, row, world_size=size, nodes=spread, replicas=replicas, seed=seed)
    # Last, and drawn in any case, so that shrinking leaves it out without a change to the rest.
    first = not draw(st.integers(0, earlier))
    if first or (case.existing_save, case.foreign_files) != ("empty", "none"):
        return case
    before = Mode(draw(st.sampled_from(engine.methods)), chosen.engine)
    return replace(case, after=draw(cases(before, size, spread, earlier=earlier - 1)))


def _probes(mode: Mode) -> tuple[Probe, ...]:
    return (
        ("control_run", "fault_injection")
        if mode.engine == "single"
        else ("control_run", "fault_injection", "file_trace")
    )
