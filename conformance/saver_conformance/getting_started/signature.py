"""How a framework's saver is called, read from its source without running it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from saver_conformance.claims.known_savers import source_of
from saver_conformance.errors import UnknownSaverError

SHARD_SIZE = "max_shard_size"
OURS = ("cfg", "trainer", "model")
"""The parameters of every saver that the suite calls."""

VALUES = {
    **{name: name for name in OURS},
    **dict.fromkeys(("args", "training_args"), "trainer.args"),
    **dict.fromkeys(
        ("tokenizer", "processor", "processing_class", "tokenizer_or_processor"),
        "trainer.processing_class",
    ),
    **dict.fromkeys(
        (
            *("output_dir", "output_path", "output_folder", "output", "out", "folder", "path"),
            *("directory", "save_directory", "save_dir", "save_path", "ckpt_dir", "ckpt_path"),
            *("checkpoint_dir", "checkpoint_path"),
        ),
        "cfg.output_dir",
    ),
    "accelerator": "trainer.accelerator",
    SHARD_SIZE: f"cfg.{SHARD_SIZE}",
}
"""Usual names of a saver's parameters, and the expression that has the value."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a saver.

    Attributes:
        name: its name.
        default: the source of its default; None: the caller has to pass it.
        positional: whether it cannot be passed by its name.
    """

    name: str
    default: str | None = None
    positional: bool = False

    @property
    def value(self) -> str | None:
        """The expression to pass; None where nothing is known, or the default will do."""
        value = VALUES.get(self.name)
        if value is None or self.default in (None, "None"):
            return value
        return f"{value} or {self.default}" if self.name == SHARD_SIZE else value

    @property
    def is_unknown(self) -> bool:
        """Whether it has to be passed and nobody knows what."""
        return self.default is None and self.value is None


def read_parameters(address: str, folder: Path) -> tuple[Parameter, ...] | None:
    """The parameters of the function at ``address``.

    Args:
        address: ``package.module:function``.
        folder: the folder from which savers are imported, besides where Python looks.

    Returns:
        The parameters in their order; None if the module's source does not define the function.

    Raises:
        UnknownSaverError: ``address`` has another form, or the source is no Python.
    """
    module, _, function = address.partition(":")
    if not (function.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise UnknownSaverError(f"expected a saver as package.module:function, found {address!r}")
    source = source_of(module, folder)
    if source is None:
        return None
    try:
        body = ast.parse(source.read_bytes()).body
    except (OSError, SyntaxError, ValueError) as error:
        raise UnknownSaverError(f"{source} cannot be read as Python: {error}") from error
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return _parameters(node.args)
    return None


def call(function: str, parameters: tuple[Parameter, ...] | None) -> str:
    """The statement that calls ``function``, with an argument on each line where there are many.

    Args:
        function: the name that the function has in the adapter.
        parameters: those of the function; None if they are not known.
    """
    if parameters is None or tuple(item.name for item in parameters) == OURS:
        return f"{function}({', '.join(OURS)})"
    lines = []
    for item in parameters:
        if item.is_unknown:
            shape = "None" if item.positional else f"{item.name}=None"
            lines.append(f"{shape},  # set this: {item.name}")
        elif item.value is not None:
            lines.append(f"{item.value}," if item.positional else f"{item.name}={item.value},")
    return "\n".join([f"{function}(", *(f"    {line}" for line in lines), ")"])


def _parameters(given: ast.arguments) -> tuple[Parameter, ...]:
    by_place = [*given.posonlyargs, *given.args]
    missing = len(by_place) - len(given.defaults)
    defaults = [None] * missing + [ast.unparse(value) for value in given.defaults]
    found = [
        Parameter(argument.arg, default, positional=argument in given.posonlyargs)
        for argument, default in zip(by_place, defaults, strict=True)
    ]
    for argument, value in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        found.append(Parameter(argument.arg, None if value is None else ast.unparse(value)))
    return tuple(found)
