"""A saver and what it claims; read from its source, without running it.

A saver that cannot do everything says so above its function::

    @claims("my-saver", modes=("full-*", "lora-ddp"), only={"max_shard_size": [None]})
    def save(cfg, trainer, model): ...

It is then judged by what it claims, and ``known_savers`` finds it by its name. The arguments are
literals: the suite reads them from the source, and only the ranks import what the file imports.
The same can be said in a file, see ``claims_file``.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar, get_args

from saver_conformance.cases.case import MODES, Adapter, Case, Mode, Result
from saver_conformance.cases.families import families
from saver_conformance.cases.fitting import nearest_trainable, with_model
from saver_conformance.claims.checkpoint_claim import CheckpointClaim
from saver_conformance.errors import UnknownSaverError
from saver_conformance.spec import SPEC

_Function = TypeVar("_Function", bound=Callable[..., object])
RESUMING = "KEEP-007"
"""The clause of savers that claim that training resumes from their checkpoints."""
_ARGUMENTS = ("cfg", "trainer", "model")
RESULTS: tuple[str, ...] = get_args(Result)
"""What a save can be asked to be."""
_PACKAGE, _DECORATOR = "saver_conformance.claims", "claims"


@dataclass(frozen=True, slots=True)
class Claim:
    """A saver and what it says that it can do.

    Attributes:
        address: ``package.module:function``.
        name: a short name; empty when it has none.
        modes: patterns of the modes that it has a way to save.
        only: for fields of a case or of its adapter, the values that the saver has a way to handle;
            other values are replaced by the first of them.
        never: for fields of a case or of its adapter, values that the saver has no way to handle;
            cases with one are not tried.
        without: patterns of the clauses that it has no part in, for instance because its library
            saves weights only.
        trainer: the trainer that belongs to the saver, by its name in the workload.
        checkpoints: its part in the checkpoints of a training; None when it has none.
        results: what it has a way to save, of the values of the axis ``result``; others are not
            tried. Merging has to be claimed: few savers do it.
    """

    address: str
    name: str = ""
    modes: tuple[str, ...] = ("*",)
    without: tuple[str, ...] = ()
    only: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    never: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    trainer: str = "transformers"
    checkpoints: CheckpointClaim | None = None
    results: tuple[str, ...] = ("trained",)

    def __post_init__(self) -> None:
        for key in ("only", "never"):
            object.__setattr__(self, key, _as_in_cases(getattr(self, key)))
        known = {item.name for kind in (Case, Adapter) for item in fields(kind)}
        if unknown := sorted({*self.only, *self.never} - known):
            raise UnknownSaverError(f"{self.address}: a case has no {', '.join(unknown)}")
        for pattern in self.without:
            if not any(fnmatchcase(clause, pattern) for clause in SPEC):
                raise UnknownSaverError(f"{self.address}: no clause is called {pattern!r}")
        for pattern in self.modes:
            if not any(mode.matches((pattern,)) for mode in MODES):
                raise UnknownSaverError(f"{self.address}: no mode is called {pattern!r}")
        for result in self.results:
            if result not in RESULTS:
                known_results = ", ".join(RESULTS)
                raise UnknownSaverError(
                    f"{self.address}: no result is called {result!r}; there are {known_results}"
                )

    def claiming(self, other: Claim | None) -> Claim:
        """This saver with the claims of ``other``, if there are any."""
        if other is None:
            return self
        return replace(
            self,
            modes=other.modes,
            without=other.without,
            only=other.only,
            never=other.never,
            checkpoints=other.checkpoints,
            results=other.results,
        )

    def takes(self, case: Case) -> bool:
        """Whether the saver is tried on ``case``, or on one like it.

        It has to have a way to save what the case and those before it ask for.
        """
        if any(one.result not in self.results for one in case.saves()):
            return False
        if any(
            _has(one, name, values) for one in case.saves() for name, values in self.never.items()
        ):
            return False
        if case.probe != "checkpoints":
            return True
        if self.checkpoints is None or self.trainer != "transformers":
            return False
        return case.mode.matches(self.checkpoints.modes)

    def leaves_out(self, clause: str) -> bool:
        """Whether the saver has no part in ``clause``."""
        return any(fnmatchcase(clause, pattern) for pattern in self.unclaimed)

    @property
    def unclaimed(self) -> tuple[str, ...]:
        """Patterns of all clauses that the saver has no part in."""
        part = self.checkpoints
        return self.without if part is None or part.resumes else (*self.without, RESUMING)

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
            # What lies in the folder is the one or the other.
            values |= {"after": None, "disks": "shared"}
            if case.training_setting.content != "of the case":
                values["setting"] = "usual"
        if values.get("nodes", case.nodes) == 1:
            values["disks"] = "shared"
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


def _as_in_cases(claimed: Mapping[str, Sequence[Any]]) -> dict[str, tuple[Any, ...]]:
    """What is claimed of fields; a list in a source or a file stands for a case's tuple."""
    return {
        name: tuple(tuple(value) if isinstance(value, list) else value for value in values)
        for name, values in claimed.items()
    }


