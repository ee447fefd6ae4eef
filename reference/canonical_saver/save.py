"""One pass from a trained model to its directory, as every rank runs it.

request -> weights -> layout -> write -> verify -> publish
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from canonical_saver.collectives import Ranks
from canonical_saver.from_trainer import from_training
from canonical_saver.publishing.publication import Publication, Staged
from canonical_saver.request import Digest, Format, Request, Verify, build
from canonical_saver.writing.tiling import prove_tiling
from canonical_saver.writing.write_items import packed, ranges
from canonical_saver.writing.write_plan import WritePlan, plan_write
from canonical_saver.writing.writer import Writer

if TYPE_CHECKING:
    from canonical_saver.progress import ProgressCallback
    from canonical_saver.writing.shared_folder import View

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
            written next to the weights, and what to do; the same on every rank.
        left: weights and configurations of other models in the folder, which stay there.
        digest: the digest of the weights in hex, see ``docs/reference/digest.md``; "" if none was
            asked for.
        portability: what was done for readers of other versions, and for whom, and what some of
            them cannot read, see ``docs/guides/portable.md``.
    """

    output_dir: Path
    files: tuple[str, ...]
    bytes: int
    seconds: float
    ranks: int
    warnings: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    digest: str = ""
    portability: tuple[str, ...] = ()


def save_trained_model(cfg: Any, trainer: Any, model: nn.Module) -> Report:
    """Save a trained model as the one canonical directory; called on every rank.

    Args:
        cfg: the training configuration (a mapping or an object with attributes); ``output_dir``
            says where, see :func:`canonical_saver.from_trainer.from_training` for the other keys.
        trainer: the trainer, or None; brings the tokenizer and the wrapped model.
        model: the model, wrapped or not, in any training mode.

    Returns:
        What was saved.

    Raises:
        SaveError: the same on every rank; what lay in the folder before is then whole.

    Examples:
        >>> report = save_trained_model({"output_dir": folder}, trainer, model)
        >>> "model.safetensors" in report.files
        True
    """
    return _save(lambda: from_training(cfg, trainer, model))


