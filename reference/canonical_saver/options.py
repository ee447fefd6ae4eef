"""The options that say how to save, as they are given, as fields of a request."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from canonical_saver.errors import RequestError
from canonical_saver.request import DEFAULT_SHARD_SIZE, Digest, Format, Verify

FORMATS: tuple[Format, ...] = ("safetensors", "torch", "dcp")
VERIFICATIONS: tuple[Verify, ...] = ("layout", "full")

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "float16": torch.float16,
    "fp16": torch.float16,
    "half": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float64": torch.float64,
}


def parse_options(
    *,
    format: Any = None,
    max_shard_size: Any = None,
    dtype: Any = None,
    verify: Any = None,
    checksums: Any = None,
    check_replicas: Any = None,
    digest: Any = None,
    portable: Any = None,
    names: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Validate the options that say how to save; None means the default, ``names`` is as above.

    Returns:
        The fields of a :class:`Request` that they become.

    Raises:
        RequestError: a value has no meaning; says which are known.
    """
    switches = {"checksums": checksums, "check_replicas": check_replicas, "portable": portable}
    for option, value in switches.items():
        if value is not None and not isinstance(value, bool):
            key = names.get(option, option)
            raise RequestError(f"{key}: expected true or false, found {value!r}")
    kind = _one_of(names.get("format", "format"), format, FORMATS)
    return {
        "format": kind,
        "max_shard_size": parse_size(max_shard_size),
        "dtype": _parse_dtype(names.get("dtype", "dtype"), dtype),
        "verify": _one_of(names.get("verify", "verify"), verify, VERIFICATIONS),
        "checksums": bool(checksums),
        "check_replicas": check_replicas is not False,
        "digest": _parse_digest(names.get("digest", "digest"), digest, kind),
        "portable": portable is not False,
    }


def parse_size(value: Any) -> int:
    """Turn bytes or a text such as ``"5GB"`` or ``"300KB"`` into bytes.

    Raises:
        RequestError: not a positive size.
    """
    if value is None:
        return DEFAULT_SHARD_SIZE
    size = -1.0
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str):
        text = value.strip().upper()
        unit = next((u for u in sorted(_UNITS, key=len, reverse=True) if text.endswith(u)), "")
        try:
            size = float(text.removesuffix(unit)) * _UNITS.get(unit, 1)
        except ValueError:
            size = -1
    if not 1 <= size < 2**63:
        raise RequestError(
            f"max_shard_size: expected bytes or a text such as '5GB' or '300KB', found {value!r}"
        )
    return int(size)


def _one_of(key: str, value: Any, known: tuple[Any, ...]) -> Any:
    if value is None:
        return known[0]
    if value not in known:
        raise RequestError(f"{key}: expected one of {', '.join(known)}, found {value!r}")
    return value


def _parse_digest(key: str, value: Any, kind: Format) -> Digest:
    if value is not None and not isinstance(value, bool) and value != "file":
        raise RequestError(f"{key}: expected true, false or 'file', found {value!r}")
    if value and kind == "dcp":
        raise RequestError(
            f"{key}: expected safetensors or torch as the format, found dcp, whose files hold "
            "parts of tensors; save as safetensors"
        )
    return value or False


def _parse_dtype(key: str, value: Any) -> torch.dtype | None:
    if value is None or isinstance(value, torch.dtype):
        dtype = value
    else:
        dtype = _DTYPES.get(str(value).removeprefix("torch."))
        if dtype is None:
            known = ", ".join(sorted(_DTYPES))
            raise RequestError(f"{key}: expected one of {known}, found {value!r}")
    if dtype is not None and not dtype.is_floating_point:
        raise RequestError(f"{key}: expected a floating-point dtype, found {dtype}")
    return dtype
