"""What is requested: the configuration, the trainer and the model become one validated value.

Nothing after this module looks at the configuration again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from canonical_saver import output_path
from canonical_saver.errors import RequestError

if TYPE_CHECKING:
    from canonical_saver.progress import ProgressCallback

Format = Literal["safetensors", "torch", "dcp"]
Verify = Literal["layout", "full"]
Digest = Literal["file"] | bool

FORMATS: tuple[Format, ...] = ("safetensors", "torch", "dcp")
VERIFICATIONS: tuple[Verify, ...] = ("layout", "full")
DEFAULT_SHARD_SIZE = 50_000_000_000
"""Bytes a file by default, as ``save_pretrained`` of transformers 5 has it (50GB)."""

CFG_KEYS: Mapping[str, str] = {
    option: f"save_{option}"
    for option in ("format", "dtype", "verify", "checksums", "check_replicas", "digest", "portable")
}
"""The keys of a configuration for the options that :func:`canonical_saver.save_model` has."""

_log = logging.getLogger("canonical_saver")
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


@dataclass(frozen=True)
class Request:
    """One save, fully decided.

    Attributes:
        model: the outermost module that was passed.
        roots: all modules in which wrappers of the model may be found, the model first.
        output_dir: the folder that becomes the saved model.
        format: how the weights are stored.
        max_shard_size: bytes of tensors a file, at most (a larger tensor has a file of its own).
        dtype: cast floating-point tensors to this, or None to keep each one's own.
        verify: ``layout`` proves sizes and tiling, ``full`` reads everything back too.
        checksums: whether to write ``SHA256SUMS``.
        digest: whether to digest the weights, and with ``file`` to write the digest of each tensor.
        tokenizer: the tokenizer or processor, or None.
        progress: a callback, which every rank calls; False for none; True for a bar on rank 0; None
            for one if standard error is a terminal.
        merge: the key of the configuration that asks for the base with the adapter merged into it,
            ``relora`` or ``merge_lora``; "" if none does.
        check_replicas: find out first whether ranks that are said to hold the same bytes do.
        base_model: the base of an adapter as the configuration names it, a folder or an id on the
            hub; None if it does not.
        portable: whether to make the files next to the weights fit for readers of other versions.
    """

    model: nn.Module
    roots: tuple[nn.Module, ...]
    output_dir: Path
    format: Format = "safetensors"
    max_shard_size: int = DEFAULT_SHARD_SIZE
    dtype: torch.dtype | None = None
    verify: Verify = "layout"
    checksums: bool = False
    tokenizer: Any = None
    progress: ProgressCallback | bool | None = None
    merge: str = ""
    check_replicas: bool = True
    base_model: str | None = None
    digest: Digest = False
    portable: bool = True

    def options(self) -> dict[str, Any]:
        """What must be the same on every rank, as plain values by the names of the options."""
        dtype = None if self.dtype is None else str(self.dtype).removeprefix("torch.")
        found = {name: getattr(self, name) for name in ("max_shard_size", *CFG_KEYS)}
        return found | {"dtype": dtype, "merge": self.merge}


def build(
    model: nn.Module,
    output_dir: Any,
    *,
    roots: tuple[nn.Module, ...] = (),
    tokenizer: Any = None,
    progress: Any = None,
    merge: str = "",
    base_model: str | None = None,
    names: Mapping[str, str] = MappingProxyType({}),
    **options: Any,
) -> Request:
    """Validate each value; None means the default.

    ``names`` has the caller's own names of options, for the error, where they differ from those of
    :func:`parse_options`, which ``options`` are for.

    Raises:
        RequestError: a value has no meaning; says which are known.
    """
    inner = getattr(model, "module", None)
    if not isinstance(model, nn.Module) and isinstance(inner, nn.Module):
        model = inner
    if not isinstance(model, nn.Module):
        raise RequestError(
            f"model: expected a torch.nn.Module, found {type(model).__name__}; pass the model "
            "that was trained"
        )
    if tokenizer is not None and not can_be_saved(tokenizer):
        raise RequestError(
            "tokenizer: expected a tokenizer or processor with a method save_pretrained, found "
            f"{tokenizer!r:.80}; load it first, as AutoTokenizer.from_pretrained does"
        )
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise RequestError(f"progress: expected a function, true or false, found {progress!r}")
    return Request(
        model=model,
        roots=roots or (model,),
        output_dir=output_path.parse(output_dir),
        **parse_options(names=names, **options),
        tokenizer=tokenizer,
        progress=progress,
        merge=merge,
        base_model=base_model,
    )


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


def can_be_saved(tokenizer: Any) -> bool:
    """Whether something is a tokenizer or processor; its class alone is none."""
    able = callable(getattr(tokenizer, "save_pretrained", None))
    return able and not isinstance(tokenizer, type)


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
