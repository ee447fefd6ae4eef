"""An engine: what the suite has to know of a way to spread training over ranks.

An engine is data and small functions, and needs no torch: cases are planned without it. What a
function needs it imports when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from saver_conformance.cases.limit import Limit
from saver_conformance.cases.method import METHODS, Method

if TYPE_CHECKING:
    from saver_conformance.cases.case import Case

WorldFamily = Literal["torch", "deepspeed", "autotp"]

WORLD_SIZES = (2, 3, 4)
"""Numbers of ranks of an engine that takes any number above one, the simplest first."""


def nothing(case: Case) -> Mapping[str, Any]:
    """No arguments."""
    del case
    return {}


def keep() -> None:
    """Nothing is to be forgotten."""


@contextmanager
def as_held(root: Any, modify: bool) -> Iterator[list[Any]]:
    """The parameters as each rank holds them: whole, or DTensors, which can be made whole."""
    del modify
    yield list(root.parameters())


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine.

    Attributes:
        name: the second half of a mode's name.
        place: where it stands among the engines, the simplest first.
        text: what it does with the weights, in words for ``explain``.
        unavailable: methods that cannot be trained with it, and why: seen failing, and where in
            whose code.
        world: DeepSpeed changes its process for good, and its AutoTP does so again, so they have
            worlds of their own.
        requires: what has to be installed, each as a requirement: ``deepspeed`` or ``torch>=2.6``.
        world_sizes: numbers of ranks, the simplest first.
        replicas: numbers of groups of ranks that each hold the whole model among them, the simplest
            first; those above 1 are tried on four ranks.
        shards: whether a rank holds a part of each weight.
        pairs: whether the gate has a table of all pairs of its axes; the others have a few cases
            there, and meet every value of every axis in ``nightly``.
        table: the name of the table that it shares with engines of which a save sees no difference;
            empty for one of its own.
        seconds: of one training and one save on two cores, as an estimate; shards of a run are cut
            by it.
        axes: axes that it alone has, and those on which it has other values than all, each with the
            simplest value first.
        limits: what it cannot train.
        no_odd_parameters: why it takes no parameters of 0 dimensions or elements; empty when it
            does. All engines take buffers of these shapes.
        keeps_dtypes: whether adapters may be of another dtype than the base.
        loading: arguments of ``from_pretrained`` that spread the model as it is loaded.
        arguments: those of ``TrainingArguments``. What stands under ``fsdp_config`` and
            ``deepspeed`` is in the saver's ``cfg``, too.
        trains: whether a trainer, after training, used it, from the trainer and from the wrapped
            model: a framework that quietly falls back to another would make every verdict
            worthless.
        whole: every parameter of the wrapped model in module order, given the model and whether
            changes made inside shall reach the shards. DTensors may stay so. This is the oracle: it
            uses the engine's own ways, and nothing of any saver.
        forget: makes the process forget a case that has ended, so that the next can be trained.
    """

    name: str
    place: int
    text: str
    unavailable: Mapping[Method, str] = field(default_factory=dict)
    world: WorldFamily = "torch"
    requires: tuple[str, ...] = ()
    world_sizes: tuple[int, ...] = WORLD_SIZES
    replicas: tuple[int, ...] = (1,)
    shards: bool = False
    pairs: bool = False
    table: str = ""
    seconds: float = 0.5
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    limits: tuple[Limit, ...] = ()
    no_odd_parameters: str = ""
    keeps_dtypes: bool = False
    loading: Callable[[Case], Mapping[str, Any]] = nothing
    arguments: Callable[[Case], Mapping[str, Any]] = nothing
    trains: Callable[[Any, Any], bool]
    whole: Callable[[Any, bool], AbstractContextManager[list[Any]]] = as_held
    forget: Callable[[], None] = keep

    @property
    def methods(self) -> tuple[Method, ...]:
        """What can be trained with it."""
        return tuple(method for method in METHODS if method not in self.unavailable)

    def takes(self, world_size: int) -> bool:
        """Whether it trains on this number of ranks."""
        larger = self.world_sizes == WORLD_SIZES and world_size > WORLD_SIZES[-1]
        return larger or world_size in self.world_sizes

    def replicas_on(self, world_size: int) -> tuple[int, ...]:
        """Numbers of replicas on this number of ranks; within each, two ranks or more share."""
        fitting = (n for n in self.replicas if n == 1 or (world_size % n == 0 and world_size > n))
        return tuple(fitting)

    def simplest(self, axis: str, usual: Any) -> Any:
        """The simplest value of ``axis``, which is ``usual`` unless it says otherwise."""
        return self.axes[axis][0] if axis in self.axes else usual
