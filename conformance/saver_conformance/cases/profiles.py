"""Which cases a run tries: a glance, a survey, the gate, a night's, or without end.

``smoke`` tries every mode with the least that tells a saver that works from one that does not.
``survey`` tries what the savers that people use are known to lose things by.
``gate`` tries a table of all pairs of the axes for every mode, and derandomized draws on top.
Families of models and kinds of adapters that its table has no room for have a few cases each, see
``visits.py``.
Engines without a table of their own there have a few cases instead, see ``_FEW``.
Merged models have cases of their own in each, see ``merging.py``.
``nightly`` adds all pairs of the engines, every family, every kind of adapter and all other axes.
``readers`` tries every family once, for what other programs make of its folder.
``explore`` draws on and on; see ``explore.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from saver_conformance.cases import engines
from saver_conformance.cases.case import MODES, Case, Mode, WorldKey
from saver_conformance.cases.families import names
from saver_conformance.cases.merging import merging
from saver_conformance.cases.settings import settings as settings_of_training
from saver_conformance.cases.strategies import cases, fitting, is_valid, make_case
from saver_conformance.cases.tables import gate_table, night_table
from saver_conformance.cases.visits import visits

Profile = Literal["smoke", "survey", "gate", "nightly", "readers", "explore"]

GATE_DRAWS = 2
"""Derandomized draws for each mode on top of the table of pairs."""
GATE_SPREAD_DRAWS = 1
"""Derandomized draws for each mode of several ranks, on three of them and two nodes."""

_SMOKE_FULL: tuple[dict[str, Any], ...] = (
    {
        "architecture": "llama-tied",
        "tokenizer": "chat",
        "existing_save": "sharded",
        "probe": "control_run",
    },
    {"architecture": "mixtral", "sizes": "odd", "dtype": "bfloat16", "max_shard_size": 4_000}
    | {"special_values": True, "foreign_files": "strangers", "wrapper": "compile"},
    {"architecture": "custom", "wrapper": "checkpointing", "vocabulary": "resized"}
    | {"existing_save": "another", "foreign_files": "processor"},
)
_SMOKE_ADAPTER: tuple[dict[str, Any], ...] = (
    {"architecture": "phi3", "targets": "all", "tokenizer": "chat", "existing_save": "single"}
    | {"probe": "control_run"},
    {"architecture": "qwen2", "sizes": "odd", "dtype": "bfloat16", "special_values": True}
    | {"modules_to_save": ("lm_head",), "foreign_files": "strangers", "wrapper": "compile"},
    {"architecture": "custom", "targets": "all", "names": ("default", "style")}
    | {"model_argument": "base", "wrapper": "checkpointing", "vocabulary": "resized"}
    | {"existing_save": "another", "foreign_files": "processor"},
)
SMOKE_NODES = (1, 2, 1)
"""Number of machines that the ranks of each row of ``smoke`` pretend to run on."""

_FOUR_RANKS: dict[str, Any] = {"sizes": "odd", "dtype": "bfloat16", "max_shard_size": 4_000}
_FOUR_RANKS |= {"special_values": True}

_FEW: tuple[dict[str, Any], ...] = (
    {
        "architecture": "llama-tied",
        "special_values": True,
        "dtype": "bfloat16",
        "max_shard_size": 4_000,
        "tokenizer": "chat",
    }
    | {"existing_save": "sharded", "targets": "all", "probe": "control_run"},
    {"sizes": "odd", "wrapper": "checkpointing", "dtype": "mixed"}
    | {"foreign_files": "strangers", "modules_to_save": ("lm_head",)},
)
"""Cases of an engine that the gate has no table for; values that do not fit are left out."""
FEW_DRAWS = 3
"""Derandomized draws for each of its modes on top of them."""

_SURVEY_FULL: tuple[dict[str, Any], ...] = (
    {
        "architecture": "llama-tied",
        "tokenizer": "chat",
        "existing_save": "sharded",
        "probe": "control_run",
    },
    {"architecture": "mixtral", "sizes": "odd", "dtype": "bfloat16", "max_shard_size": 4_000}
    | {"special_values": True, "foreign_files": "strangers"},
    {"architecture": "qwen2", "max_shard_size": 4_000, "existing_save": "single"}
    | {"vocabulary": "resized"},
)
_SURVEY_ADAPTER: tuple[dict[str, Any], ...] = (
    {"targets": "all", "wrapper": "checkpointing"},
    {"architecture": "phi3", "targets": "all", "tokenizer": "chat", "existing_save": "single"}
    | {"probe": "control_run"},
    {"architecture": "qwen2", "sizes": "odd", "dtype": "bfloat16", "special_values": True}
    | {"modules_to_save": ("lm_head",), "foreign_files": "strangers"},
    {"targets": "embeddings", "vocabulary": "resized"},
)
_SURVEY_FIRST = Mode("lora", "fsdp2")
"""What is trained most: ``survey`` begins with it, and with activation checkpointing in it."""
_SURVEY_SINGLE_ADAPTER: tuple[dict[str, Any], ...] = ({"model_argument": "base"},)


def cases_of(mode: Mode, profile: Profile, among: Iterable[Mode] = MODES) -> tuple[Case, ...]:
    """The cases of ``mode`` that ``profile`` plans; none for ``explore``, which plans nothing.

    Args:
        mode: the mode.
        profile: the profile.
        among: all modes of the run: ``nightly`` deals its pairs among them.
    """
    if profile == "smoke":
        return _smoke(mode)
    if not mode.definition.pairs and profile in ("survey", "gate"):
        return _few(mode, profile)
    if profile == "survey":
        rows = _SURVEY_ADAPTER if mode.is_adapter else _SURVEY_FULL
        if mode.is_adapter and mode.engine == "single":
            rows += _SURVEY_SINGLE_ADAPTER
        planned = tuple(make_case(mode, row, seed=seed) for seed, row in enumerate(rows))
        merged = merging(mode, kinds=False)
        return planned + _settings(mode) + _fewer_ranks(mode) + _checkpoints(mode) + merged
    if profile == "readers":
        every = ({"architecture": name, "tokenizer": "chat"} for name in names())
        return tuple(make_case(mode, row) for row in every if is_valid(row, mode))
    if profile == "gate":
        draws = _draw(cases(mode, world_size=2, nodes=1), GATE_DRAWS)
        if mode.engine != "single":
            draws += _draw(cases(mode, world_size=3, nodes=2), GATE_SPREAD_DRAWS)
        if mode.definition.shards:  # FSDP2 shards within two replicas
            draws += (make_case(mode, _FOUR_RANKS, world_size=4, replicas=2),)
        # Trials first: a saver that fails in many cases may have spoilt its mode before the last.
        apart = (*_settings(mode), *_fewer_ranks(mode), *_own_disks(mode))
        others = (*apart, *merging(mode), *visits(mode))
        trials = _trials(mode) + _memory(mode)
        table = gate_table(mode)
        return tuple(dict.fromkeys((*trials, *_sequence(mode), *table, *draws, *others)))
    if profile == "nightly":
        wide = (*_memory(mode, wide=True), *night_table(mode, among), *merging(mode, wide=True))
        return tuple(dict.fromkeys((*cases_of(mode, "gate"), *wide)))
    return ()


def _smoke(mode: Mode) -> tuple[Case, ...]:
    """The least; engines of which a save sees no difference share the rows, as in the gate.

    An unsaved control takes longest: most adapters do without. QLoRA differs from LoRA by its base
    alone, and has the rows that say most of it.
    """
    definition = mode.definition
    rows = _SMOKE_ADAPTER if mode.is_adapter else _SMOKE_FULL
    if not definition.pairs:
        rows = (fitting(_FEW[0], mode),)
    numbered = list(enumerate(zip(rows, SMOKE_NODES, strict=False)))
    if mode.method == "qlora" and definition.pairs:
        del numbered[0]
    sharing = engines.sharing_a_table(mode.engine) or (mode.engine,)
    dealt = numbered[sharing.index(mode.engine) :: len(sharing)]
    controlled = mode.method == "full" or (
        mode.method == "lora" and definition.pairs and definition.shards
    )
    rest = {} if controlled else {"probe": "none"}
    return tuple(make_case(mode, row | rest, nodes=n, seed=seed) for seed, (row, n) in dealt)


def _few(mode: Mode, profile: Profile) -> tuple[Case, ...]:
    """The cases of a mode whose engine the gate has no table for."""
    rows = tuple(make_case(mode, fitting(row, mode), seed=n) for n, row in enumerate(_FEW))
    if profile == "survey":
        return rows + _settings(mode) + merging(mode, kinds=False)
    size = mode.definition.world_sizes[0]
    draws = _draw(cases(mode, world_size=size, nodes=1), FEW_DRAWS)
    return tuple(dict.fromkeys((*rows, *draws, *merging(mode))))


def _settings(mode: Mode) -> tuple[Case, ...]:
    """A case of ``mode`` for each setting that it has."""
    return tuple(
        make_case(mode, {"setting": setting.name, "tokenizer": "chat"}, seed=place)
        for place, setting in enumerate(settings_of_training().values())
        if place and setting.applies(mode.name)
    )


CHECKPOINT_MODES = ("full-single", "lora-single", "full-fsdp2")
"""Modes that are trained with checkpoints: what differs is the trainer's and the engine's."""


def _trials(mode: Mode) -> tuple[Case, ...]:
    """What ``mode`` is tried on in simple cases of their own."""
    return _plain_trials(mode) + _checkpoints(mode)


def _checkpoints(mode: Mode) -> tuple[Case, ...]:
    """A case of ``mode`` with checkpoints, for savers that claim a part in them."""
    if mode.name not in CHECKPOINT_MODES:
        return ()
    return (make_case(mode, {"probe": "checkpoints"}),)


def _plain_trials(mode: Mode) -> tuple[Case, ...]:
    control = make_case(mode, {"probe": "control_run"})
    earlier = "adapter" if mode.is_adapter else "single"
    crash = make_case(mode, {"probe": "fault_injection", "existing_save": earlier})
    if mode.engine == "single":
        return (control, crash)
    trace = {"probe": "file_trace", "existing_save": "sharded", "max_shard_size": 4_000}
    # On two machines, more than one rank may believe that it is the one to write.
    return (control, crash, make_case(mode, trace, nodes=1 if mode.is_adapter else 2))


def _memory(mode: Mode, *, wide: bool = False) -> tuple[Case, ...]:
    """A large model on enough ranks to tell the part of one from the whole of it."""
    definition = mode.definition
    if mode.method != "full" or not definition.shards or not (wide or definition.pairs):
        return ()
    case = make_case(mode, {"probe": "memory"}, world_size=4)
    return (case,) if case.world_size // case.replicas == 4 else ()


def _sequence(mode: Mode) -> tuple[Case, ...]:
    """The last of three saves into one folder: the first by another method, then other shapes."""
    if not {"full", "lora"} <= set(mode.definition.methods):
        return ()
    if mode.is_adapter:
        first = make_case(Mode("full", mode.engine), {"tokenizer": "chat", "max_shard_size": 4_000})
        second = make_case(mode, {"names": ("default", "style")})
        third = make_case(mode, {"r": 7, "targets": "all"})
    else:
        first = make_case(Mode("lora", mode.engine), {"tokenizer": "chat"})
        second = make_case(mode, {"max_shard_size": 4_000})
        third = make_case(mode, {"tokenizer": "chat"})
    return (replace(third, after=replace(second, after=first)),)


FEWER_RANKS_MODES = ("full-fsdp2", "full-zero3")
"""Modes that save over a save of more ranks: parts of ranks that are no more must not stay."""


def _fewer_ranks(mode: Mode) -> tuple[Case, ...]:
    """A save of two ranks into the folder that three have saved the same model into."""
    if mode.name not in FEWER_RANKS_MODES:
        return ()
    shards = {"max_shard_size": 4_000}
    earlier = make_case(mode, shards, world_size=3, seed=1)
    return (replace(make_case(mode, shards), after=earlier),)


OWN_DISKS_MODES = ("full-fsdp2", "full-zero3", "lora-fsdp2")
"""Modes whose ranks hold parts, and save them on machines that share no disk."""


def _own_disks(mode: Mode) -> tuple[Case, ...]:
    """Two machines, each of which has a part of the weights and an output folder of its own."""
    if mode.name not in OWN_DISKS_MODES:
        return ()
    row = {"disks": "own", "tokenizer": "chat", "max_shard_size": 4_000}
    return (make_case(mode, row, nodes=2),)


def in_order(cases: Iterable[Case], profile: Profile = "gate") -> tuple[Case, ...]:
    """``cases`` so that neighbours share a world, an engine and a mode.

    ``survey`` begins with what is trained most.
    """
    planned = tuple(cases)
    first = [case for case in planned if profile == "survey" and case.mode == _SURVEY_FIRST][:1]

    def place(case: Case) -> tuple[Any, ...]:
        own = _groups(case)
        known = [_groups(one) for one in first]
        apart = tuple(mine not in others for mine, *others in zip(own, *known, strict=True))
        return tuple(part for pair in zip(apart, own, strict=True) for part in pair)

    return tuple(sorted(planned, key=place))


def _groups(case: Case) -> tuple[WorldKey, str, Mode]:
    """What neighbours share, the costliest to change first."""
    return WorldKey.of_case(case), case.mode.engine, case.mode


def _draw(strategy: SearchStrategy[Case], count: int) -> tuple[Case, ...]:
    """The same ``count`` draws on every machine."""
    drawn: list[Case] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(case: Case) -> None:
        drawn.append(case)

    function: Callable[[], None] = collect
    function()
    return tuple(drawn)
