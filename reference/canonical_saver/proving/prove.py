"""Whether a folder that anybody wrote is the model in memory, as every rank runs it.

read headers -> match names -> compare bytes -> explain what differs -> proof

Each rank compares what it holds with the bytes at their place in the files; what several ranks hold
alike they share. Nothing is gathered but what has another form in the file, one group at a time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from canonical_saver import weights
from canonical_saver.collectives import Ranks
from canonical_saver.errors import ProofError, RequestError, VerifyError
from canonical_saver.from_trainer import from_training
from canonical_saver.messages import arriving
from canonical_saver.options import parse_options
from canonical_saver.proving import companions
from canonical_saver.proving.comparison import Comparison, Evidence, Mismatch
from canonical_saver.proving.found_tensors import FoundTensor, FoundWeights
from canonical_saver.proving.matching import match
from canonical_saver.proving.places import Key, lay_out
from canonical_saver.proving.proof import Companion, Proof
from canonical_saver.proving.replica_samples import sampled
from canonical_saver.proving.safe_files import quoted
from canonical_saver.proving.shares import Share, View, share, shared_parts, written_parts
from canonical_saver.proving.verdict import Verdict
from canonical_saver.proving.weight_files import Contents, contents_of, read_weights
from canonical_saver.request import Request, can_be_saved
from canonical_saver.weights import casting
from canonical_saver.weights.engines import find_engines
from canonical_saver.weights.prediction_layers import beside, main_layers
from canonical_saver.weights.replicas import Replicas
from canonical_saver.weights.saved_tensors import WeightSet, require_data
from canonical_saver.weights.tensors import ModelTensor, whole
from canonical_saver.writing import agreement
from canonical_saver.writing.agreement import differing_parts
from canonical_saver.writing.computed_tensors import groups_to_compute
from canonical_saver.writing.gather import Group, gather_sources, set_of
from canonical_saver.writing.tiling import prove_tiling
from canonical_saver.writing.write_items import WriteItem, packed, ranges, write_items


@dataclass(frozen=True)
class LiveModel:
    """The model in memory, as a save would see it.

    Attributes:
        request: what was passed.
        model: the module whose configuration goes next to the weights.
        weight_sets: what a save would hold.
        named: all its tensors, by their names in memory.
        merged: what a save would hold is the base with the adapters merged into it.
    """

    request: Request
    model: Any
    weight_sets: list[WeightSet]
    named: Mapping[str, ModelTensor]
    merged: bool


@torch.no_grad()
def prove(
    model: nn.Module,
    folder: str | Path,
    *,
    trainer: Any = None,
    tokenizer: Any = None,
    dtype: torch.dtype | str | None = None,
    strict: bool = False,
) -> Proof:
    """Prove that a folder is the model in memory, whatever wrote it; called on every rank.

    Args:
        model: the model, wrapped or not, in any training mode.
        folder: the folder: a whole model or adapters, in one file or in shards, of safetensors or
            of ``torch.save``.
        trainer: the trainer, if there is one; brings the tokenizer and the wrapped model.
        tokenizer: tokenizer or processor to compare with the folder's.
        dtype: the dtype that floating-point tensors were cast to on purpose.
        strict: raise an error instead of returning a proof that is not ok.

    Returns:
        What is proven, and what is not; the same on every rank.

    Raises:
        ProofError: the same on every rank: the folder cannot be read or, with ``strict``, is not
            the model.
        SaveError: the same on every rank: the model in memory is in no state to be saved.

    Examples:
        >>> model.save_pretrained(folder)
        >>> prove(model, folder).ok
        True
        >>> _ = model.lm_head.weight.data.add_(1)
        >>> prove(model, folder).different[0].name
        'lm_head.weight'
    """
    begun, ranks = time.monotonic(), Ranks.current()
    root = Path(os.fspath(folder)).expanduser().absolute()
    with arriving(ranks):
        contents = ranks.on_first("look into the folder", lambda: contents_of(root))
    live, found = ranks.step(
        "read the folder",
        lambda: _live_model(_request(model, root, trainer, tokenizer, dtype), contents, ranks),
        lambda own: agreement.fingerprint(own.weight_sets, []),
        lambda own, everyone: None if len(set(everyone)) > 1 else _read(root, own.weight_sets),
    )
    if found is None:
        raise _layouts_differ(live, ranks)
    matchings = [
        match(
            _of_model(there.tensors, one, live.model),
            *(one, live.named, live.request.dtype),
            merged=live.merged,
        )
        for one, there in zip(live.weight_sets, found, strict=True)
    ]
    places = lay_out([pair for matching in matchings for pair in matching.matches])
    comparison = Comparison(root, places, write_items(places.files))
    views, copies = _look(root, live, found, ranks)
    seeing = [view.shares_folder for view in views]
    if not seeing[ranks.rank]:
        comparison = replace(comparison, items=())
    own = share(places.files, shared_parts(views), ranks.rank, views[ranks.rank].writes)
    unseen = _compare(comparison, own, seeing, ranks)
    _convert(comparison, live.weight_sets, seeing, ranks)
    differing, drifted = _settled(comparison, own, ranks)
    explained = _explain(comparison, differing, ranks)
    compared = sum(ranks.gather(comparison.bytes))

    def conclude() -> Proof:
        verdict = Verdict(places, matchings, live.weight_sets, differing, explained, unseen)
        return replace(
            verdict.proof(root),
            blind=tuple(rank for rank, sees in enumerate(seeing) if not sees),
            companions=tuple(_companions(live, root)),
            stale=tuple(sorted({name for there in found for name in there.others})),
            drifted=(*copies.drifted, *drifted),
            unlike=copies.unlike,
            notes=tuple(text for there in found for text in there.notes),
            problems=tuple(text for there in found for text in there.problems),
            bytes=compared,
            seconds=time.monotonic() - begun,
        )

    proof = ranks.on_first("conclude", conclude)
    if strict and not proof.ok:
        raise ProofError(str(proof))
    return proof


def _of_model(
    tensors: Sequence[FoundTensor], weights: WeightSet, model: Any
) -> dict[str, FoundTensor]:
    """The tensors of a folder by their names, without those of layers that no class loads.

    A save that brings them along has copied them from the base, and no rank has them in memory.
    """
    found = {tensor.name: tensor for tensor in tensors}
    config: Any = getattr(model, "config", None)
    if weights.adapter is None and hasattr(config, "to_dict"):
        held = {*(saved.name for saved in weights.saved_tensors), *weights.model_tensors}
        for name in beside(list(found), held, main_layers(config.to_dict())):
            del found[name]
    return found


def _request(
    model: nn.Module, root: Path, trainer: Any, tokenizer: Any, dtype: torch.dtype | str | None
) -> Request:
    request = from_training({"output_dir": str(root)}, trainer, model)
    if tokenizer is not None and not can_be_saved(tokenizer):
        raise RequestError(
            "tokenizer: expected a tokenizer or processor with a method save_pretrained, found "
            f"{tokenizer!r:.80}; load it first, as AutoTokenizer.from_pretrained does"
        )
    cast = parse_options(dtype=dtype)["dtype"]
    return replace(request, tokenizer=tokenizer or request.tokenizer, dtype=cast)


def _live_model(request: Request, contents: Contents, ranks: Ranks) -> LiveModel:
    """Find what a save of the model would hold.

    Where a whole model lies in the folder of one with adapters, and none of them, it is the base
    with the adapters merged into it.
    """
    found: Any = weights.find_model(request.roots)
    engines = find_engines(request.roots, ranks.rank)
    merge = contents.whole and _can_merge(found) and not _holds_any(found, contents)
    request_of_merge = replace(request, merge="relora" if merge else "")
    weight_sets = weights.collect(found, engines, request_of_merge)
    for one in weight_sets:
        require_data(one)
    named = dict(weights.named_tensors(found, engines))
    owner = weight_sets[0].owner or found
    if request.dtype is not None:
        weight_sets = [casting.limited(owner, one, request.dtype) for one in weight_sets]
    return LiveModel(request, owner, weight_sets, named, merge)


def _can_merge(model: Any) -> bool:
    if not weights.is_peft(model):
        return False
    from canonical_saver.weights import merged

    return merged.can_merge(model)


def _holds_any(model: Any, contents: Contents) -> bool:
    """Whether a folder holds adapters where a save of the model would put its own."""
    return bool({"", *model.peft_config} & set(contents.adapters))


def _read(root: Path, weight_sets: Sequence[WeightSet]) -> list[FoundWeights]:
    return [read_weights(root, one.folder, adapter=one.adapter is not None) for one in weight_sets]


def _layouts_differ(live: LiveModel, ranks: Ranks) -> Exception:
    """Say how the ranks' models differ; collective."""
    agreement.settle(agreement.Unlike(True, []), live.weight_sets, None, live.model, ranks)
    raise AssertionError("unreachable")


