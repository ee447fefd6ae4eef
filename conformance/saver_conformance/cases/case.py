"""A case: the plain data that says what is trained, how, and what the saver has to do.

A case is all that a replay needs. It is frozen, hashable, and travels as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from types import UnionType
from typing import Annotated, Any, Literal, Self, get_args, get_origin, get_type_hints

from saver_conformance.cases import adapter_kinds, engines, families, settings
from saver_conformance.cases.adapter_kind import AdapterKind
from saver_conformance.cases.engine import Engine, WorldFamily
from saver_conformance.cases.family import Family
from saver_conformance.cases.method import METHODS, Method
from saver_conformance.cases.setting import Setting, as_it_is
from saver_conformance.safe_text import quoted


@dataclass(frozen=True, slots=True, order=True)
class Mode:
    """How a model was trained: a method on an engine, named like ``lora-zero3``."""

    method: Method
    engine: str

    @property
    def definition(self) -> Engine:
        """The engine as it is registered."""
        return engines.engines()[self.engine]

    @property
    def name(self) -> str:
        """The mode's name, ``METHOD-ENGINE``."""
        return f"{self.method}-{self.engine}"

    @property
    def is_adapter(self) -> bool:
        """Whether only an adapter is trained."""
        return self.method != "full"

    def matches(self, patterns: tuple[str, ...]) -> bool:
        """Whether the name matches one of the shell-style ``patterns``."""
        return any(fnmatchcase(self.name, pattern) for pattern in patterns)

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the mode called ``name``.

        Raises:
            ValueError: there is no such mode.
        """
        for method in METHODS:
            for engine in engines.engines().values():
                if name == f"{method}-{engine.name}":
                    if why := engine.unavailable.get(method):
                        raise ValueError(f"unavailable mode {name!r}: {why}")
                    return cls(method, engine.name)
        raise ValueError(f"unknown mode {name!r}; a mode is METHOD-ENGINE, e.g. lora-zero3")

    def __str__(self) -> str:
        return self.name


MODES: tuple[Mode, ...] = tuple(
    Mode(method, engine.name)
    for method in METHODS
    for engine in engines.engines().values()
    if method in engine.methods
)


@dataclass(frozen=True, slots=True)
class OneOf:
    """In a type's annotation: the values are those that are registered.

    Attributes:
        names: gives the registered names.
    """

    names: Callable[[], tuple[str, ...]]


Architecture = Annotated[str, OneOf(families.names)]
SIMPLEST_FAMILY: Architecture = families.names()[0]
Kind = Annotated[str, OneOf(adapter_kinds.names)]
SettingName = Annotated[str, OneOf(settings.names)]
Sizes = Literal["even", "odd"]
Dtype = Literal["float32", "bfloat16", "mixed"]
Tokenizer = Literal["chat", "plain"]
ExistingSave = Literal["empty", "single", "sharded", "adapter", "another"]
ForeignFiles = Literal["none", "strangers", "readonly", "processor"]
Probe = Literal["none", "control_run", "fault_injection", "file_trace", "checkpoints", "memory"]
Vocabulary = Literal["same", "resized"]
Tie = Literal["declared", "contrary"]
PersistenceThreshold = Literal["zero", "default"]
Generation = Literal["sampling", "contradictory"]
ModelArgument = Literal["trained", "base"]
Result = Literal["trained", "merged", "relora"]
Disks = Literal["shared", "own"]
Wrapper = Literal["none", "checkpointing", "compile", "regional"]
TrainerName = Literal["transformers", "trl-sft", "trl-dpo"]


@dataclass(frozen=True, slots=True)
class Adapter:
    """What the adapter's configuration in PEFT is given.

    Attributes:
        r: rank of the update.
        alpha: ``lora_alpha``.
        targets: names of the adapted linear layers.
        modules_to_save: names of modules trained whole.
        bias: which biases are trained.
        dora: whether magnitudes are trained too.
        names: the adapters that the model carries; the first is trained, the others, of another
            rank, are not. PEFT puts ``default`` into the folder itself, others into subfolders.
        kind: the method; the other fields are those of LoRA, and others take what they know.
    """

    r: int = 4
    alpha: int = 8
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    modules_to_save: tuple[str, ...] = ()
    bias: Literal["none", "all", "lora_only"] = "none"
    dora: bool = False
    names: tuple[str, ...] = ("default",)
    kind: Kind = "lora"

    @property
    def method(self) -> AdapterKind:
        """The kind of adapter."""
        return adapter_kinds.adapter_kinds()[self.kind]


@dataclass(frozen=True, slots=True)
class Case:
    """One training run and the save that follows it.

    Attributes:
        mode: method and engine.
        architecture: family of the tiny model.
        sizes: ``odd`` makes vocabulary and feed-forward sizes that no world size divides.
        dtype: what the model is loaded in; ``mixed`` holds bfloat16 matrices and float32 norms.
        adapter: the adapter's shape; None for full training.
        max_shard_size: the limit in bytes of a weight file; None is the library's default.
        tokenizer: with or without a chat template.
        special_values: whether NaN payloads, -0.0, subnormals and infinities are in the weights.
        views: ``custom`` only: whether two of its buffers are overlapping views of one storage.
        persistence_threshold: ZeRO-3 only: parameters up to this size stay whole on every rank.
        existing_save: which earlier save lies in the output folder: of the same model, or
            ``another``
            architecture's as older libraries wrote it.
        foreign_files: what else lies there: files that belong to no save, or, besides, write
            protection
            of everything that lies there; or configurations of processors, which no training has.
        probe: what is done besides one save; ``control_run`` saves again, trains on, and does the
            same
            training once more without a save; ``fault_injection`` first kills the save at many
            points, and makes its system calls fail; ``file_trace`` records the system calls of
            every rank; ``checkpoints`` trains once more with checkpoints, resumes from them, and
            kills a save of one; ``memory`` trains a larger model and watches the memory of every
            rank.
        vocabulary: ``resized`` adds special tokens to the tokenizer and rows to the embeddings.
        tie: full training only: ``contrary`` ties what the configuration declares to be untied,
            and unties what it declares to be tied.
        generation: full training only: ``contradictory`` turns sampling off and keeps its settings,
            which transformers reads and uses, and refuses to write.
        model_argument: what the saver gets as ``model``: the model that was trained, or, as
            preference
            tuning does, the base model inside of it, which is not what ``trainer.model`` is.
        class_name: name of a class that the model is made a subclass as; empty keeps its own.
        wrapper: what stands around the model or its layers besides the engine: activation
            checkpointing, ``torch.compile`` of the whole or of each layer.
        trainer: the class that trains, by the name of the library and its task.
        setting: what of the training's settings is away from the usual ones.
        result: what the save is to be: what was trained, or a whole model, into which the adapter
            is merged because ``cfg`` says ``merge_lora`` or ``relora``.
        world_size: number of ranks; 1 for the engine ``single``.
        replicas: number of groups of ranks that each hold the whole model among them (hybrid
            sharding); 1 shards over all ranks.
        nodes: number of machines that the ranks pretend to run on.
        disks: ``own``: on each machine the path of the output folder leads to a disk that the
            others do not see; ``shared``: all have one file system.
        seed: seed of weights, data and training.
        after: what was trained and saved into the same folder before; None for the first save.
    """

    mode: Mode
    architecture: Architecture = SIMPLEST_FAMILY
    sizes: Sizes = "even"
    dtype: Dtype = "float32"
    adapter: Adapter | None = None
    max_shard_size: int | None = None
    tokenizer: Tokenizer = "chat"
    special_values: bool = False
    views: bool = False
    persistence_threshold: PersistenceThreshold = "zero"
    existing_save: ExistingSave = "empty"
    foreign_files: ForeignFiles = "none"
    probe: Probe = "none"
    vocabulary: Vocabulary = "same"
    tie: Tie = "declared"
    generation: Generation = "sampling"
    model_argument: ModelArgument = "trained"
    class_name: str = ""
    wrapper: Wrapper = "none"
    trainer: TrainerName = "transformers"
    setting: SettingName = "usual"
    result: Result = "trained"
    world_size: int = 1
    replicas: int = 1
    nodes: int = 1
    disks: Disks = "shared"
    seed: int = 0
    after: Case | None = None

    def __post_init__(self) -> None:
        if self.mode.is_adapter != (self.adapter is not None):
            raise ValueError(f"{self.mode}: an adapter is given for adapter methods and only there")
        engine = self.mode.definition
        if not engine.takes(self.world_size):
            sizes = ", ".join(map(str, engine.world_sizes))
            raise ValueError(f"{self.mode}: expected {sizes} ranks, found {self.world_size}")
        if not 1 <= self.nodes <= self.world_size:
            raise ValueError(f"{self.mode}: {self.world_size} ranks on {self.nodes} nodes")
        if self.replicas not in engine.replicas_on(self.world_size):
            raise ValueError(f"{self.mode}: {self.replicas} replicas of {self.world_size} ranks")
        if self.model_argument == "base" and self.adapter is None:
            raise ValueError(f"{self.mode}: only a model with an adapter has a base inside of it")
        if self.tie == "contrary" and self.adapter is not None:
            raise ValueError(f"{self.mode}: an adapter's save does not bring the head's tie")
        if self.generation != "sampling" and self.adapter is not None:
            raise ValueError(f"{self.mode}: an adapter's save brings no settings of generation")
        if self.class_name and self.adapter is not None:
            raise ValueError(f"{self.mode}: an adapter's save does not name the model's class")
        if self.after and (self.existing_save, self.foreign_files) != ("empty", "none"):
            raise ValueError(f"{self.mode}: what the folder holds is what the save before left")
        if not self.training_setting.applies(self.mode.name):
            raise ValueError(f"{self.mode}: this mode has no setting {self.setting}")
        if self.persistence_threshold not in engine.axes.get("persistence_threshold", ("zero",)):
            raise ValueError(f"{self.mode}: only ZeRO-3 has a persistence threshold")
        self._check_result()
        self._check_output()

    def _check_output(self) -> None:
        setting, shared = self.training_setting, self.disks == "shared"
        if not shared and self.nodes == 1:
            raise ValueError(f"{self.mode}: one machine shares its disk with no other")
        if not shared and setting.output is not as_it_is:
            raise ValueError(f"{self.mode}: the setting {self.setting} is about a shared disk")
        if shared and setting.content == "of the case":
            return
        if not self._adds_nothing_to_the_folder:
            raise ValueError(f"{self.mode}: disks or a setting say what the output folder holds")
        if self.probe not in ("none", "control_run") or (not shared and self.probe != "none"):
            raise ValueError(f"{self.mode}: {self.probe} needs a usual output folder")

    def _check_result(self) -> None:
        if self.result != "trained" and (self.adapter is None or self.base_bits):
            raise ValueError(f"{self.mode}: only an adapter on a base that is not quantized merges")

    @property
    def family(self) -> Family:
        """The family of the tiny model."""
        return families.families()[self.architecture]

    @property
    def base_bits(self) -> int:
        """Bits that the weights of the base are quantized to; 0 without quantization."""
        usual = 4 if self.mode.method == "qlora" else 0
        return self.training_setting.base_bits or usual

    @property
    def saves_adapter(self) -> bool:
        """Whether an adapter belongs into the folder, and not a whole model."""
        return self.mode.is_adapter and self.result == "trained"

    @property
    def saved_as(self) -> Mode:
        """The mode whose clauses the save is held to: a merged model is a whole one."""
        return self.mode if self.result == "trained" else Mode("full", self.mode.engine)

    @property
    def arguments(self) -> Mapping[str, Any]:
        """What the engine and the setting give ``TrainingArguments``."""
        return self.training_setting.change(self.mode.definition.arguments(self), self)

    @property
    def training_setting(self) -> Setting:
        """What is away from the usual."""
        return settings.settings()[self.setting]

    @property
    def declares_tie(self) -> bool:
        """Whether the configuration says that the head is the input embedding."""
        return self.family.ties

    @property
    def reloads_tied(self) -> bool:
        """Whether the head is the input embedding, and loading makes it so again."""
        return self.declares_tie and self.tie == "declared"

    @property
    def _adds_nothing_to_the_folder(self) -> bool:
        untouched = self.existing_save == "empty" and self.foreign_files == "none"
        return untouched and self.after is None

    @property
    def saves_into_empty_folder(self) -> bool:
        """Whether nothing lies in the output folder before the save."""
        return self._adds_nothing_to_the_folder and not self.saves_over_base

    @property
    def saves_over_base(self) -> bool:
        """Whether the output folder is that of the model that training starts from."""
        return self.training_setting.content == "base"

    @property
    def may_be_refused(self) -> bool:
        """Whether a saver may refuse to save, as long as it changes nothing."""
        return self.saves_over_base or self.disks == "own"

    def saves(self) -> Iterator[Case]:
        """The case and those that come before it, the last save first."""
        yield self
        if self.after is not None:
            yield from self.after.saves()

    def to_json(self) -> str:
        """The case as one line of JSON, keys in the order of the fields."""
        return json.dumps(self._to_plain())

    def to_short_json(self) -> str:
        """The mode, and what differs from its plainest case; ``from_json`` reads it too."""
        return json.dumps(self._to_short())

    def _to_short(self) -> dict[str, Any]:
        short = _differences(self._to_plain(), plainest(self.mode)._to_plain())
        if self.after is not None:
            short["after"] = self.after._to_short()
        return {"mode": self.mode.name, **short}

    def _to_plain(self) -> dict[str, Any]:
        after = self.after._to_plain() if self.after else None
        return {**asdict(replace(self, after=None)), "mode": self.mode.name, "after": after}

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The case that ``to_json`` wrote; what is left out is as in its mode's plainest case.

        Raises:
            ValueError: the text is no case.
        """
        return cls._from_plain(json.loads(text))

    @classmethod
    def _from_plain(cls, plain: Any) -> Self:
        if not isinstance(plain, Mapping):
            raise ValueError("a case is a JSON object")
        _check_values("a case", cls, plain)
        if "mode" not in plain:
            raise ValueError("a case needs a mode")
        mode = Mode.parse(plain["mode"])
        usual = plainest(mode)
        adapter, after = plain.get("adapter", usual.adapter), plain.get("after")
        return cls(
            **{
                **{name: getattr(usual, name) for name in OF_THE_ENGINE},
                **plain,
                "mode": mode,
                "adapter": _adapter(adapter) if isinstance(adapter, Mapping) else adapter,
                "after": None if after is None else cls._from_plain(after),
            }
        )