def save_model(
    model: nn.Module,
    output_dir: str | Path,
    *,
    tokenizer: Any = None,
    format: Format = "safetensors",
    max_shard_size: int | str | None = None,
    dtype: torch.dtype | str | None = None,
    verify: Verify = "layout",
    checksums: bool = False,
    check_replicas: bool = True,
    digest: Digest = False,
    portable: bool = True,
    progress: ProgressCallback | bool | None = None,
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
        digest: put a digest of the weights into the report, which depends on names, dtypes, shapes
            and bytes alone, and is computed while they are written; ``"file"`` to write the digest
            of each tensor too, into ``model.digests.json`` or ``adapter_model.digests.json``.
        portable: make the files next to the weights fit for readers of other versions too, such as
            transformers 4 and mlx-lm, see ``docs/guides/portable.md``; False leaves them as
            ``save_pretrained`` writes them.
        progress: a function that each rank calls with a :class:`Progress` after each piece that it
            writes; True or False for a bar on rank 0 or none; by default a bar on a terminal.

    Returns:
        What was saved.

    Raises:
        SaveError: the same on every rank; what lay in the folder before is then whole.

    Examples:
        >>> report = save_model(model, folder, max_shard_size="20KB", dtype="bfloat16")
        >>> [name for name in report.files if name.endswith(".safetensors")]
        ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors']
        >>> report.warnings
        ()
    """
    return _save(
        lambda: build(
            model,
            output_dir,
            format=format,
            max_shard_size=max_shard_size,
            dtype=dtype,
            verify=verify,
            checksums=checksums,
            check_replicas=check_replicas,
            digest=digest,
            portable=portable,
            tokenizer=tokenizer,
            progress=progress,
        )
    )


@torch.no_grad()
def _save(ask: Callable[[], Request]) -> Report:
    """Save: every rank runs this; what is passed to ``on_first`` is done by rank 0 only."""
    begun, ranks = time.monotonic(), Ranks.current()
    planned, warnings = _plan(ask, ranks)
    with ExitStack() as undo, _progress(planned.request.progress, ranks.rank) as on_progress:
        publication = Publication(planned, undo)
        staged = ranks.on_first("stage", publication.stage)
        views = _views(planned.request.output_dir, staged, ranks)
        placed = planned.final(staged.carried, staged.archives, ranks.rank)
        writer = Writer(placed, staged.name, views, ranks, on_progress, publication.room)
        placed.format.finish(writer)
        _relay(writer)
        _convert(writer)
        ranks.step("write", writer.write, lambda _: writer.written, publication.take)
        digest = _digest(writer)
        published = ranks.on_first("publish", lambda: publication.publish(placed.files, views))
    report = Report(
        output_dir=staged.output_dir,
        files=tuple(published.names),
        bytes=sum(file.size for file in placed.files),
        seconds=time.monotonic() - begun,
        ranks=ranks.world_size,
        warnings=(*warnings, *planned.warnings, *published.warnings),
        left=tuple(published.left),
        digest=digest,
        portability=tuple(published.portability),
    )
    if ranks.rank == 0:
        _log_end(report)
    return report


def _plan(ask: Callable[[], Request], ranks: Ranks) -> tuple[WritePlan, list[str]]:
    """Plan the save as all ranks agree on it; with warnings about what they do not have alike."""

    def plan() -> WritePlan:
        request = ask()
        if ranks.rank == 0:
            _log.info("saving to %s with %d ranks", request.output_dir, ranks.world_size)
        return plan_write(request, ranks)

    if ranks.group is not None:
        from canonical_saver.writing.agreement import plan_together

        return plan_together(plan, ranks)

    def prove(own: WritePlan, _: object) -> None:
        prove_tiling(own.files, [packed(ranges(own.planned))])

    return ranks.step("plan", plan, on_first=prove)[0], []


def _views(output_dir: Path, staged: Staged, ranks: Ranks) -> list[View]:
    """What each rank sees of the staging folder of rank 0; nothing is asked of a single process."""
    if ranks.group is None:
        return []
    from canonical_saver.writing.shared_folder import look_together

    return look_together(output_dir, staged.name, staged.token, ranks)


def _progress(
    progress: ProgressCallback | bool | None, rank: int
) -> AbstractContextManager[ProgressCallback | None]:
    """Choose who is told of the progress; None for a bar on rank 0 if somebody may look at it."""
    if progress is None:
        try:  # a process without a standard error has it closed, or None
            progress = bool(sys.stderr.isatty())
        except (AttributeError, OSError, ValueError):
            progress = False
    if progress is False or (progress is True and rank):
        return nullcontext()
    from canonical_saver.progress import progress_callback

    return progress_callback(progress)


def _relay(writer: Writer) -> None:
    """Carry to rank 0 what ranks hold that do not see the folder."""
    if not all(writer.shares_folder):
        from canonical_saver.writing.relay import relay

        relay(writer)


def _convert(writer: Writer) -> None:
    """Write the tensors whose form in the file must be computed."""
    tensors = (placed for file in writer.write_plan.files for placed in file.tensors)
    if any(placed.saved.source_ranges is None for placed in tensors):
        from canonical_saver.writing.gather import convert

        convert(writer)


def _digest(writer: Writer) -> str:
    """Put together what was digested while it was written."""
    if not writer.write_plan.request.digest:
        return ""
    from canonical_saver.writing.piece_digests import finish

    return finish(writer)


def _log_end(report: Report) -> None:
    for text in report.warnings:
        _log.warning(text)
    for text in report.portability:
        _log.info(text)
    done = (report.bytes, report.output_dir, report.seconds)
    _log.info("saved %d bytes of weights to %s in %.1f s", *done)
