"""TENSOR: what names, shapes and dtypes of a model's or an adapter's tensors tell."""

from __future__ import annotations

from collections.abc import Iterator

from saver_conformance.checks.wrapper_names import without_wrappers
from saver_conformance.folder.safetensors import Span
from saver_conformance.folder_check import adapters, declared, tensor_names
from saver_conformance.folder_check.folder import Folder
from saver_conformance.folder_check.registry import Remark, folder_check
from saver_conformance.observation.finding import Defect
from saver_conformance.safe_text import quoted

# The library cannot make tensors of PyTorch of them (safetensors 0.8: "Dtype not understood").
_UNKNOWN_TO_TORCH = frozenset({"F6_E2M3", "F6_E3M2"})
_WHOLE_NUMBERS = frozenset({"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"})

HEAD = "lm_head.weight"
EMBEDDINGS = "model.embed_tokens.weight"


@folder_check("TENSOR-001")
def nothing_missing(folder: Folder) -> Iterator[Defect | Remark]:
    """There are tensors, and none is missing that the configuration declares or another needs."""
    if not folder.file_of:
        file = next(iter(folder.headers))
        yield folder.defect("the tensors of the save", "none", file=file)
    elif folder.is_adapter:
        for needed, by in adapters.missing(folder):
            yield folder.defect(f"{needed}, for {by}", "missing")
    else:
        # FILES-001 and FORMAT-004 have what the index promises.
        promised = folder.index.weight_map if folder.index else {}
        for name in declared.shapes(folder):
            if name not in folder.file_of and name not in promised:
                expected = f"{name}, which the configuration declares"
                yield folder.defect(expected, "missing", tensor=name)


@folder_check("TENSOR-002")
def nothing_foreign(folder: Folder) -> Iterator[Defect | Remark]:
    """No flat parameter stands for many tensors, and no layer is there that the model lacks."""
    for name in tensor_names.flat_parameters(folder.file_of):
        expected = "the tensors of the model"
        found = "a flat parameter of FSDP, which no loader takes apart"
        yield folder.defect(expected, found, file=folder.file_of[name], tensor=name)
    if not folder.is_adapter:
        for name, count in declared.further_layers(folder):
            expected = f"{count} layers, as the configuration declares"
            found = "a tensor of another layer, which a loader throws away"
            yield folder.defect(expected, found, file=folder.file_of[name], tensor=name)


@folder_check("TENSOR-003")
def canonical_names(folder: Folder) -> Iterator[Defect | Remark]:
    """No name carries a part of a wrapper, of PEFT's layers, or an adapter's name."""
    known = not folder.is_adapter and folder.is_known_to_transformers
    told: set[str] = set()
    for name, part in tensor_names.wrapped(folder.file_of, known_model=known):
        told.add(name)
        yield _misnamed(folder, name, f"the name {without_wrappers(name)}", f"{part!r} in it")
    if folder.is_adapter:
        for name, why in adapters.misnamed(folder):
            if name not in told:
                yield _misnamed(folder, name, why, "another name")
    elif known:
        for name, part in tensor_names.of_peft(folder.file_of):
            if name not in told:
                yield _misnamed(
                    folder, name, "the name of the model's own tensor", f"PEFT's {part!r}"
                )


@folder_check("TENSOR-004")
def shapes(folder: Folder) -> Iterator[Defect | Remark]:
    """Shapes are those that the configuration declares, and none is a placeholder's."""
    wrong = dict(_placeholders(folder))
    wrong |= dict((adapters if folder.is_adapter else declared).misshapen(folder))
    for name, expected in wrong.items():
        file, found = folder.file_of[name], quoted(list(_span(folder, name).shape))
        yield folder.defect(expected, f"shape {found}", file=file, tensor=name)


@folder_check("TENSOR-005")
def dtypes(folder: Folder) -> Iterator[Defect | Remark]:
    """PyTorch has the dtypes, and a model that is not quantized has no weights of whole numbers."""
    wanted = {} if folder.is_adapter else declared.shapes(folder)
    for name, span in _spans(folder):
        if span.dtype in _UNKNOWN_TO_TORCH:
            expected = "a dtype that safetensors can read for PyTorch"
        elif name in wanted and span.dtype in _WHOLE_NUMBERS:
            expected = "a floating-point dtype: the configuration says nothing of a quantization"
        else:
            continue
        file = folder.file_of[name]
        yield folder.defect(expected, span.dtype, file=file, tensor=name)


@folder_check("TENSOR-007")
def tied_once(folder: Folder) -> Iterator[Defect | Remark]:
    """No head lies beside the embeddings that the configuration ties it to."""
    is_tied = folder.is_known_to_transformers and folder.settings.get("tie_word_embeddings") is True
    if is_tied and {HEAD, EMBEDDINGS} <= set(folder.file_of):
        expected = f"only {EMBEDDINGS}: the configuration says tie_word_embeddings"
        file = folder.file_of[HEAD]
        yield folder.defect(expected, "a head, too", file=file, tensor=HEAD)


def _placeholders(folder: Folder) -> Iterator[tuple[str, str]]:
    """What ZeRO-3 leaves of weights that other ranks hold, each with what it should be."""
    is_void = all(0 in span.shape for _, span in _spans(folder))
    for name, span in _spans(folder):
        is_weight = name.endswith((".weight", ".lora_A", ".lora_B", ".lora_E"))
        is_placeholder = is_weight and span.shape == (0,) and not folder.is_quantized
        if 0 in span.shape and (is_void or is_placeholder):
            yield name, "the shape of a weight"


def _spans(folder: Folder) -> Iterator[tuple[str, Span]]:
    return ((name, _span(folder, name)) for name in folder.file_of)


def _span(folder: Folder, name: str) -> Span:
    return folder.headers[folder.file_of[name]].tensors[name]


def _misnamed(folder: Folder, name: str, expected: str, found: str) -> Defect:
    file = folder.file_of[name]
    return folder.defect(expected, found, file=file, tensor=name)
