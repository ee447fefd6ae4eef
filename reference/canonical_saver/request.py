"""What is requested: the configuration, the trainer and the model become one validated value.

Nothing after this module looks at the configuration again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

if TYPE_CHECKING:
    from canonical_saver.progress import ProgressCallback

Format = Literal["safetensors", "torch", "dcp"]
Verify = Literal["layout", "full"]
Digest = Literal["file"] | bool

DEFAULT_SHARD_SIZE = 50_000_000_000
"""Bytes a file by default, as ``save_pretrained`` of transformers 5 has it (50GB)."""

CFG_KEYS: Mapping[str, str] = {
    option: f"save_{option}"
    for option in ("format", "dtype", "verify", "checksums", "check_replicas", "digest", "portable")
}
"""The keys of a configuration for the options that :func:`canonical_saver.save_model` has."""

_PLAIN_PATH = re.compile(r"[^$~:\0]+")
"""Nothing in it is a variable, somebody's home or another machine."""


@dataclass(frozen=True)
class Request:
    """One save, fully decided.

    Attributes:
        roots: all modules in which wrappers of the model may be found; first the one that was
            passed as the model.
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
    :func:`canonical_saver.options.parse_options`, which ``options`` are for.

    Raises:
        RequestError: a value has no meaning; says which are known.
    """
    saved = tokenizer is None or can_be_saved(tokenizer)
    known = progress is None or isinstance(progress, bool) or callable(progress)
    if not (isinstance(model, nn.Module) and saved and known):
        from canonical_saver.wrong_requests import module_inside

        model = module_inside(model, tokenizer, progress)
    return Request(
        roots=roots or (model,),
        output_dir=_folder(output_dir),
        **_fields(names, options),
        tokenizer=tokenizer,
        progress=progress,
        merge=merge,
        base_model=base_model,
    )


def _folder(value: Any) -> Path:
    """Make an absolute path of what names a folder of this machine."""
    if isinstance(value, str | Path) and _PLAIN_PATH.fullmatch(str(value)):
        return Path(value).absolute()
    from canonical_saver import output_path

    return output_path.parse(value)


def _fields(names: Mapping[str, str], options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of a request that its options become; an option that is a default needs none."""
    usual = {field.name: field.default for field in fields(Request)}
    given = {k: v for k, v in options.items() if v is not None and v is not usual[k]}
    if all(isinstance(value, bool) and isinstance(usual[k], bool) for k, value in given.items()):
        return given
    from canonical_saver.options import parse_options

    return parse_options(names=names, **options)


def can_be_saved(tokenizer: Any) -> bool:
    """Whether something is a tokenizer or processor; its class alone is none."""
    able = callable(getattr(tokenizer, "save_pretrained", None))
    return able and not isinstance(tokenizer, type)
