"""One pass from a trained model to its directory, as every rank runs it.

request -> weights -> layout -> write -> verify -> publish
"""

from __future__ import annotations

import gc
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from canonical_saver import casting, companions, dcp, formats, overflow, request, stale, weights
from canonical_saver.engines import Engines
from canonical_saver.entries import Weights, require_data
from canonical_saver.errors import RequestError, VerifyError, WriteError
from canonical_saver.layout import File, Placed
from canonical_saver.modules import unwrap
from canonical_saver.progress import Meter, Tell, shown
from canonical_saver.publish import Staging
from canonical_saver.ranks import Ranks
from canonical_saver.request import Request
from canonical_saver.transfers import (
    Range,
    groups_to_compute,
    packed,
    prove_tiling,
    ranges,
    transfers,
)
from canonical_saver.write import Writer, batch_ranges

_log = logging.getLogger("canonical_saver")


@dataclass(frozen=True)
class Report:
    """What a save did.

    Attributes:
        output_dir: the folder of the saved model.
        files: its files, relative to the folder.
        bytes: bytes of the weight files.
        seconds: how long it took on this rank.
        ranks: how many ranks saved together.
        warnings: what is saved otherwise than may be expected, the same on every rank.
    """

    output_dir: Path
    files: tuple[str, ...]
    bytes: int
    seconds: float
    ranks: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedFile:
    """One weight file that a save would write.

    Attributes:
        name: path relative to the output folder.
        size: its bytes.
        ranges: first byte and number of bytes of each stretch that this rank would write.
    """

    name: str
    size: int
    ranges: tuple[tuple[int, int], ...]


def save_trained_model(cfg: Any, trainer: Any, model: nn.Module) -> None:
    """Save a trained model as the one canonical directory; called on every rank.

    Args:
        cfg: the training configuration (a mapping or an object with attributes); ``output_dir``
            says where, see :func:`canonical_saver.request.from_training` for the other keys.
        trainer: the trainer, or None; brings the tokenizer and the wrapped model.
        model: the model, wrapped or not, in any training mode.

    Raises:
        SaveError: the same on every rank; what lay in the folder before is then whole.
    """
    ranks = Ranks.current()
    with ranks.phase("request"):
        asked = request.from_training(cfg, trainer, model)
    _save(asked, ranks)


def save_model(
    model: nn.Module,
    output_dir: str | Path,
    *,
    tokenizer: Any = None,
    format: request.Format = "safetensors",
    max_shard_size: int | str | None = None,
    dtype: torch.dtype | str | None = None,
    verify: Literal["layout", "full"] = "layout",
    checksums: bool = False,
    progress: Tell | bool | None = None,
) -> Report:
    """Save a model without a trainer; called on every rank.

    Args:
        model: the model, wrapped or not: plain, DDP, FSDP, or a DeepSpeed engine.
        output_dir: the folder that becomes the saved model.
        tokenizer: tokenizer or processor to save with it.
        format: ``safetensors``, ``torch`` or ``dcp``.
        max_shard_size: bytes of tensors a file at most, or a text such as ``"5GB"``.
        dtype: cast floating-point tensors to it, except those of quantized modules and those that
            transformers keeps in float32; by default each keeps its own.
        verify: ``layout`` proves sizes and tiling, ``full`` reads everything back too.
        checksums: write ``SHA256SUMS``, to be checked by ``sha256sum -c``.
        progress: a function that each rank calls with a :class:`Progress` after each piece that it
            writes; True or False for a bar on rank 0 or none; by default a bar on a terminal.

    Returns:
        What was saved.

    Raises:
        SaveError: the same on every rank; what lay in the folder before is then whole.
    """
    ranks = Ranks.current()
    with ranks.phase("request"):
        asked = request.build(
            model,
            output_dir,
            format=format,
            max_shard_size=max_shard_size,
            dtype=dtype,
            verify=verify,
            checksums=checksums,
            tokenizer=tokenizer,
            progress=progress,
        )
    return _save(asked, ranks)


@torch.no_grad()
def plan(
    model: nn.Module,
    *,
    max_shard_size: int | str | None = None,
    dtype: torch.dtype | str | None = None,
) -> list[PlannedFile]:
    """Say what a save in the ``safetensors`` format would write, without writing.

    Args:
        model: the model, wrapped or not.
        max_shard_size: as in :func:`save_model`.
        dtype: as in :func:`save_model`.

    Returns:
        The weight files, with the stretches that this rank would write.
    """
    ranks = Ranks.current()
    with _no_collections(), ranks.phase("plan"):
        asked = request.build(model, "plan", max_shard_size=max_shard_size, dtype=dtype)
        inner = weights.find_model(asked.roots)
        sets = weights.collect(inner, Engines(asked.roots, ranks.rank))
        sets = [casting.limited(inner, one, asked.dtype) for one in sets]
        files = formats.lay_out(sets, asked)
        mine = ranges(transfers(files))
    return [
        PlannedFile(f.name, f.size, tuple(r[1:] for r in mine if r[0] == number))
        for number, f in enumerate(files)
    ]


