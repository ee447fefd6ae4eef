"""A family of models: what the suite has to know of an architecture to train a tiny one.

A family is data and small functions, and needs no torch: cases are planned without it. What a
function needs it imports when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from saver_conformance.cases.limit import Limit
from saver_conformance.cases.requirement import check_requirements


@dataclass(frozen=True, slots=True)
class Sizing:
    """What the sizes of a tiny model depend on.

    Attributes:
        vocabulary: rows of the embedding.
        odd: whether no world size may divide the sizes.
        packed: whether weights are packed to 4 bits: bitsandbytes packs them into whole elements
            of the storage type, so that sizes are multiples of 8.
        scalars: whether the engine takes parameters of 0 dimensions or elements.
        full: whether the whole model is trained.
        large: whether the model is large enough for its bytes to show in a process's memory.
    """

    vocabulary: int
    odd: bool = False
    packed: bool = False
    scalars: bool = True
    full: bool = True
    large: bool = False

    @property
    def hidden(self) -> int:
        """Size of the hidden states."""
        if self.large:
            return 512
        return (24 if self.packed else 18) if self.odd else 32

    @property
    def intermediate(self) -> int:
        """Size inside of the feed-forward layers."""
        if self.large:
            return 1408
        return (40 if self.packed else 37) if self.odd else 48

    @property
    def layers(self) -> int:
        """Number of layers of a decoder."""
        return 8 if self.large else 2

    @property
    def heads(self) -> int:
        """Number of attention heads."""
        return 3 if self.odd else 4

    @property
    def groups(self) -> int:
        """Number of attention heads of keys and values."""
        return 1 if self.odd else 2

    @property
    def experts(self) -> int:
        """Number of experts."""
        return 3 if self.odd else 4


TOKENS: Mapping[str, int] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
"""The special tokens of every tokenizer of the suite."""


def decoder(size: Sizing) -> dict[str, Any]:
    """The settings that decoders share: two layers, a few thousand parameters, unless large."""
    return {
        "vocab_size": size.vocabulary,
        "hidden_size": size.hidden,
        "intermediate_size": size.intermediate,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.groups,
        "max_position_embeddings": 64,
        # Away from the defaults, which would hide that a save lost them.
        "rope_parameters": {"rope_type": "default", "rope_theta": 20_000.0},
        "rms_norm_eps": 2e-5,
        "initializer_range": 0.04,
        **TOKENS,
    }


def next_tokens(tokens: Any, size: Sizing) -> dict[str, Any]:
    """What a causal language model is trained on: each token, given those before it."""
    return {"input_ids": tokens, "labels": tokens}


def no_tensors(size: Sizing) -> Mapping[str, tuple[int, ...]]:
    """No tensors: the class loads all that its checkpoints have."""
    del size
    return {}


ONLY_TRANSFORMERS = Limit(
    "TRL's trainers are fed texts here", when={"trainer": ("trl-sft", "trl-dpo")}
)
OWN_PROCESSOR = Limit(
    "the save brings a processor, which replaces what lies there",
    when={"foreign_files": ("processor",)},
)
_APART = "training one of several names of a tensor apart is a question of its own"
ONE_OF_A_TIE = (
    Limit(_APART, unless={"modules_to_save": ((),)}),
    Limit(_APART, when={"targets": ("embeddings",)}),
)
"""The limits of a model whose head is its input embedding."""


def no_language_model(missing: str) -> tuple[Limit, ...]:
    """The limits of a model that predicts no tokens.

    Args:
        missing: the modules of a language model that it lacks.
    """
    return (
        Limit(f"the model has no {missing}", unless={"modules_to_save": ((),)}),
        Limit("the model has no head that could be an embedding", when={"tie": ("contrary",)}),
        Limit("the model generates nothing", when={"generation": ("contradictory",)}),
        ONLY_TRANSFORMERS,
    )


@dataclass(frozen=True, slots=True)
class Rename:
    """Part of a name in memory that is another one on disk.

    Attributes:
        memory: the part, as a regular expression.
        disk: what stands there on disk; may refer to groups of the expression.
    """

    memory: str
    disk: str


@dataclass(frozen=True, slots=True)
class SplitExperts:
    """A tensor in memory that holds all experts, each of which has its own on disk.

    Attributes:
        memory: the end of the name in memory.
        disk: the ends of the names on disk, after the expert's number; the rows of each expert are
            shared equally among them, in this order.
    """

    memory: str
    disk: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of models.

    Attributes:
        name: the value of the axis ``architecture``.
        place: where it stands on the axis, the simplest first.
        text: what is special about it, in words for ``explain`` and under findings.
        model_type: that of its configuration.
        class_name: the class that belongs into ``config.json``.
        layers: classes of the layers that FSDP wraps.
        attention: names of the linear layers that a small adapter changes.
        linear: names of all linear layers that an adapter can change.
        settings: arguments of its configuration for a tiny model. Whatever has a default that a
            save could lose and loading restore is set to something else.
        auto: the ``Auto*`` class that loads it.
        task: PEFT's task type; None for none, which is what models of a kind unknown to it get.
        batch: one row of training from a row of random tokens; a tensor for each argument of the
            model's ``forward``.
        rows: whether batches are stacked rows of ``batch``, instead of padded texts.
        conversions: how names and shapes in memory become those on disk.
        module: a module that has to be imported before the model can be loaded; empty for none.
        code: what ``auto_map`` says, for a model whose code lies in its folder: a class by the
            ``Auto*`` class that loads it, in a module of ``workload/remote_code``.
        ties: whether its configuration says that the head is the input embedding.
        generates: whether it brings settings of generation.
        embedding: name of the input embedding's module.
        head: name of the output layer's module.
        whole: modules that PEFT trains whole for this task, whatever is requested.
        experts: names of the parameters that hold fused experts.
        views: whether it has buffers that can be made overlapping views.
        pairs: whether the gate tries it with every value of every other axis; the others are tried
            once or twice for each method, and with all values by ``nightly``.
        ignored: shapes of the tensors that the base's folder has and the model's class does not
            load, by name.
        tokens: special tokens that its tokenizer has after those of every tokenizer.
        processor: makes the processor that training uses from its tokenizer; None for none.
        limits: what cannot be trained.
        requires: what has to be installed for it beside the suite, as pip reads it, such as
            ``transformers>=5.10``; where something is missing, its cases are unavailable.
    """

    name: str
    place: int
    text: str
    model_type: str
    class_name: str
    layers: tuple[str, ...]
    attention: tuple[str, ...]
    linear: tuple[str, ...]
    settings: Callable[[Sizing], Mapping[str, Any]]
    auto: str = "AutoModelForCausalLM"
    task: str | None = "CAUSAL_LM"
    batch: Callable[[Any, Sizing], dict[str, Any]] = next_tokens
    rows: bool = False
    conversions: tuple[Rename | SplitExperts, ...] = ()
    module: str = ""
    code: Mapping[str, str] = field(default_factory=dict)
    ties: bool = False
    generates: bool = True
    embedding: str = "embed_tokens"
    head: str = "lm_head"
    whole: tuple[str, ...] = ()
    experts: tuple[str, ...] = ()
    views: bool = False
    pairs: bool = False
    ignored: Callable[[Sizing], Mapping[str, tuple[int, ...]]] = no_tensors
    tokens: tuple[str, ...] = ()
    processor: Callable[[Any, Sizing], Any] | None = None
    limits: tuple[Limit, ...] = ()
    requires: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_requirements(f"family {self.name}", self.requires)

    @property
    def selections(self) -> Mapping[str, tuple[str, ...]]:
        """The layers that an adapter changes, by the value of the axis ``targets``."""
        return {
            "attention": self.attention,
            "all": self.linear,
            "embeddings": (*self.attention, self.embedding),
        }

    def selection_of(self, targets: tuple[str, ...]) -> Any:
        """The value of the axis ``targets`` for these layers; the layers where none fits."""
        return next((name for name, own in self.selections.items() if own == targets), targets)
