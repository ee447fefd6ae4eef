"""ADAPTER: what an adapter's configuration and its tensors tell about each other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from saver_conformance.checks.evidence import BlockedError
from saver_conformance.folder.layout import ADAPTER_CONFIG
from saver_conformance.folder.safetensors import Span
from saver_conformance.folder_check import lora, partners
from saver_conformance.folder_check.folder import Folder
from saver_conformance.folder_check.registry import Remark, folder_check
from saver_conformance.observation.finding import Defect
from saver_conformance.safe_text import quoted

_PROMPTS = frozenset({"PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING"})
_PROMPT = "prompt_embeddings"
_TOKENS = "trainable_tokens_delta"
# An adapter's name after a parameter of a tuner's other than LoRA, and after a module saved whole.
_NAMED_DEFAULT = re.compile(
    r"\.((ia3|hada|lokr|oft|boft|hra|vera_lambda|fourierft|miss|ln_tuning|shira)_\w+|modules_to_save)"
    r"\.default(\.|$)"
)
# PEFT adds them for the task, whether the model has a module of the name or not.
_ADDED_FOR_TASKS: Mapping[str, frozenset[str]] = {
    "SEQ_CLS": frozenset({"classifier", "score"}),
    "TOKEN_CLS": frozenset({"classifier", "score"}),
    "QUESTION_ANS": frozenset({"qa_outputs"}),
}
_MAX_ASKED = 100
_LAYER = re.compile(r"\.\d+\.")


@folder_check("ADAPTER-001", reads_weights=True)
def base_is_told(folder: Folder) -> Iterator[Defect | Remark]:
    """Weights of the base's layers are told; they may have been trained beside the adapter."""
    names = [
        name
        for name in folder.file_of
        if name.endswith(".base_layer.weight") and _LAYER.search(name)
    ]
    if names:
        text = (
            f"{len(names)} weights of the base are in the adapter's file, if they were not trained"
        )
        yield Remark(text, file=folder.path_of(folder.file_of[names[0]]), tensor=names[0])


@folder_check("ADAPTER-002")
def config_is_readable(folder: Folder) -> Iterator[Defect | Remark]:
    """``adapter_config.json``, where there is one, is an object that names a kind of adapter."""
    if ADAPTER_CONFIG not in folder.listing:
        return  # FILES-002 has it
    try:
        found = folder.adapter_config.get("peft_type")
    except BlockedError as reason:
        yield folder.defect("a JSON object", str(reason), file=ADAPTER_CONFIG)
        return
    if not isinstance(found, str):
        expected = "peft_type is a name"
        yield folder.defect(expected, quoted(found), file=ADAPTER_CONFIG)


@folder_check("ADAPTER-003", reads_weights=True)
def ranks_are_kept(folder: Folder) -> Iterator[Defect | Remark]:
    """Both matrices of a pair have the rank that ``r`` or ``rank_pattern`` gives the module."""
    config = folder.adapter_config
    if not lora.is_lora(config):
        return
    if not lora.is_rank(config.get("r", lora.DEFAULT_RANK)):
        found = quoted(config["r"])
        yield folder.defect("r is a number above 0", found, file=ADAPTER_CONFIG)
        return
    ranks = lora.Ranks.of(config)
    for path, module in lora.modules(folder).items():
        a, b = module.a, module.b
        if a is None or b is None or len(a.shape) < 2 or len(b.shape) < 2 or 0 in a.shape:
            continue  # TENSOR-001 and TENSOR-004 have it
        wanted = ranks.rank(path)
        found = f"{quoted(list(a.shape))} and {quoted(list(b.shape))}"
        if a.shape[0] != b.shape[1]:
            yield _unlike(folder, module, "two matrices of one rank", found)
        elif wanted is not None and a.shape[0] != wanted:
            expected = f"rank {wanted}, as the configuration says"
            yield _unlike(folder, module, expected, f"rank {a.shape[0]}: {found}")


@folder_check("ADAPTER-004", reads_weights=True)
def targets(folder: Folder) -> Iterator[Defect | Remark]:
    """Every module with LoRA tensors is one that ``target_modules`` names.

    A target without tensors is no defect: lists name the layers of many models at once.
    """
    config = folder.adapter_config
    named = config.get("target_modules")
    if not isinstance(named, list) or not (lora.is_lora(config) or lora.is_adalora(config)):
        return
    if not named or config.get("target_parameters") or config.get("ensure_weight_tying"):
        return  # adapt modules that are no targets
    known = {name for name in named if isinstance(name, str)}
    expected = f"target_modules names it; it is {quoted(named)}"
    for path, module in lora.modules(folder).items():
        # The output layer of an attention is adapted with it, and experts have had other names.
        adapted = path.partition(".base_layer")[0]
        if "experts" not in path and known.isdisjoint(lora.suffixes(adapted)):
            yield _unlike(folder, module, expected, "no target")


@folder_check("ADAPTER-005", reads_weights=True)
def modules_saved_whole(folder: Folder) -> Iterator[Defect | Remark]:
    """Some tensor is there of the modules that ``modules_to_save`` names."""
    config = folder.adapter_config
    named = config.get("modules_to_save")
    if not isinstance(named, list):
        return
    added = _ADDED_FOR_TASKS.get(str(config.get("task_type")), frozenset())
    asked = [name for name in named if isinstance(name, str) and name not in added]
    saved = "\n".join(folder.file_of)
    if 0 < len(asked) <= _MAX_ASKED and not any(f"{name}." in saved for name in asked):
        expected = f"tensors of {quoted(asked)}, which modules_to_save names"
        yield folder.defect(expected, "none", file=next(iter(folder.headers)))


