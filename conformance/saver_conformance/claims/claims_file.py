"""What a saver claims to handle, in a TOML file: ``--claims FILE.toml``.

The same as ``@claims`` says above a saver in its source::

    modes = ["full-*", "lora-ddp"]      # others are not tried
    without = ["META-007", "CRASH-*"]   # clauses that it has no part in
    results = ["trained", "merged"]     # it merges when cfg says merge_lora; left out: trained

    [only]                              # values of axes; the first stands in for all others
    max_shard_size = ["default"]        # it never splits weights
    architecture = ["llama", "qwen2"]   # see: saver-conformance list axes

    [never]                             # values of axes whose cases are not tried
    setting = ["no-gather"]

    [checkpoints]                       # its part in a trainer's checkpoints; see KEEP
    prepare = "my_package.saving:at_checkpoints"   # called before trainer.train()
    model = "weights"                   # the folder of the model in a checkpoint
    resumes = true                      # a resumed training ends with the same bits

Another key that is left out claims everything, except ``checkpoints``: without it nothing is
claimed of them. TOML has no null: ``"default"`` stands for it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saver_conformance.cases.case import Adapter, Case, check_value
from saver_conformance.claims import Claim
from saver_conformance.claims.checkpoint_claim import CheckpointClaim
from saver_conformance.errors import ClaimsFileError, UnknownSaverError
from saver_conformance.safe_text import quoted

_LISTS = ("modes", "without", "results")
_TABLES = ("only", "never")
_KEYS = (*_LISTS, *_TABLES, "checkpoints")
_NULL = "default"
_NOT_AXES = ("mode", "adapter", "after", "trainer", "result")
"""Fields whose values a claim cannot choose this way; modes and results have keys of their own."""


def read_claims(path: Path) -> Claim:
    """The claims of the file at ``path``, which stands where the saver's address will.

    Raises:
        ClaimsFileError: it cannot be read, or claims something that does not exist.

    Examples:
        >>> _ = (folder / "claims.toml").write_text('modes = ["full-*"]')
        >>> read_claims(folder / "claims.toml").modes
        ('full-*',)
    """
    try:
        plain = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ClaimsFileError(f"{path} cannot be read: {error}") from error
    if unknown := sorted(set(plain) - set(_KEYS)):
        raise ClaimsFileError(
            f"{path}: unknown keys {', '.join(unknown)}; expected {', '.join(_KEYS)}"
        )
    lists: dict[str, Any] = {
        key: _read_list(path, key, plain[key]) for key in _LISTS if key in plain
    }
    try:
        checkpoints = (
            CheckpointClaim.from_plain(str(path), plain["checkpoints"])
            if "checkpoints" in plain
            else None
        )
        tables: dict[str, Any] = {
            key: _read_table(path, key, plain.get(key, {})) for key in _TABLES
        }
        return Claim(str(path), **lists, **tables, checkpoints=checkpoints)
    except UnknownSaverError as error:
        raise ClaimsFileError(str(error)) from error


def _read_list(path: Path, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise ClaimsFileError(f"{path}: {key}: expected a list of names, found {quoted(value)}")
    return tuple(value)


def _read_table(path: Path, key: str, table: Any) -> dict[str, tuple[Any, ...]]:
    if not isinstance(table, Mapping):
        raise ClaimsFileError(f"{path}: expected a table [{key}], found {quoted(table)}")
    claimed = {}
    for name, values in table.items():
        if not isinstance(values, list) or not values:
            raise ClaimsFileError(
                f"{path}: {key}.{name}: expected a list of values, found {quoted(values)}"
            )
        kind = Case if name in Case.__dataclass_fields__ else Adapter
        if name not in kind.__dataclass_fields__ or name in _NOT_AXES:
            raise ClaimsFileError(
                f"{path}: {key}.{name}: there is no such axis; see: saver-conformance list axes"
            )
        plain = [None if value == _NULL and _has_null(kind, name) else value for value in values]
        for value in plain:
            try:
                check_value(kind, name, value)
            except ValueError as error:
                raise ClaimsFileError(f"{path}: {key}.{error}") from error
        claimed[name] = tuple(plain)
    return claimed


def _has_null(kind: type[Case | Adapter], name: str) -> bool:
    return kind.__dataclass_fields__[name].default is None
