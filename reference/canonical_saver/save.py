"""One pass from a trained model to its directory, as every rank runs it.

request -> weights -> layout -> write -> verify -> publish
"""

from __future__ import annotations

import gc
import hashlib
import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from canonical_saver import (
    agreement,
    base_model,
    casting,
    companions,
    dcp,
    formats,
    one_folder,
    overflow,
    request,
    stale,
    weights,
)
from canonical_saver.engines import Engines
from canonical_saver.entries import Weights, require_data
from canonical_saver.errors import RequestError, VerifyError, WriteError
from canonical_saver.hosts import Samples, host_id, read_back
from canonical_saver.layout import File, Placed, stored_size
from canonical_saver.modules import unwrap
from canonical_saver.mount_probe import check_mount
from canonical_saver.progress import Meter, Tell, shown
from canonical_saver.publish import Staging
from canonical_saver.ranks import Ranks
from canonical_saver.replicas import Replicas
from canonical_saver.request import Request
from canonical_saver.room import Room
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
    ranks = Ranks.current()
    with ranks.arriving(), ranks.phase("request") as exchange:
        asked = request.from_training(cfg, trainer, model)
        exchange.mine = asked.options()
    agreement.check_options(exchange.everyone)
    return _save(asked, ranks)


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
            :mod:`canonical_saver.replicas` for the rule.
        progress: a function that each rank calls with a :class:`Progress` after each piece that it
            writes; True or False for a bar on rank 0 or none; by default a bar on a terminal.

    Returns:
        What was saved.

    Raises:
        SaveError: the same on every rank; what lay in the folder before is then whole.
    """
    ranks = Ranks.current()
    with ranks.arriving(), ranks.phase("request") as exchange:
        asked = request.build(
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
        exchange.mine = asked.options()
    agreement.check_options(exchange.everyone)
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
    if ranks.rank == 0:
        _log.info("saving to %s with %d ranks", asked.output_dir, ranks.world_size)
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
    with _no_collections(), ranks.phase("layout") as exchange:
        files = formats.lay_out(sets, asked)
        planned = transfers(files)
        replicas = Replicas(sets if asked.check_replicas and ranks.world_size > 1 else ())
        exchange.mine = (agreement.fingerprint(sets, files), replicas.summary())
    fingerprints, summaries = zip(*exchange.everyone, strict=True)
    agreement.check_layouts(fingerprints, sets, ranks)
    warnings = replicas.compare(summaries, model, ranks)
    warnings += dict.fromkeys(text for one in sets for text in one.warnings)

    staging: Staging | None = None
    sidecars = companions.Written()
    needed = sum(stored_size(one.entries, asked.dtype) for one in sets)
    room = Room(asked.output_dir, needed)
    with ExitStack() as stack:
        tell = stack.enter_context(shown(asked.progress, ranks.rank))
        token = secrets.token_hex(16)
        staged_in = ""
        with ranks.phase("stage"), room:
            if ranks.rank == 0:
                base = base_model.names(model, sets, asked.base_model)
                base_model.refuse(base, sets, asked.output_dir)
                staging = Staging(asked.output_dir)
                stack.callback(staging.abandon)
                check_mount(staging.folder)
                sidecars = companions.write(
                    model, sets, asked.tokenizer, staging.folder, asked.output_dir, asked.dtype
                )
                base_model.refuse_changes(
                    base, _arrival(staging, sets), asked.output_dir, checksums=asked.checksums
                )
                (staging.folder / "probe").write_text(token)
                staged_in = staging.name
        token, staged_in, output_dir = ranks.share((token, staged_in, asked.output_dir))
        folder = asked.output_dir / staged_in
        view = one_folder.look(asked.output_dir, f"{staged_in}/probe", token)
        views, hosts = zip(*ranks.gather((view, host_id())), strict=True)
        with ranks.phase("stage"):
            one_folder.check(views)
        sees = [view.sees for view in views]
        mode = 0o644
        archives: list[formats.Archive] = []
        with ranks.phase("create"), room:
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
        samples = Samples.of_rank(ranks.rank, hosts)
        full = asked.verify == "full"
        writer = Writer(folder, files, sees, ranks, full, Meter(tell), samples)
        everyone = ranks.gather(packed(ranges(planned)))
        with ranks.phase("verify the layout"), room:
            prove_tiling(files, everyone)
            if staging is not None:
                writer.create()
                formats.write_indexes(folder, sets, files, asked)
        with ranks.phase("write"), room:
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
            with ranks.phase("write"), room:
                for one in sets:
                    overflows = dcp.write(folder / one.folder, one, asked.dtype, ranks)
                    writer.overflows.counts += overflows
        if not all(sees):
            pieces: list[list[Range]] = ranks.gather(
                [] if sees[ranks.rank] else batch_ranges(planned)
            )
            with ranks.phase("stream"), room:
                writer.stream(planned, pieces)
        for turn, group in enumerate(groups):
            with ranks.phase("convert"), room:
                writer.compute(turn, _set_of(group, sets), group)
        everywhere = ranks.gather(samples.kept) if len(set(hosts)) > 1 else []
        with ranks.phase("verify"):
            writer.compare(planned)
            if staging is not None:
                _check_files(folder, files)
                read_back(folder, files, everywhere, hosts)
        names: list[str] = []
        left: list[str] = []
        with ranks.phase("publish"), room:
            if staging is not None:
                if asked.checksums:
                    _write_checksums(folder)
                arrival = _arrival(staging, sets)
                old = stale.files(asked.output_dir, arrival)
                names = staging.commit([*old, *sidecars.outdated], mode)
                left = stale.others(asked.output_dir, arrival)
                _warn_of(left, asked.output_dir, arrival)
    names, left, flaws = ranks.share((names, left, sidecars.warnings))
    warnings += flaws
    if asked.dtype is not None:
        warnings += overflow.warnings(ranks.gather(writer.overflows.counts), asked.dtype)
    size, seconds = sum(file.size for file in files), time.monotonic() - begun
    if ranks.rank == 0:
        for text in warnings:
            _log.warning(text)
        _log.info("saved %d bytes of weights to %s in %.1f s", size, output_dir, seconds)
    return Report(
        *(output_dir, tuple(names), size, seconds, ranks.world_size),
        warnings=tuple(warnings),
        left=tuple(left),
    )


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


def _arrival(staging: Staging, sets: list[Weights]) -> stale.Arrival:
    """What is staged by now."""
    folders = frozenset(weights.folder for weights in sets)
    adapter = sets[0].adapter is not None
    return stale.Arrival(staging.folder, frozenset(staging.staged()), folders, adapter)


def _warn_of(left: list[str], output_dir: Path, arrival: stale.Arrival) -> None:
    """Say which files of other models stay, and what loads then."""
    if not left:
        return
    effect = ""
    if arrival.adapter and "config.json" in left and "" in arrival.folders:
        effect = "; AutoModel takes the model in this folder for the adapter's base"
    _log.warning("files of another model stay in %s: %s%s", output_dir, ", ".join(left), effect)


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