def _sees(root: Path, found: Sequence[FoundWeights]) -> bool:
    """Whether this rank sees the files that rank 0 has read the headers of."""
    try:
        for file in (file for there in found for file in there.files):
            status = (root / file.name).stat()
            if (status.st_size, status.st_mtime_ns) != (file.size, file.modified):
                return False
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Copies:
    """What is to say of copies that differ between the ranks.

    Attributes:
        drifted: what has drifted apart in training, in words.
        unlike: why they can be no copies, in words.
    """

    drifted: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()


def _look(
    root: Path, live: LiveModel, found: Sequence[FoundWeights], ranks: Ranks
) -> tuple[list[View], Copies]:
    """Find out what ranks see, and whether they hold alike what they are said to; collective."""

    def work() -> tuple[Replicas, View]:
        replicas = Replicas(live.weight_sets if ranks.world_size > 1 else [], sampled)
        writes = written_parts(live.weight_sets)
        return replicas, View(_sees(root, found), replicas.summary(), writes)

    (replicas, _), views = ranks.step("look", work, lambda own: own[1], lambda _, told: told)
    parts = differing_parts([view.replicas for view in views])
    try:
        return views, Copies(tuple(replicas.compare(parts, live.model, ranks)) if parts else ())
    except VerifyError as error:  # the same on every rank
        return views, Copies(unlike=(str(error),))


