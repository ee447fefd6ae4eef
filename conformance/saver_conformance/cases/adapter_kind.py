"""A kind of adapter: what the suite has to know of a method of PEFT to use it on a tiny model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from saver_conformance.cases.limit import Limit
from saver_conformance.cases.requirement import check_requirements

if TYPE_CHECKING:
    from saver_conformance.cases.case import Adapter
    from saver_conformance.cases.family import Family


def by_peft(model: Any, config: Any, name: str, upcast: bool) -> Any:
    """A ``PeftModel`` around the model, with the adapter of this name."""
    from peft import get_peft_model

    return get_peft_model(model, config, name, autocast_adapter_dtype=upcast)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterKind:
    """A kind of adapter.

    Attributes:
        name: the value of the axis ``kind``.
        place: where it stands on the axis, the simplest first.
        text: what is special about it, in words for ``explain`` and under findings.
        config: name of the class of its configuration in ``peft``.
        peft_type: what ``adapter_config.json`` calls it.
        settings: the arguments of its configuration, but for the task; all of them belong into
            ``adapter_config.json``.
        untrained: arguments of an adapter that is not trained, so that it is no zero, easily lost.
        marks: what the modules and dictionaries that hold its tensors are called; a beginning each.
        keys: names on disk of tensors that PEFT puts under another name, by a shell-style pattern
            of the name in memory, in which ``{}`` stands for the adapter's name.
        put_on: puts the adapter on a model, given its configuration, its name and whether one of
            half precision is made float32; returns the model that is trained.
        prefix: what the names of its tensors on disk begin with and those in memory do not.
        needs: the attribute of a family that must not be empty; empty when it fits all.
        pairs: whether the gate tries it with every value of every other axis; the others are tried
            once or twice, and with all values by ``nightly``.
        limits: what cannot be trained.
        requires: what has to be installed for it beside the suite, as pip reads it, such as
            ``peft>=0.20``; where something is missing, its cases are unavailable.
    """

    name: str
    place: int
    text: str
    config: str
    peft_type: str
    settings: Callable[[Adapter, Family], Mapping[str, Any]]
    untrained: Mapping[str, Any] = field(default_factory=dict)
    marks: tuple[str, ...]
    keys: Mapping[str, str] = field(default_factory=dict)
    put_on: Callable[[Any, Any, str, bool], Any] = by_peft
    prefix: str = ""
    needs: str = ""
    pairs: bool = False
    limits: tuple[Limit, ...] = ()
    requires: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_requirements(f"adapter kind {self.name}", self.requires)


def layers(adapter: Adapter, family: Family) -> dict[str, Any]:
    """The arguments of every kind that changes layers."""
    return {
        "target_modules": list(adapter.targets),
        "modules_to_save": list(adapter.modules_to_save) or None,
    }


ONE_ADAPTER = Limit("the suite trains one adapter of this kind", unless={"names": (("default",),)})
NO_LORA = (
    Limit("only LoRA knows DoRA", when={"dora": (True,)}),
    Limit("this kind has no setting of biases", unless={"bias": ("none",)}),
    Limit("this kind adapts no embeddings", when={"targets": ("embeddings",)}),
    Limit("TRL's trainer puts LoRA on", when={"trainer": ("trl-dpo",)}),
    ONE_ADAPTER,
)
"""The limits of the kinds that are not a LoRA."""