@torch.no_grad()
def _save(asked: Request, ranks: Ranks) -> Report:
    begun = time.monotonic()
    with _no_collections(), ranks.phase("weights"):
        model = weights.find_model(asked.roots)
        engines = Engines(asked.roots, ranks.rank)
        merge = asked.merge and weights.can_merge(model)
        if merge and asked.format == "dcp":
            raise RequestError(
                "relora: expected weights in memory, as the dcp format has them, found ones that "
                "are yet to be merged; save as safetensors"
            )
        sets = weights.collect(model, engines, merge=merge)
        for one in sets:
            require_data(one)
        if merge:
            model = unwrap(model.get_base_model())
        model = sets[0].owner or model
        sets = [casting.limited(model, one, asked.dtype) for one in sets]
        companions.validate(model)
    with _no_collections(), ranks.phase("layout"):
        files = formats.lay_out(sets, asked)
        planned = transfers(files)
        described = repr([(f.name, f.size, f.header) for f in files]).encode()
    layouts = ranks.gather(hashlib.sha256(described).hexdigest())
    with ranks.phase("layout"):
        if len(set(layouts)) != 1:
            raise VerifyError(
                "the ranks hold models of different names, dtypes or shapes: expected one layout, "
                f"found {len(set(layouts))}; is it the same model on every rank?"
            )

    staging: Staging | None = None
    with ExitStack() as stack:
        tell = stack.enter_context(shown(asked.progress, ranks.rank))
        token = secrets.token_hex(16)
        staged_in = ""
        with ranks.phase("stage"):
            if ranks.rank == 0:
                staging = Staging(asked.output_dir)
                stack.callback(staging.abandon)
                companions.write(
                    model, sets, asked.tokenizer, staging.folder, asked.output_dir, asked.dtype
                )
                (staging.folder / "probe").write_text(token)
                staged_in = staging.name
        token, staged_in = ranks.share((token, staged_in))
        folder = asked.output_dir / staged_in
        sees = ranks.gather(ranks.rank == 0 or _sees(folder / "probe", token))
        mode = 0o644
        archives: list[formats.Archive] = []
        with ranks.phase("create"):
            if staging is not None:
                mode = (folder / "probe").stat().st_mode & 0o777
                (folder / "probe").unlink()
                if asked.format == "torch":
                    archives = formats.create_archives(folder, files)
        if asked.format == "torch":
            files = formats.place(files, ranks.share(archives))
            with ranks.phase("layout"):
                planned = transfers(files)
        groups = groups_to_compute(files)
        writer = Writer(folder, files, sees, ranks, asked.verify == "full", Meter(tell))
        everyone = ranks.gather(packed(ranges(planned)))
        with ranks.phase("verify the layout"):
            prove_tiling(files, everyone)
            if staging is not None:
                writer.create()
                formats.write_indexes(folder, sets, files, asked)
        with ranks.phase("write"):
            writer.expect(planned, groups)
            writer.write(planned)
            if asked.format == "dcp" and not all(sees):
                blind = [rank for rank, seen in enumerate(sees) if not seen]
                raise WriteError(
                    "expected one file system for all ranks, as the dcp format needs it, found "
                    f"that ranks {blind} do not see {asked.output_dir} of rank 0; "
                    "save as safetensors"
                )
        if asked.format == "dcp":
            with ranks.phase("write"):
                for one in sets:
                    overflows = dcp.write(folder / one.folder, one, asked.dtype, ranks)
                    writer.overflows.counts += overflows
        if not all(sees):
            pieces: list[list[Range]] = ranks.gather(
                [] if sees[ranks.rank] else batch_ranges(planned)
            )
            with ranks.phase("stream"):
                writer.stream(planned, pieces)
        for turn, group in enumerate(groups):
            with ranks.phase("convert"):
                writer.compute(turn, _set_of(group, sets), group)
        with ranks.phase("verify"):
            writer.compare(planned)
            if staging is not None:
                _check_files(folder, files)
        names: list[str] = []
        with ranks.phase("publish"):
            if staging is not None:
                if asked.checksums:
                    _write_checksums(folder)
                old = stale.files(
                    asked.output_dir,
                    adapter=sets[0].adapter is not None,
                    tokenizer=asked.tokenizer is not None,
                    folders=[w.folder for w in sets if w.folder],
                )
                names = staging.commit(old, mode)
    names = ranks.share(names)
    size = sum(file.size for file in files)
    warnings = [text for one in sets for text in one.warnings]
    if asked.dtype is not None:
        warnings += overflow.warnings(ranks.gather(writer.overflows.counts), asked.dtype)
    for text in warnings if ranks.rank == 0 else ():
        _log.warning(text)
    seconds = time.monotonic() - begun
    return Report(asked.output_dir, tuple(names), size, seconds, ranks.world_size, tuple(warnings))


@contextmanager
def _no_collections() -> Iterator[None]:
    """Keep the garbage collector from walking through all that is planned, again and again.

    Planning makes some objects for each tensor and no cycles: of its time, collections would be
    more than half.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _set_of(group: list[tuple[int, Placed]], sets: list[Weights]) -> Weights:
    """The set of weights that a group of computed tensors belongs to."""
    _, placed = group[0]
    return next(one for one in sets if any(entry is placed.entry for entry in one.entries))


def _sees(probe: Path, token: str) -> bool:
    """Whether this rank's view of the output folder is that of rank 0, and can be written to."""
    try:
        return probe.read_text() == token and os.access(probe, os.W_OK)
    except OSError:
        return False


def _check_files(folder: Path, files: list[File]) -> None:
    for file in files:
        path = folder / file.name
        if (found := path.stat().st_size) != file.size:
            raise VerifyError(
                f"{file.name}: expected {file.size} bytes, found {found}; check the disk"
            )
        with path.open("rb") as stream:
            if stream.read(len(file.header)) != file.header:
                raise VerifyError(
                    f"{file.name}: the header reads back differently than it was written; check "
                    "the disk"
                )


def _write_checksums(folder: Path) -> None:
    lines = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        lines.append(f"{digest}  {path.relative_to(folder).as_posix()}\n")
    (folder / stale.CHECKSUMS).write_text("".join(lines))
