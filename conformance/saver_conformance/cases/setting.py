"""A setting of training: what users choose that changes how weights are held or gathered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from saver_conformance.cases.case import Case

Arguments = Mapping[str, Any]
"""Those of ``TrainingArguments``."""
Settings = Mapping[str, Any]
"""What the saver's ``cfg`` has."""


def as_they_are(arguments: Arguments, case: Case) -> Arguments:
    """The arguments without a change."""
    del case
    return arguments


def as_it_is(folder: Path) -> Path:
    """The output folder by its own path."""
    return folder


def as_trained(settings: Settings) -> Settings:
    """What is known of the training."""
    return settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A setting away from what the suite usually trains with.

    Attributes:
        name: the value of the axis ``setting``.
        place: where it stands on the axis, the simplest first.
        text: what it changes, in words for ``explain`` and under findings.
        modes: patterns of the modes that have it.
        change: the arguments of ``TrainingArguments`` with the setting, from those without.
        base_bits: bits that the weights of the base are quantized to; 0 leaves them as the mode
            has them.
        base_name: what the base model is called in the model and in ``cfg``; empty for the path of
            its folder.
        output: the path by which ``cfg`` names the output folder, given the folder. It is called on
            rank 0 before the others, and may make what the path needs.
        settings: what ``cfg`` has, given what it usually has.
        content: what lies in the output folder before the save: what the case says; ``nothing``,
            not even the folder; or ``base``, the model that training starts from.
    """

    name: str
    place: int
    text: str
    modes: tuple[str, ...] = ("*",)
    change: Callable[[Arguments, Case], Arguments] = as_they_are
    base_bits: int = 0
    base_name: str = ""
    output: Callable[[Path], Path] = as_it_is
    settings: Callable[[Settings], Settings] = as_trained
    content: Literal["of the case", "nothing", "base"] = "of the case"

    def applies(self, mode: str) -> bool:
        """Whether the mode of this name has the setting."""
        return any(fnmatchcase(mode, pattern) for pattern in self.modes)
