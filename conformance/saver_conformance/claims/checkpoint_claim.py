"""What a saver claims of the checkpoints that a trainer saves while it trains."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from saver_conformance.errors import UnknownSaverError
from saver_conformance.safe_text import quoted


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointClaim:
    """A saver's part in checkpoints; ``KEEP`` judges savers that claim one, and no others.

    Attributes:
        prepare: address of a function that is called as ``function(cfg, trainer, model)`` on every
            rank before ``trainer.train()``, and gives the saver its part, by a callback for
            instance; empty where the trainer's own checkpoints are judged.
        model: folder of the model in a checkpoint, relative to it; empty for the checkpoint itself.
        resumes: whether a training that is resumed from a checkpoint ends with the bits of the
            training that was not interrupted.
        modes: patterns of the modes in which that holds.
    """

    prepare: str = ""
    model: str = ""
    resumes: bool = False
    modes: tuple[str, ...] = ("*",)

    @classmethod
    def from_plain(cls, owner: str, plain: Any) -> Self:
        """The claim in the words of a decorator or of a TOML file.

        Args:
            owner: who claims it, for the error.
            plain: a mapping of the fields above.

        Raises:
            UnknownSaverError: it is none.
        """
        known = {item.name: item.default for item in fields(cls)}
        if not isinstance(plain, Mapping) or not set(plain) <= set(known):
            raise UnknownSaverError(
                f"{owner}: checkpoints: expected {', '.join(known)}, found {quoted(plain)}"
            )
        values = dict(plain)
        if isinstance(modes := values.get("modes"), list):
            values["modes"] = tuple(modes)
        for name, value in values.items():
            if type(value) is not type(known[name]):
                raise UnknownSaverError(f"{owner}: checkpoints.{name}: found {quoted(value)}")
        if not all(isinstance(mode, str) for mode in values.get("modes", ())):
            raise UnknownSaverError(f"{owner}: checkpoints.modes: expected a list of names")
        return cls(**values)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The claim that ``to_json`` wrote."""
        return cls.from_plain("a request", json.loads(text))

    def to_json(self) -> str:
        """The claim as one line of JSON."""
        return json.dumps(asdict(self))
