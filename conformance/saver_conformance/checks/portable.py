"""PORTABLE: what the programs that serve models make of the folder.

A saver is compared with plain ``save_pretrained`` of the same model, read by the same program: what
both show is the fault of the format or of the reader, and no finding.
"""

from __future__ import annotations

from collections.abc import Iterator

from saver_conformance.cases.case import Case
from saver_conformance.checks.evidence import BlockedError, Evidence
from saver_conformance.checks.registry import check
from saver_conformance.folder import portability
from saver_conformance.folder.layout import (
    CHAT_TEMPLATE,
    CONFIG,
    TOKENIZER_CONFIG,
    UnreadableJsonError,
    read_json_object,
)
from saver_conformance.folder.portability import Setting
from saver_conformance.observation.finding import Defect
from saver_conformance.observation.reading import Outcome
from saver_conformance.safe_text import quoted

HEAD = "lm_head.weight"
EMBEDDINGS = "model.embed_tokens.weight"


def _has_chat_template(case: Case) -> bool:
    return case.tokenizer == "chat"


def _declares_tie(case: Case) -> bool:
    return case.reloads_tied


@check("PORTABLE-001")
def rope_settings(e: Evidence) -> Iterator[Defect]:
    """What stands in ``rope_parameters`` has its older names, too."""
    yield from _missing(e, portability.missing_rope(e.config))


@check("PORTABLE-002")
def one_value(e: Evidence) -> Iterator[Defect]:
    """No setting has two values under two names."""
    if not e.case.saves_adapter:
        for one, other in portability.disagreements(e.config):
            found = f"{other.name} is {quoted(other.value)}"
            yield e.defect(f"{quoted(one.value)}, as {one.name}", found, file=CONFIG)
    template, inline = e.folder / CHAT_TEMPLATE, _tokenizer_config(e).get("chat_template")
    if template.is_file() and isinstance(inline, str):
        text = template.read_bytes().decode(errors="replace")
        if text != inline:
            expected = f"the template of {CHAT_TEMPLATE}: {quoted(text)}"
            yield e.defect(expected, quoted(inline), file=TOKENIZER_CONFIG)


@check("PORTABLE-003")
def dtype(e: Evidence) -> Iterator[Defect]:
    """The dtype has both of its names."""
    yield from _missing(e, portability.missing_dtype(e.config))


@check("PORTABLE-004")
def experts(e: Evidence) -> Iterator[Defect]:
    """The number of experts has the name that published checkpoints have."""
    yield from _missing(e, portability.missing_experts(e.config))


@check("PORTABLE-005")
def tokenizer_class(e: Evidence) -> Iterator[Defect]:
    """Class and special tokens are spelt as readers of every age know them."""
    for expected, found in portability.unknown_to_older_tokenizers(_tokenizer_config(e)):
        yield e.defect(expected, found, file=TOKENIZER_CONFIG)


@check("PORTABLE-006", when=_has_chat_template)
def chat_template(e: Evidence) -> Iterator[Defect]:
    """The chat template stands in both of its places."""
    if not (e.folder / CHAT_TEMPLATE).is_file():
        yield e.defect("a file with the chat template", "none", file=CHAT_TEMPLATE)
    if not _tokenizer_config(e).get("chat_template"):
        yield e.defect("the chat template", "none", file=TOKENIZER_CONFIG)


@check("PORTABLE-007")
def claimed_layers(e: Evidence) -> Iterator[Defect]:
    """Layers that the configuration claims to predict further tokens have tensors."""
    if portability.has_claimed_layers(e.config, e.file_of):
        return
    for claim in portability.claims(e.config):
        found = "no tensor of such a layer"
        yield e.defect(f"tensors of {claim.value} layers ({claim.name})", found, file=CONFIG)


@check("PORTABLE-008", when=_declares_tie)
def tied_head(e: Evidence) -> Iterator[Defect]:
    """A head beside the embeddings that it is tied to is the same."""
    if e.config.get("tie_word_embeddings") is not True:
        return
    if {HEAD, EMBEDDINGS} <= set(e.file_of):
        head, embeddings = e.tensor(HEAD), e.tensor(EMBEDDINGS)
        if (head.dtype, head.shape) != (embeddings.dtype, embeddings.shape):
            same = False
        else:
            same = bytes(head.data) == bytes(embeddings.data)
        if not same:
            expected = f"no head, or that of {EMBEDDINGS}: tie_word_embeddings is true"
            yield e.defect(expected, "another head", file=e.file_of[HEAD], tensor=HEAD)


@check("PORTABLE-009", of_readers=True)
def readers_load(e: Evidence) -> Iterator[Defect]:
    """No reader refuses what it takes of a plain save."""
    yield from _readings(e, "refused")


@check("PORTABLE-010", of_readers=True)
def readers_compute(e: Evidence) -> Iterator[Defect]:
    """No reader computes something else than of a plain save."""
    yield from _readings(e, "wrong", "scores", "chat_scores", "digests")


@check("PORTABLE-011", of_readers=True)
def readers_see_the_same_tokens(e: Evidence) -> Iterator[Defect]:
    """No reader makes other token ids or another prompt than of a plain save."""
    yield from _readings(e, "wrong", "tokens", "chat")


def _readings(e: Evidence, outcome: Outcome, *names: str) -> Iterator[Defect]:
    """What readers make of the saver's folder only.

    Raises:
        BlockedError: nothing is found, and a reader that was requested could not run.
    """
    comparisons = e.observation.comparisons or ()
    found = False
    for one in comparisons:
        for part, also_plain in one.faults():
            if part.outcome == outcome and (not names or part.name in names) and not also_plain:
                found = True
                told = f"{one.saved.reader}, which gets a plain save right: {part.expected}"
                yield e.defect(told, part.found)
    if found:
        return
    for one in comparisons:
        if why := one.saved.why_unavailable(*names):
            raise BlockedError(f"reader {one.saved.reader}: {why}")


def _missing(e: Evidence, settings: Iterator[Setting]) -> Iterator[Defect]:
    for setting in settings:
        expected = f"{setting.name} is {quoted(setting.value)}"
        yield e.defect(expected, f"no {setting.name}", file=CONFIG)


def _tokenizer_config(e: Evidence) -> dict[str, object]:
    try:
        return read_json_object(e.folder / TOKENIZER_CONFIG)
    except UnreadableJsonError as error:
        raise BlockedError(str(error)) from error
