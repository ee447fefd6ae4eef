"""The files that a framework begins with: an adapter of its saver, claims, and a CI job."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

from jinja2 import Environment, PackageLoader, StrictUndefined

from saver_conformance.cases.case import Mode
from saver_conformance.errors import StarterFileError
from saver_conformance.getting_started.signature import SHARD_SIZE, Parameter, call

ADAPTER = "saver_adapter.py"
CLAIMS = "saver_claims.toml"
WORKFLOW = ".github/workflows/saver.yml"
SAVER = "saver_adapter:save"
"""The address of the saver in the adapter."""

_TEMPLATES = {ADAPTER: "adapter.py.j2", CLAIMS: "claims.toml.j2", WORKFLOW: "workflow.yml.j2"}


@dataclass(frozen=True)
class Framework:
    """What is known of a framework.

    Attributes:
        saver: the address of its saver.
        patterns: the modes that it claims, as patterns.
        modes: the modes that match.
        parameters: those of the saver; None if its source does not show them.
        is_project: whether pip can install the folder.
    """

    saver: str
    patterns: tuple[str, ...]
    modes: tuple[Mode, ...]
    parameters: tuple[Parameter, ...] | None
    is_project: bool

    @property
    def extras(self) -> tuple[str, ...]:
        """The extras of the suite that the modes need."""
        zero = any(mode.engine.startswith("zero") for mode in self.modes)
        qlora = any(mode.method == "qlora" for mode in self.modes)
        return ("conformance", *("deepspeed",) * zero, *("qlora",) * qlora)

    @property
    def splits_weights(self) -> bool:
        """Whether the saver may learn the limit of a weight file."""
        names = {item.name for item in self.parameters or ()}
        return self.parameters is None or bool(names & {"cfg", SHARD_SIZE})


def make(framework: Framework) -> dict[str, str]:
    """The files, by their paths below the framework's folder."""
    module, _, function = framework.saver.partition(":")
    alias = function if function not in ("save", "cfg", "trainer", "model") else "framework_save"
    values = {
        "saver": framework.saver,
        "module": module,
        "imported": function if alias == function else f"{function} as {alias}",
        "call": indent(call(alias, framework.parameters), "    "),
        "patterns": json.dumps(list(framework.patterns)),
        "extras": ",".join(framework.extras),
        "splits_weights": framework.splits_weights,
        "is_project": framework.is_project,
        "address": SAVER,
        "claims": CLAIMS,
    }
    # GitHub's expressions have the usual braces.
    environment = Environment(
        loader=PackageLoader("saver_conformance.getting_started"),
        undefined=StrictUndefined,
        variable_start_string="<<",
        variable_end_string=">>",
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    return {
        path: environment.get_template(name).render(values) for path, name in _TEMPLATES.items()
    }


def write(files: dict[str, str], folder: Path) -> Sequence[Path]:
    """Write new files below ``folder``.

    Returns:
        The paths of the files.

    Raises:
        StarterFileError: one of them exists; nothing is written.
    """
    paths = {folder / name: text for name, text in files.items()}
    if found := [str(path) for path in paths if path.exists() or path.is_symlink()]:
        raise StarterFileError(
            f"expected no file to be in the way, found {', '.join(found)}; nothing was written, "
            "move it away or choose another folder with --dir"
        )
    for path, text in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    return tuple(paths)
