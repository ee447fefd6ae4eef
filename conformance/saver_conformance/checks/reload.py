"""RELOAD: what a fresh process gets from the folder."""

from __future__ import annotations

from collections.abc import Iterator

from saver_conformance.cases.case import Case
from saver_conformance.checks.evidence import BlockedError, Evidence
from saver_conformance.checks.registry import check
from saver_conformance.observation.finding import Defect


def _is_tied(case: Case) -> bool:
    return case.reloads_tied


def _compares_logits(case: Case) -> bool:
    """NaN and infinities make every logit NaN; a mixed model does not run without autocast."""
    return not case.special_values and (case.saves_adapter or case.dtype != "mixed")


@check("RELOAD-001")
def loads(e: Evidence) -> Iterator[Defect]:
    """Loading ended without an exception."""
    if e.reload.error:
        yield e.defect("the folder loads in a fresh process", e.reload.error)


@check("RELOAD-002")
def no_missing_keys(e: Evidence) -> Iterator[Defect]:
    """The library reported no missing key."""
    for name in e.reloaded.missing:
        yield e.defect("found when loading", "reported as missing", tensor=name)


@check("RELOAD-003")
def no_unexpected_keys(e: Evidence) -> Iterator[Defect]:
    """The library reported no unexpected key."""
    for name in e.reloaded.unexpected:
        yield e.defect("used when loading", "reported as unexpected", tensor=name)


@check("RELOAD-004")
def same_bits(e: Evidence) -> Iterator[Defect]:
    """No tensor came back different."""
    for difference in e.reloaded.differences:
        yield e.difference("the bits from before the save", difference)


@check("RELOAD-005", when=_is_tied)
def still_tied(e: Evidence) -> Iterator[Defect]:
    """Tied tensors share memory."""
    for name in e.reloaded.untied:
        partner = e.expected.tied.get(name, "its partner")
        yield e.defect(f"shares memory with {partner}", "has memory of its own", tensor=name)


@check("RELOAD-006", when=_compares_logits)
def same_logits(e: Evidence) -> Iterator[Defect]:
    """The logits are those of a control with the snapshot's weights."""
    if e.reloaded.logits is None:
        raise BlockedError("the logits were not compared")
    if not e.reloaded.logits:
        yield e.defect("the logits of the trained weights", "other logits")


@check("RELOAD-007")
def same_tokenizer(e: Evidence) -> Iterator[Defect]:
    """The tokenizer came back as it was."""
    if e.reloaded.tokenizer_error:
        yield e.defect("the training's tokenizer", e.reloaded.tokenizer_error)


@check("RELOAD-008")
def same_class(e: Evidence) -> Iterator[Defect]:
    """The model is an instance of the class that was trained."""
    wanted = e.expected.config.get("architectures", [])
    if e.reloaded.class_name not in wanted:
        yield e.defect(" or ".join(wanted), e.reloaded.class_name)
