"""What all ranks must agree on before a byte is written, and the first difference among them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from canonical_saver.collectives import Ranks
from canonical_saver.errors import RequestError
from canonical_saver.formats.layout import File
from canonical_saver.messages import arriving
from canonical_saver.request import CFG_KEYS, Request
from canonical_saver.weights.replicas import Replicas, Summary
from canonical_saver.weights.saved_tensors import WeightSet
from canonical_saver.writing.tiling import prove_tiling
from canonical_saver.writing.write_items import packed, ranges
from canonical_saver.writing.write_plan import WritePlan

Described = dict[str, tuple[str, tuple[int, ...]]]
"""Dtype and shape of each tensor by its name."""


@dataclass(frozen=True)
class Proposal:
    """A rank's plan, as the others have to know it.

    Attributes:
        options: what was requested, by the names of the options.
        fingerprint: digest of the layout.
        replicas: digests of what other ranks are said to hold as well.
        ranges: what the rank writes, int64 of shape ``[ranges, 3]``.
        tokenizer: whether the rank was given a tokenizer.
    """

    options: Mapping[str, Any]
    fingerprint: str
    replicas: Summary
    ranges: torch.Tensor
    tokenizer: bool = False


@dataclass(frozen=True)
class Unlike:
    """What the ranks' plans do not have in common.

    Attributes:
        layouts: whether they would write to other places.
        parts: the parts of tensors of which some ranks hold other bytes than others.
        warnings: what differs and costs no weights.
    """

    layouts: bool
    parts: list[str]
    warnings: tuple[str, ...] = ()


def plan_together(plan: Callable[[], WritePlan], ranks: Ranks) -> tuple[WritePlan, list[str]]:
    """Plan on every rank, and find out whether the plans belong together; collective.

    Args:
        plan: plans on this rank.
        ranks: the ranks of the save.

    Returns:
        The plan of this rank, and warnings about what the ranks do not have in common.

    Raises:
        SaveError: the same on every rank, when a plan failed or does not fit the others.
    """

    def work() -> tuple[WritePlan, Replicas | None]:
        planned = plan()
        compared = planned.request.check_replicas and ranks.world_size > 1
        return planned, Replicas(planned.weight_sets) if compared else None

    with arriving(ranks):
        (planned, replicas), unlike = ranks.step(
            "plan",
            work,
            lambda own: _proposal(*own),
            lambda own, everyone: compare(own[0].files, everyone),
        )
    return planned, settle(unlike, planned.weight_sets, replicas, planned.model, ranks)


def _proposal(planned: WritePlan, replicas: Replicas | None) -> Proposal:
    return Proposal(
        options=_options(planned.request),
        fingerprint=fingerprint(planned.weight_sets, planned.files),
        replicas={} if replicas is None else replicas.summary(),
        ranges=packed(ranges(planned.planned)),
        tokenizer=planned.request.tokenizer is not None,
    )


def _options(request: Request) -> dict[str, Any]:
    """What must be the same on every rank, as plain values by the names of the options."""
    dtype = None if request.dtype is None else str(request.dtype).removeprefix("torch.")
    found = {name: getattr(request, name) for name in ("max_shard_size", *CFG_KEYS)}
    return found | {"dtype": dtype, "merge": request.merge}


def compare(files: Sequence[File], everyone: Sequence[Proposal]) -> Unlike:
    """Compare the plans of all ranks, and prove that together they write each byte once.

    Args:
        files: the layout of rank 0.
        everyone: for each rank its plan.

    Raises:
        RequestError: the ranks were given different options.
        VerifyError: bytes are missing, or written twice.
    """
    check_options([one.options for one in everyone])
    if len({one.fingerprint for one in everyone}) > 1:
        return Unlike(layouts=True, parts=[])
    prove_tiling(files, [one.ranges for one in everyone])
    parts = differing_parts([one.replicas for one in everyone])
    given = [one.tokenizer for one in everyone]
    if given[0] or not any(given):
        return Unlike(layouts=False, parts=parts)
    from canonical_saver.writing.layout_differences import of_tokenizers

    return Unlike(False, parts, of_tokenizers(given))


def settle(
    unlike: Unlike,
    weight_sets: Sequence[WeightSet],
    replicas: Replicas | None,
    model: Any,
    ranks: Ranks,
) -> list[str]:
    """Find out what it means that plans differ; collective, and nothing to do if none does.

    Args:
        unlike: what differs, the same on every rank.
        weight_sets: what this rank is to save.
        replicas: what it holds that others are said to hold as well; None if not compared.
        model: the unwrapped model.
        ranks: the ranks of the save.

    Returns:
        Warnings about copies that drifted apart, and about what costs no weights.

    Raises:
        VerifyError: the same on every rank; names the first tensor that differs.
    """
    if unlike.layouts:
        from canonical_saver.writing.layout_differences import explain

        raise explain(described(weight_sets), ranks)
    drifted = replicas.compare(unlike.parts, model, ranks) if replicas and unlike.parts else []
    return [*unlike.warnings, *drifted]


def check_options(everyone: Sequence[Mapping[str, Any]]) -> None:
    """Check that all ranks received the same request.

    Args:
        everyone: for each rank its options by their names.

    Raises:
        RequestError: the same on every rank; names the first option that differs.
    """
    for rank, options in enumerate(everyone):
        for name, value in everyone[0].items():
            if options[name] != value:
                raise RequestError(
                    f"{name}: expected the same on every rank, found {value!r} on rank 0 and "
                    f"{options[name]!r} on rank {rank}"
                )


def fingerprint(weight_sets: Sequence[WeightSet], files: Sequence[File]) -> str:
    """A digest of all names, dtypes, shapes and places of a save."""
    hashed = hashlib.sha256()
    for weights in weight_sets:
        hashed.update(repr((weights.folder, weights.stem, described([weights]))).encode())
    for file in files:
        hashed.update(f"{file.name} {file.size} ".encode() + file.header)
    return hashed.hexdigest()


def differing_parts(everyone: Sequence[Summary]) -> list[str]:
    """Name the parts of tensors of which some ranks hold other bytes than others."""
    first: Summary = {}
    for summary in everyone:
        first = summary | first
    return sorted({part for one in everyone for part in one if one[part] != first[part]})


def described(weight_sets: Sequence[WeightSet]) -> Described:
    """Dtype and shape of each tensor by its path and name."""
    found: Described = {}
    for weights in weight_sets:
        place = f"{weights.folder}/" if weights.folder else ""
        found |= {place + e.name: (str(e.dtype), tuple(e.shape)) for e in weights.saved_tensors}
    return found