OF_THE_ENGINE = ("architecture", "world_size", "replicas")
"""Fields whose defaults an engine decides."""


def plainest(mode: Mode) -> Case:
    """The case of ``mode`` in which every field has its default, or its engine's own."""
    engine = mode.definition
    return Case(
        mode,
        architecture=engine.simplest("architecture", SIMPLEST_FAMILY),
        adapter=Adapter() if mode.is_adapter else None,
        world_size=engine.world_sizes[0],
        replicas=engine.replicas[0],
    )


def _differences(plain: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The items of ``plain`` that ``usual`` does not have, those of mappings one by one."""
    return {
        name: _differences(value, usual[name]) if isinstance(usual[name], Mapping) else value
        for name, value in plain.items()
        if value != usual[name]
    }


def _adapter(plain: Mapping[str, Any]) -> Adapter:
    _check_values("an adapter", Adapter, plain)
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()
    }
    return Adapter(**values)


def _check_values(what: str, kind: type, plain: Mapping[str, Any]) -> None:
    """Raise a ValueError, one line long, unless ``plain`` has the keys and values of ``kind``."""
    hints = get_type_hints(kind)
    if unknown := sorted(set(plain) - set(hints)):
        raise ValueError(f"unknown keys in {what}: {', '.join(unknown)}")
    for name, value in plain.items():
        check_value(kind, name, value)


def check_value(kind: type, name: str, value: Any) -> None:
    """Look whether JSON's ``value`` can be in the field ``name`` of ``kind``.

    Raises:
        ValueError: it cannot; the message is one line.
    """
    hint = get_type_hints(kind, include_extras=True)[name]
    if not _fits(value, hint):
        raise ValueError(f"{name}: expected {_wanted(hint)}, found {quoted(value)}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether JSON's ``value`` can stand for what ``hint`` says."""
    origin = get_origin(hint)
    if origin is Annotated:
        return isinstance(value, str) and value in _registered(hint)
    if origin is Literal:
        return value in get_args(hint)
    if origin is UnionType:
        return any(_fits(value, part) for part in get_args(hint))
    if origin is tuple:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if hint is Mode:
        return isinstance(value, str)
    if hint in (Adapter, Case):
        return isinstance(value, Mapping)
    return type(value) is hint  # True is no number


def _registered(hint: Any) -> tuple[str, ...]:
    """The values of an annotated type."""
    names: tuple[str, ...] = get_args(hint)[1].names()
    return names


def _wanted(hint: Any) -> str:
    """What ``_fits`` accepts, in words."""
    if get_origin(hint) is Annotated:
        return f"one of {', '.join(_registered(hint))}"
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) is UnionType:
        return " or ".join(_wanted(part) for part in get_args(hint))
    if get_origin(hint) is tuple:
        return "a list of names"
    words = {bool: "true or false", int: "a whole number", type(None): "null"}
    return words.get(hint, "text" if hint in (str, Mode) else "an object")


