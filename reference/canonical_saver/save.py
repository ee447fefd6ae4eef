"""One pass from a trained model to its directory, as every rank runs it.

request -> weights -> layout -> write -> verify -> publish
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from canonical_saver import request
from canonical_saver.collectives import Ranks
from canonical_saver.progress import Tell, shown
from canonical_saver.publishing.publication import Publication
from canonical_saver.request import Request
from canonical_saver.writing import agreement, dcp
from canonical_saver.writing.gather import convert
from canonical_saver.writing.relay import relay
from canonical_saver.writing.shared_folder import look_together
from canonical_saver.writing.write_items import ranges
from canonical_saver.writing.write_plan import Prepared, prepare
from canonical_saver.writing.writer import Writer

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
        warnings: what is not as one may expect and was saved all the same, or what could not be
            written beside the weights, and what to do; the same on every rank.
        left: weights and configurations of other models in the folder, which stay there.
    """

    output_dir: Path
    files: tuple[str, ...]
    bytes: int
    seconds: float
    ranks: int
    warnings: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


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


def save_trained_model(cfg: Any, trainer: Any, model: nn.Module) -> Report:
    """Save a trained model as the one canonical directory; called on every rank.

    Args:
        cfg: the training configuration (a mapping or an object with attributes); ``output_dir``
            says where, see :func:`canonical_saver.request.from_training` for the other keys.
        trainer: the trainer, or None; brings the tokenizer and the wrapped model.
        model: the model, wrapped or not, in any training mode.

    Returns:
        What was saved.

    Raises:
        SaveError: the same on every rank; what lay in the folder before is then whole.
    """
    return _save(lambda: request.from_training(cfg, trainer, model))


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
    check_replicas: bool = True,
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
        check_replicas: compare digests of what several ranks are said to hold before one of them
            writes it, and refuse to lose what only another rank has; see
            :mod:`canonical_saver.weights.replicas` for the rule.
        progress: a function that each rank calls with a :class:`Progress` after each piece that it
            writes; True or False for a bar on rank 0 or none; by default a bar on a terminal.

    Returns:
        What was saved.

    Raises:
        SaveError: the same on every rank; what lay in the folder before is then whole.
    """
    return _save(
        lambda: request.build(
            model,
            output_dir,
            format=format,
            max_shard_size=max_shard_size,
            dtype=dtype,
            verify=verify,
            checksums=checksums,
            check_replicas=check_replicas,
            tokenizer=tokenizer,
            progress=progress,
        )
    )


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
    asked = request.build(model, "plan", max_shard_size=max_shard_size, dtype=dtype)
    prepared, _ = ranks.step("plan", lambda: prepare(asked, ranks, dry=True))
    mine = ranges(prepared.planned)
    return [
        PlannedFile(f.name, f.size, tuple(r[1:] for r in mine if r[0] == number))
        for number, f in enumerate(prepared.files)
    ]


@torch.no_grad()
def _save(ask: Callable[[], Request]) -> Report:
    """Save: every rank runs this, and rank 0 does alone what is passed as ``on_first``."""
    begun, ranks = time.monotonic(), Ranks.current()
    with ranks.arriving():
        prepared, unlike = ranks.step(
            "plan",
            lambda: prepare(_announced(ask(), ranks), ranks),
            Prepared.proposal,
            lambda own, everyone: agreement.compare(own.files, everyone),
        )
    asked, sets = prepared.asked, prepared.sets
    warnings = agreement.settle(unlike, sets, prepared.replicas, prepared.model, ranks)
    with Publication(prepared) as publication, shown(asked.progress, ranks.rank) as tell:
        staged = ranks.on_first("stage", publication.stage)
        views = look_together(asked.output_dir, staged.name, staged.token, ranks)
        placed = prepared.placed(staged.archives)
        folder = asked.output_dir / staged.name
        writer = Writer(placed, folder, views, ranks, tell, publication.room)
        if asked.format == "dcp":
            dcp.write_all(writer)
        relay(writer)
        convert(writer)
        ranks.step("write", writer.write, lambda _: writer.written, publication.take)
        published = ranks.on_first("publish", lambda: publication.publish(placed.files, views))
    warnings += dict.fromkeys(text for one in sets for text in one.warnings)
    report = Report(
        output_dir=staged.output_dir,
        files=tuple(published.names),
        bytes=sum(file.size for file in placed.files),
        seconds=time.monotonic() - begun,
        ranks=ranks.world_size,
        warnings=(*warnings, *published.warnings),
        left=tuple(published.left),
    )
    if ranks.rank == 0:
        _log_end(report)
    return report


def _announced(asked: Request, ranks: Ranks) -> Request:
    if ranks.rank == 0:
        _log.info("saving to %s with %d ranks", asked.output_dir, ranks.world_size)
    return asked


def _log_end(report: Report) -> None:
    for text in report.warnings:
        _log.warning(text)
    _log.info(
        "saved %d bytes of weights to %s in %.1f s",
        *(report.bytes, report.output_dir, report.seconds),
    )
