"""PORTABLE: what keeps readers of other ages from the model, as far as the files tell.

Plain ``save_pretrained`` leaves most of it, so that it is told and is no defect. Two values of one
setting are one: whoever takes the wrong one gets another model without a word.
"""

from __future__ import annotations

from collections.abc import Iterator

from saver_conformance.checks.evidence import BlockedError
from saver_conformance.folder import portability
from saver_conformance.folder.layout import (
    ADAPTER_CONFIG,
    CHAT_TEMPLATE,
    CONFIG,
    TOKENIZER_CONFIG,
    UnreadableJsonError,
    read_json_object,
)
from saver_conformance.folder.portability import Setting
from saver_conformance.folder_check.folder import Folder
from saver_conformance.folder_check.registry import Remark, folder_check
from saver_conformance.observation.finding import Defect
from saver_conformance.safe_text import quoted

_OLD_ROPE = "transformers 4 and mlx-lm take a default without a word, mistral.rs refuses the folder"
_OLD_TOKENIZER = "transformers 4 and the pinned converter of llama.cpp refuse the tokenizer"


@folder_check("PORTABLE-001")
def rope_settings(folder: Folder) -> Iterator[Defect | Remark]:
    """Rope settings without their older names are told."""
    yield from _told(folder, portability.missing_rope(folder.settings), _OLD_ROPE)


@folder_check("PORTABLE-002")
def one_value(folder: Folder) -> Iterator[Defect | Remark]:
    """No setting has two values under two names; two chat templates are told."""
    if not folder.is_adapter:
        for one, other in portability.disagreements(folder.settings):
            expected = f"{quoted(one.value)}, as {one.name}"
            yield folder.defect(expected, f"{other.name} is {quoted(other.value)}", file=CONFIG)
    path, inline = folder.folder / CHAT_TEMPLATE, _tokenizer(folder).get("chat_template")
    both = CHAT_TEMPLATE in folder.listing and path.is_file() and isinstance(inline, str)
    if both and path.read_bytes().decode(errors="replace") != inline:
        text = f"the chat template differs from that in {CHAT_TEMPLATE}; readers take either"
        yield Remark(text, file=folder.path_of(TOKENIZER_CONFIG))


@folder_check("PORTABLE-003")
def dtype(folder: Folder) -> Iterator[Defect | Remark]:
    """A dtype under one of its names is told."""
    told = "readers that know the other name only load in a dtype of their own choice"
    yield from _told(folder, portability.missing_dtype(folder.settings), told)


@folder_check("PORTABLE-004")
def experts(folder: Folder) -> Iterator[Defect | Remark]:
    """A number of experts under a new name is told."""
    told = "transformers 4, mlx-lm and KerasHub refuse the folder"
    yield from _told(folder, portability.missing_experts(folder.settings), told)


@folder_check("PORTABLE-005")
def tokenizer_class(folder: Folder) -> Iterator[Defect | Remark]:
    """Spellings that older readers refuse are told."""
    for expected, found in portability.unknown_to_older_tokenizers(_tokenizer(folder)):
        text = f"{found} and not {expected}: {_OLD_TOKENIZER}"
        yield Remark(text, file=folder.path_of(TOKENIZER_CONFIG))


@folder_check("PORTABLE-006")
def chat_template(folder: Folder) -> Iterator[Defect | Remark]:
    """A chat template in a file of its own only is told."""
    files = {CHAT_TEMPLATE, TOKENIZER_CONFIG}
    if files <= set(folder.listing) and "chat_template" not in _tokenizer(folder):
        text = f"the chat template stands in {CHAT_TEMPLATE} only: transformers.js ignores it"
        yield Remark(text, file=folder.path_of(TOKENIZER_CONFIG))


@folder_check("PORTABLE-007", reads_weights=True)
def claimed_layers(folder: Folder) -> Iterator[Defect | Remark]:
    """Layers that are claimed to predict further tokens and have no tensors are told."""
    promised = folder.index.weight_map if folder.index else {}
    if portability.has_claimed_layers(folder.settings, (*folder.file_of, *promised)):
        return
    for claim in portability.claims(folder.settings):
        text = (
            f"{claim.name} claims {quoted(claim.value)} layers that predict further tokens, and "
            "there is no tensor of them: vLLM fails, or runs on memory that nothing was loaded into"
        )
        yield Remark(text, file=folder.path_of(CONFIG))


@folder_check("PORTABLE-009")
def adapter_for_servers(folder: Folder) -> Iterator[Defect | Remark]:
    """Kinds of adapters that servers refuse are told."""
    if not folder.is_adapter:
        return
    try:
        settings = folder.adapter_config
    except BlockedError:
        return
    kinds = ["DoRA"] if settings.get("use_dora") else []
    kinds += [key for key in ("modules_to_save", "trainable_token_indices") if settings.get(key)]
    for kind in kinds:
        text = f"vLLM and llama.cpp refuse adapters with {kind}: merge it into its base to serve it"
        yield Remark(text, file=folder.path_of(ADAPTER_CONFIG))


def _told(folder: Folder, settings: Iterator[Setting], who: str) -> Iterator[Remark]:
    for setting in settings:
        text = f"there is no {setting.name} ({quoted(setting.value)}): {who}"
        yield Remark(text, file=folder.path_of(CONFIG))


def _tokenizer(folder: Folder) -> dict[str, object]:
    """``tokenizer_config.json``; empty where META-007 says why there is none."""
    if TOKENIZER_CONFIG not in folder.listing:
        return {}
    try:
        return read_json_object(folder.folder / TOKENIZER_CONFIG)
    except UnreadableJsonError:
        return {}