def _has(case: Case, name: str, values: Sequence[Any]) -> bool:
    """Whether a case, or its adapter, has one of some values in a field."""
    owners = (data for data in (case, case.adapter) if hasattr(data, name))
    return any(getattr(data, name) in values for data in owners)


def claims(
    name: str,
    *,
    modes: Sequence[str] = ("*",),
    without: Sequence[str] = (),
    only: Mapping[str, Sequence[Any]] | None = None,
    never: Mapping[str, Sequence[Any]] | None = None,
    trainer: str = "transformers",
    checkpoints: Mapping[str, Any] | None = None,
    results: Sequence[str] = ("trained",),
) -> Callable[[_Function], _Function]:
    """Declare what the decorated saver is called and claims; the fields are those of ``Claim``."""

    def declare(function: _Function) -> _Function:
        return function

    return declare


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


def claims_in(path: Path, module: str, function: str = "") -> Iterator[Claim]:
    """The savers in the source of ``module`` at ``path``.

    A saver is a public function that takes ``cfg, trainer, model``, or one that a decorator makes
    into such a function.

    Args:
        path: the module's file.
        module: its name.
        function: the name of the only function to look at; empty for all.

    Raises:
        UnknownSaverError: the file is no Python, or a claim cannot be read.
    """
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError) as error:
        raise UnknownSaverError(f"{path} cannot be read as Python: {error}") from error
    decorators = frozenset(_names_of_decorator(body))
    for node in body:
        if not isinstance(node, ast.FunctionDef) or function not in ("", node.name):
            continue
        arguments = tuple(argument.arg for argument in node.args.args)
        if not node.name.startswith("_") and (node.decorator_list or arguments == _ARGUMENTS):
            yield _read_claim(f"{module}:{node.name}", node, decorators)


def _names_of_decorator(body: Sequence[ast.stmt]) -> Iterator[str]:
    """What ``claims`` is called in a module; another owner's function may be called so too."""
    for node in body:
        if isinstance(node, ast.ImportFrom) and node.module == _PACKAGE:
            yield from (name.asname or name.name for name in node.names if name.name == _DECORATOR)


def _read_claim(address: str, function: ast.FunctionDef, decorators: frozenset[str]) -> Claim:
    for call in function.decorator_list:
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            continue
        if call.func.id not in decorators:
            continue
        try:
            (name,) = (ast.literal_eval(value) for value in call.args)
            said = {str(item.arg): ast.literal_eval(item.value) for item in call.keywords}
            lists = ("modes", "without", "results")
            said.update({key: tuple(said[key]) for key in lists if key in said})
            if "checkpoints" in said:
                said["checkpoints"] = CheckpointClaim.from_plain(address, said["checkpoints"])
            return Claim(address, name, **said)
        except (ValueError, TypeError) as error:
            raise UnknownSaverError(
                f"{address}: a claim is a name and literals: {error}"
            ) from error
    return Claim(address)