def select_modes(patterns: str) -> tuple[Mode, ...]:
    """The modes that a list like ``full-ddp,lora-*`` names; ``all`` names all.

    Raises:
        ValueError: a part of the list names none, or there is no part.

    Examples:
        >>> [mode.name for mode in select_modes("full-zero?,lora-ddp")]
        ['full-zero1', 'full-zero2', 'full-zero3', 'lora-ddp']
    """
    names = [part.strip() for part in patterns.split(",") if part.strip()]
    parts = tuple("*" if name == "all" else name for name in names)
    if not parts:
        raise ValueError("no mode is named")
    for part in parts:
        if not any(mode.matches((part,)) for mode in MODES):
            raise ValueError(f"no mode is called {part!r}; see: saver-conformance list modes")
    return tuple(mode for mode in MODES if mode.matches(parts))


@dataclass(frozen=True, slots=True, order=True)
class WorldKey:
    """Which world a case needs; cases with equal keys share one.

    Attributes:
        family: DeepSpeed changes its process for good, so its engines have worlds of their own.
        size: number of ranks; a world of one has no process group, as training on one device.
        nodes: number of machines that it pretends to be, in which ranks have their local numbers.
    """

    family: WorldFamily
    size: int
    nodes: int = 1

    @classmethod
    def of(cls, mode: Mode, size: int, nodes: int = 1) -> Self:
        """The key for training ``mode`` on ``size`` ranks, spread over ``nodes`` machines."""
        return cls(mode.definition.world, size, nodes)

    @classmethod
    def of_case(cls, case: Case) -> Self:
        """The key for ``case``."""
        return cls.of(case.mode, case.world_size, case.nodes)

    def node_of(self, rank: int) -> range:
        """All ranks on the machine of ``rank``; the last machine may hold fewer."""
        full = -(-self.size // self.nodes)
        first = rank - rank % full
        return range(first, min(first + full, self.size))
