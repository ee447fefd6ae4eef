"""Savers by name: what is known of those in ``fixtures/`` of a folder, read without running them.

A saver that cannot do everything says so in its own file, above its function::

    @claims("my-saver", modes=("full-*", "lora-ddp"), only={"max_shard_size": [None]})
    def save(cfg, trainer, model): ...

It is then addressed as ``my-saver``, and judged by what it claims. The arguments are literals:
the suite reads them from the source, and what the file imports is imported by the ranks alone.
A saver of any other folder says the same in a file, see ``claims_file.py``.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, TypeVar

from saver_conformance.cases.case import MODES, Adapter, Case, Mode
from saver_conformance.cases.families import families
from saver_conformance.cases.fitting import nearest_trainable, with_model
from saver_conformance.errors import UnknownSaverError
from saver_conformance.spec import SPEC

FIXTURES = "fixtures"
"""Folder of packages of savers."""

_Function = TypeVar("_Function", bound=Callable[..., object])
_ARGUMENTS = ("cfg", "trainer", "model")
_DECORATOR = "claims"


@dataclass(frozen=True, slots=True)
class Claim:
    """A saver and what it says that it can do.

    Attributes:
        address: ``package.module:function``.
        name: a short name; empty when it has none.
        modes: patterns of the modes that it has a way to save.
        only: for fields of a case or of its adapter, the values that the saver has a way to handle;
            other values are replaced by the first of them.
        without: patterns of the clauses that it has no part in, for instance because its library
            saves weights alone.
        trainer: the trainer that belongs to the saver, by its name in the workload.
    """

    address: str
    name: str = ""
    modes: tuple[str, ...] = ("*",)
    without: tuple[str, ...] = ()
    only: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    trainer: str = "transformers"

    def __post_init__(self) -> None:
        known = {item.name for kind in (Case, Adapter) for item in fields(kind)}
        if unknown := sorted(set(self.only) - known):
            raise UnknownSaverError(f"{self.address}: a case has no {', '.join(unknown)}")
        for pattern in self.without:
            if not any(fnmatchcase(clause, pattern) for clause in SPEC):
                raise UnknownSaverError(f"{self.address}: no clause is called {pattern!r}")
        for pattern in self.modes:
            if not any(mode.matches((pattern,)) for mode in MODES):
                raise UnknownSaverError(f"{self.address}: no mode is called {pattern!r}")

    def claiming(self, other: Claim | None) -> Claim:
        """This saver with the claims of ``other``, if there are any."""
        if other is None:
            return self
        return replace(self, modes=other.modes, without=other.without, only=other.only)

    def leaves_out(self, clause: str) -> bool:
        """Whether the saver has no part in ``clause``."""
        return any(fnmatchcase(clause, pattern) for pattern in self.without)

    @property
    def line(self) -> str:
        """The address, and the name before it when there is one."""
        return f"{self.name}  {self.address}" if self.name else self.address

    def fit(self, case: Case) -> Case:
        """``case``, or the nearest one that the saver claims to handle.

        Earlier saves into its folder are the saver's too: those in modes that it does not claim
        are left out, and the others are made to fit like any. Of models that its trainer cannot
        train, the first claimed family takes the place.
        """
        architectures = self.only.get("architecture", tuple(families()))
        if case.architecture not in architectures:
            kind = case.adapter.kind if case.adapter else ""
            case = with_model(case, architectures[0], kind)
        adapter = case.adapter
        if adapter is not None:
            adapter = replace(adapter, **self._nearest(adapter))
        values = {"after": self._fit_earlier(case), **self._nearest(case)}
        if (values.get("existing_save", "empty"), values.get("foreign_files", "none")) != (
            "empty",
            "none",
        ):
            values["after"] = None  # what lies in the folder is the one or the other
        fitted = replace(case, **{**values, "adapter": adapter, "trainer": self.trainer})
        return nearest_trainable(fitted, architectures, self.only.get("kind", ("lora",)))

    def _fit_earlier(self, case: Case) -> Case | None:
        """The last save before ``case`` in a mode that the saver claims, made to fit."""
        earlier = case.after
        while earlier is not None and not earlier.mode.matches(self.modes):
            earlier = earlier.after
        return None if earlier is None else self.fit(earlier)

    def _nearest(self, data: Case | Adapter) -> dict[str, Any]:
        names = {item.name for item in fields(data)}
        return {
            name: values[0]
            for name, values in self.only.items()
            if name in names and getattr(data, name) not in values
        }


def claims(
    name: str,
    *,
    modes: Sequence[str] = ("*",),
    without: Sequence[str] = (),
    only: Mapping[str, Sequence[Any]] | None = None,
    trainer: str = "transformers",
) -> Callable[[_Function], _Function]:
    """Declare what the decorated saver is called and claims; the fields are those of ``Claim``."""

    def declare(function: _Function) -> _Function:
        return function

    return declare


def find_claim(saver: str, folder: Path) -> Claim:
    """What is known of ``saver``, a name or an address.

    Args:
        saver: a name that a file below ``folder / "fixtures"`` claims, or an address. An address
            without a claim is taken to claim everything.
        folder: the folder from which savers are imported.

    Raises:
        UnknownSaverError: ``saver`` is no address and no file claims the name, or a file's claim
            cannot be read.
    """
    found = list(list_savers(folder))
    for claim in found:
        if saver in (claim.name, claim.address):
            return claim
    if ":" in saver:
        return Claim(saver)
    names = ", ".join(claim.name for claim in found if claim.name)
    raise UnknownSaverError(
        f"{saver!r} is no saver; write package.module:function"
        + (f", or one of the names {names}" if names else "")
    )


def check_address(address: str, folder: Path) -> None:
    """Look for the package of ``address`` without importing it.

    Args:
        address: ``package.module:function``.
        folder: the folder from which savers are imported, besides where Python looks.

    Raises:
        UnknownSaverError: there certainly is none.
    """
    package = address.partition(":")[0].partition(".")[0]
    if package in sys.modules or PathFinder.find_spec(package, [str(folder)]):
        return
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return
    if found is None:
        raise UnknownSaverError(
            f"the saver {address} cannot be imported: there is no module {package!r} in {folder} "
            "or where Python looks; run it where the saver is importable, or set PYTHONPATH"
        )


def claimed_modes(claim: Claim, modes: Sequence[Mode]) -> tuple[Mode, ...]:
    """Those of ``modes`` that ``claim`` has.

    Raises:
        UnknownSaverError: it has none of them.
    """
    kept = tuple(mode for mode in modes if mode.matches(claim.modes))
    if not kept:
        raise UnknownSaverError(
            f"{claim.name or claim.address} claims none of the modes that are asked for; it claims "
            f"{', '.join(claim.modes)}"
        )
    return kept


def list_savers(folder: Path) -> Iterator[Claim]:
    """The savers below ``folder / "fixtures"``, importable from ``folder``.

    A saver is a public function that takes ``cfg, trainer, model``, or one that a decorator makes
    into such a function.

    Raises:
        UnknownSaverError: a claim cannot be read.
    """
    for path in sorted((folder / FIXTURES).glob("*/*.py")):
        if path.stem.startswith("_"):
            continue
        module = ".".join(path.relative_to(folder).with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                arguments = tuple(argument.arg for argument in node.args.args)
                if node.decorator_list or arguments == _ARGUMENTS:
                    yield _read_claim(f"{module}:{node.name}", node)


def _read_claim(address: str, function: ast.FunctionDef) -> Claim:
    for call in function.decorator_list:
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            continue
        if call.func.id != _DECORATOR:
            continue
        try:
            (name,) = (ast.literal_eval(value) for value in call.args)
            said = {str(item.arg): ast.literal_eval(item.value) for item in call.keywords}
            said.update({key: tuple(said[key]) for key in ("modes", "without") if key in said})
        except ValueError as error:
            raise UnknownSaverError(
                f"{address}: a claim is a name and literals: {error}"
            ) from error
        return Claim(address, name, **said)
    return Claim(address)