@folder_check("ADAPTER-007", reads_weights=True)
def other_settings(folder: Folder) -> Iterator[Defect | Remark]:
    """``use_dora`` and ``lora_bias`` are set where there are tensors that need them."""
    config = folder.adapter_config
    if not lora.is_lora(config):
        return
    for module in lora.modules(folder).values():
        for part, key in ((lora.MAGNITUDE, "use_dora"), (lora.BIAS, "lora_bias")):
            if part in module.names and not config.get(key):
                found = f"{quoted(config.get(key))}, by which the tensor is ignored"
                yield folder.defect(
                    f"{key} is true",
                    found,
                    file=ADAPTER_CONFIG,
                    tensor=module.names[part],
                )


def missing(folder: Folder) -> Iterator[tuple[str, str]]:
    """Tensors that others or the configuration need: what is needed by which name, and by what."""
    config = folder.adapter_config
    if lora.is_lora(config) or lora.is_adalora(config):
        yield from _missing_of_lora(folder, config)
    told = dict(partners.missing(config.get("peft_type"), folder.file_of))
    yield from told.items()
    if _has_prompt(config) and _PROMPT not in folder.file_of:
        yield _PROMPT, f"peft_type {config['peft_type']}"
    has_tokens = config.get("trainable_token_indices") or config.get("token_indices")
    if has_tokens and not any(name.endswith(_TOKENS) for name in folder.file_of):
        yield _TOKENS, "the token indices in the configuration"


def misnamed(folder: Folder) -> Iterator[tuple[str, str]]:
    """Tensors under names that PEFT does not look for, each with what it looks for."""
    yield from lora.misnamed(folder)
    for name in folder.file_of:
        if _NAMED_DEFAULT.search(name):
            yield name, f"the name without the adapter's: {name.replace('.default', '', 1)}"


def misshapen(folder: Folder) -> Iterator[tuple[str, str]]:
    """Tensors whose shape contradicts another's or a setting, each with what it should be."""
    config = folder.adapter_config
    if lora.is_lora(config):
        for module in lora.modules(folder).values():
            yield from _misshapen_of_lora(module)
    yield from _misshapen_prompt(folder, config)
    indices = config.get("token_indices") or config.get("trainable_token_indices")
    if isinstance(indices, list):
        for name in folder.file_of:
            span = _span(folder, name)
            if name.endswith(_TOKENS) and span and span.shape[:1] != (len(indices),):
                yield name, f"{len(indices)} rows, one for each token that the configuration names"


def _misshapen_prompt(folder: Folder, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    prompt, count = _span(folder, _PROMPT), config.get("num_virtual_tokens")
    if not _has_prompt(config) or prompt is None:
        return
    # A model of an encoder and a decoder has a prompt for each.
    if type(count) is int and count > 0 and not _has_rows(prompt, count):
        yield _PROMPT, f"{count} rows, or a multiple"


def _has_prompt(config: Mapping[str, Any]) -> bool:
    return str(config.get("peft_type")) in _PROMPTS


def _has_rows(span: Span, count: int) -> bool:
    return len(span.shape) == 2 and span.shape[0] > 0 and span.shape[0] % count == 0


def _missing_of_lora(folder: Folder, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    modules = lora.modules(folder)
    if not modules and (config.get("target_modules") or config.get("target_parameters")):
        yield "tensors of LoRA", "the targets in the configuration"
    for module in modules.values():
        for name, partner in lora.lone(module):
            yield partner, name
        adapted = f"base_model.model.{module.path}"
        has_pair = "lora_B.weight" in module.names
        if config.get("use_dora") is True and lora.MAGNITUDE not in module.parts:
            yield f"{adapted}.{lora.MAGNITUDE}", "use_dora in the configuration"
        if config.get("lora_bias") is True and has_pair and lora.BIAS not in module.names:
            yield f"{adapted}.{lora.BIAS}", "lora_bias in the configuration"


def _misshapen_of_lora(module: lora.Module) -> Iterator[tuple[str, str]]:
    for key, span in module.spans.items():
        part = key.partition(".")[0]
        is_matrix = part != lora.MAGNITUDE and not key.endswith(".bias")
        if is_matrix and (len(span.shape) < 2 or 0 in span.shape):
            yield module.names[key], "a matrix"
    magnitude, b = module.span(lora.MAGNITUDE), module.b
    if magnitude and b and len(b.shape) > 1 and magnitude.numel != b.shape[0]:
        name = module.names.get(lora.MAGNITUDE) or module.names[f"{lora.MAGNITUDE}.weight"]
        yield name, f"{b.shape[0]} elements, one for each output of lora_B"


def _span(folder: Folder, name: str) -> Span | None:
    file = folder.file_of.get(name)
    return folder.headers[file].tensors[name] if file else None


def _unlike(folder: Folder, module: lora.Module, expected: str, found: str) -> Defect:
    name = next(iter(module.names.values()))
    return folder.defect(expected, found, file=folder.file_of[name], tensor=name)