def _compare(comparison: Comparison, own: Share, seeing: Sequence[bool], ranks: Ranks) -> set[Key]:
    """Compare what lies in memory as in the file; collective.

    Returns:
        The tensors of which ranks hold a part that do not see the folder.
    """
    places = comparison.places

    def work() -> torch.Tensor:
        if seeing[ranks.rank]:
            comparison.compare(own.items)
        return packed(ranges(own.items))

    def check(_: Any, everyone: list[torch.Tensor]) -> set[Key]:
        prove_tiling(places.files, everyone)
        return {
            key
            for rank, held in enumerate(everyone)
            if not seeing[rank]
            for file, offset, size in held.tolist()
            for key, _, _ in places.segments(file, offset, offset + size)
        }

    return ranks.step("compare", work, lambda held: held, check)[1]


def _convert(
    comparison: Comparison, weight_sets: Sequence[WeightSet], seeing: Sequence[bool], ranks: Ranks
) -> None:
    """Compare the tensors whose form in the file must be computed, by groups; collective."""
    able = [rank for rank, sees in enumerate(seeing) if sees]
    for turn, group in enumerate(groups_to_compute(comparison.places.files)):
        work = partial(
            _convert_group, comparison, weight_sets, group, able[turn % len(able)], ranks
        )
        ranks.step("convert", work)


def _convert_group(
    comparison: Comparison,
    weight_sets: Sequence[WeightSet],
    group: Group,
    chosen: int,
    ranks: Ranks,
) -> None:
    one = set_of(group, weight_sets)
    gathered = gather_sources(ranks, one, group, chosen)
    if ranks.rank != chosen:
        return
    converted = one.convert(gathered)
    for file, placed in group:
        local_slice = whole(converted.pop(placed.saved.name).contiguous()).slices[0]
        comparison.compare_converted(WriteItem(file, placed.offset, local_slice, placed.dtype))


def _settled(
    comparison: Comparison, own: Share, ranks: Ranks
) -> tuple[list[dict[Key, Mismatch]], list[str]]:
    """Find out what differs from the ranks that write it in a save; collective.

    Where another rank's share differs from the folder, the folder or the rank's copy may be wrong.

    Returns:
        For each rank what differs, and the copies that differ from the folder, in words.
    """
    told = ranks.exchange(
        "compare", lambda: (comparison.mismatches, comparison.differing_among(own.lent))
    )
    doubted = {key for _, keys in told for key in keys}
    if not doubted:
        return [mismatches for mismatches, _ in told], []
    differing = ranks.exchange("compare again", lambda: comparison.again(doubted))
    right = sorted(doubted - {key for mine in differing for key in mine})
    drifted = []
    for key in right:
        others = ", ".join(str(rank) for rank, (_, keys) in enumerate(told) if key in keys)
        drifted.append(
            f"{quoted(comparison.places.match(key).label)}: the copy of rank {others} differs from "
            "the one that is saved, which the folder has"
        )
    return differing, drifted


def _explain(
    comparison: Comparison, differing: Sequence[Mapping[Key, Mismatch]], ranks: Ranks
) -> list[dict[Key, Evidence]]:
    """Find out what explains the differences; collective, and nothing to do if there is none."""
    keys = sorted({key for mine in differing for key in mine})
    if not keys:
        return [{} for _ in range(ranks.world_size)]
    held = ranks.exchange("explain", lambda: comparison.held(keys))
    limits = {key: min((own[key] for own in held if key in own), default=0) for key in keys}
    return ranks.exchange("explain", lambda: comparison.examine(limits))


def _companions(live: LiveModel, root: Path) -> list[Companion]:
    return companions.compare(live.model, live.weight_sets, live.request.tokenizer, root)
