"""Loads a saved folder as its user would, in a process of its own, and compares.

Memory that loading leaves untouched does not look right by accident: new tensors are poisoned, and
random initialisation is seeded differently from training.
"""

from __future__ import annotations

import hashlib
import shutil
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from tokenizers import Tokenizer
from transformers import AutoProcessor, AutoTokenizer

from saver_conformance.cases import families
from saver_conformance.cases.case import Adapter, Case
from saver_conformance.observation.mapping_diff import describe_difference
from saver_conformance.observation.observation import Difference, Expectation, Reload, Tensor
from saver_conformance.observation.tensor_diff import compare
from saver_conformance.workload import (
    expectation,
    models,
    oracle,
    plain_save,
    training,
    version_compat,
    warm_up,
)
from saver_conformance.workload.hub_names import adapter_folder
from saver_conformance.workload.oracle import TORCH_DTYPES, bits, to_torch

_VOLATILE = frozenset(
    {"_name_or_path", "transformers_version", "architectures", "dtype", "target_modules"}
)
"""Settings that name the folder or the library, show in the tensors too, or have no order."""

# Here, where a server does it once for all the processes that it forks.
warm_up.warm_up()
for _family in families.families().values():
    models.import_model_code(_family)

TEXTS = ("w5 w6  w7w8,w9", "don't w12'll\n\tw1 2", "<s>w3</s> \u6771w4")
"""Texts on which pre-tokenizers differ, in words of the suite's own tokenizers."""


def reload(case: Case, folder: Path) -> Reload:
    """Load what was saved for ``case`` into ``folder / "out"``; errors end in ``Reload.error``."""
    torch.set_num_threads(1)
    models.keep_code_in(folder / "code")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    torch.manual_seed(case.seed + 7919)
    version_compat.adjust("peft")  # the control model gets its adapters as the trained one
    expected = expectation.read(folder)
    memory = expectation.read_tensors(folder / expectation.MEMORY_FILE)
    try:
        if not case.saves_adapter:
            return _reload_full(case, folder, expected, memory)
        return _reload_adapter(case, folder, expected, memory)
    except Exception:
        return Reload(error=traceback.format_exc())


def identify(case: Case, folder: Path) -> dict[str, str | None]:
    """What a loader gets from each folder in ``folder / "states"``, or None where it refuses."""
    torch.set_num_threads(1)
    models.keep_code_in(folder / "code")
    found: dict[str, str | None] = {}
    for state in sorted((folder / "states").iterdir()):
        try:
            found[state.name] = _identity(case, folder, state)
        except Exception:
            found[state.name] = None
    return found


def save_plainly(case: Case, folder: Path) -> bool:
    """Write a plain save of what was trained, for readers to be compared with."""
    torch.set_num_threads(1)
    plain_save.write(case, folder)
    return True


def _identity(case: Case, folder: Path, saved: Path) -> str:
    if case.adapter is None or not case.saves_adapter:
        model = models.auto_class(case.family).from_pretrained(
            saved, dtype="auto", experts_implementation="eager", **models.trust(case.family)
        )
        settings = model.config.to_dict()
    else:
        base = models.load_base(case, models.base_folder(case, folder))
        model = _load_adapters(case.adapter, base, saved)
        settings = {name: config.to_dict() for name, config in model.peft_config.items()}
    digest = hashlib.blake2b(digest_size=16)
    for key, value in _leaves(settings):
        digest.update(f"{key}={value!r};".encode())
    for name, value in sorted(model.state_dict().items()):
        if not case.saves_adapter or _of_adapter(case, name):
            digest.update(name.encode())
            digest.update(bits(value).data)
    return digest.hexdigest()


def _of_adapter(case: Case, name: str) -> bool:
    marks = case.adapter.method.marks if case.adapter else ()
    return "modules_to_save" in name or any(mark in name for mark in marks)


def _leaves(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key in sorted(settings, key=str):
        if isinstance(settings[key], dict) and settings[key]:
            yield from _leaves(settings[key])
        elif key not in _VOLATILE:
            yield key, settings[key]


def _load_adapters(adapter: Adapter, base: Any, saved: Path, *, upcast: bool = True) -> Any:
    """The base with all of the case's adapters, each from where PEFT puts it."""
    first, *others = adapter.names
    model = PeftModel.from_pretrained(
        base, saved / adapter_folder(first), first, autocast_adapter_dtype=upcast
    )
    for name in others:
        model.load_adapter(saved / adapter_folder(name), name, autocast_adapter_dtype=upcast)
    return model


def _reload_full(
    case: Case, folder: Path, expected: Expectation, memory: Mapping[str, Tensor]
) -> Reload:
    model, info = models.auto_class(case.family).from_pretrained(
        folder / "out",
        dtype="auto",
        output_loading_info=True,
        experts_implementation="eager",
        **models.trust(case.family),
    )
    models.rename_class(model, case)
    state = model.state_dict()
    untied = tuple(
        name
        for name, kept in expected.tied.items()
        if state[name].data_ptr() != state[kept].data_ptr()
    )
    differences = tuple(_differences(memory, state))  # a call may change buffers
    logits = None
    floating = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
    types = {TORCH_DTYPES[one.dtype] for name, one in memory.items() if name in floating}
    if case.result != "trained" and len(types) > 1:
        # PEFT merges some kinds into layers of another dtype; loading gives all of them one.
        types = {parameter.dtype for parameter in floating.values()}
    if not case.special_values and len(types) == 1:
        [dtype] = types
        logits = _same_logits(case, model, lambda: _control(case, expected, memory, dtype))
    return Reload(
        class_name=type(model).__name__,
        missing=tuple(sorted(info["missing_keys"])),
        # What the class does not load of the base either, a save may carry along.
        unexpected=tuple(sorted(info["unexpected_keys"] - expected.optional)),
        differences=differences,
        untied=untied,
        logits=logits,
        tokenizer_error=_tokenizer_error(case, folder, expected),
    )


def _control(
    case: Case, expected: Expectation, memory: Mapping[str, Tensor], dtype: torch.dtype
) -> Any:
    """The case's model with the snapshot in it, made without anything that the saver wrote."""
    control = models.auto_class(case.family).from_config(
        models.make_config(case),
        dtype=dtype,
        experts_implementation="eager",
        **models.trust(case.family),
    )
    models.set_head(control, case)
    control.load_state_dict({**_tensors(memory), **_aliases(expected, memory)})
    return control


def _reload_adapter(
    case: Case, folder: Path, expected: Expectation, memory: Mapping[str, Tensor]
) -> Reload:
    assert case.adapter is not None
    base = models.base_folder(case, folder)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = _load_adapters(
            case.adapter,
            models.load_base(case, base),
            folder / "out",
            # The adapter takes the base's type, or float32 with autocast: ask for what was trained.
            upcast=any(tensor.dtype == "F32" for tensor in memory.values()),
        )
    missing = tuple(str(w.message) for w in said if "missing adapter keys" in str(w.message))
    # Without what is around it where nothing was around the trained one.
    state = (model.get_base_model() if case.adapter.method.prefix else model).state_dict()
    differences = tuple(_differences(memory, state))  # a call may change buffers
    logits = None
    if not case.special_values and not missing:
        logits = _same_logits(case, model, lambda: _adapted_control(case, base, memory, state))
    return Reload(
        class_name=type(model).__name__,
        missing=missing,
        differences=differences,
        logits=logits,
        tokenizer_error=_tokenizer_error(case, folder, expected),
    )


def _adapted_control(
    case: Case, base: Path, memory: Mapping[str, Tensor], state: Mapping[str, torch.Tensor]
) -> Any:
    """The case's model with the snapshot in it, made without anything that the saver wrote.

    Only the types are those that PEFT loaded into (``state``): it keeps float32 for adapters, but
    not for the modules trained whole.
    """
    assert case.adapter is not None
    control = training.add_adapters(models.load_base(case, base), case)
    values = {
        name: value.to(state[name].dtype) if name in state else value
        for name, value in _tensors(memory).items()
    }
    tied = oracle.read_names(control, case.family).tied
    unexpected = control.load_state_dict(values, strict=False, assign=True).unexpected_keys
    if unexpected:
        raise RuntimeError(f"the snapshot has tensors that the model lacks: {unexpected}")
    for name, first in tied.items():  # assigning one of two names has parted them
        kept, other = (name, first) if name in values and first not in values else (first, name)
        place, _, leaf = other.rpartition(".")
        setattr(control.get_submodule(place), leaf, control.get_parameter(kept))
    return control


def _tensors(memory: Mapping[str, Tensor]) -> dict[str, torch.Tensor]:
    return {name: to_torch(tensor) for name, tensor in memory.items()}


def _aliases(expected: Expectation, memory: Mapping[str, Tensor]) -> dict[str, torch.Tensor]:
    kept = _tensors({kept: memory[kept] for kept in expected.tied.values()})
    return {name: kept[first] for name, first in expected.tied.items()}


def _same_logits(case: Case, model: Any, make_control: Callable[[], Any]) -> bool | None:
    """Whether the logits are those of a control; None where the suite cannot make one.

    That is no fault of the saver, and stays unchecked.
    """
    try:
        control = make_control()
    except Exception:
        traceback.print_exc()
        return None
    size = models.sizing(case)
    rows = [case.family.batch(tokens, size) for tokens in torch.arange(4, 20).reshape(2, 8)]
    inputs = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
    # Without a loss: some adapters cannot compute theirs when they are loaded for inference.
    labels = inputs.pop("labels")
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = labels
    # Training mode, no dropout: in evaluation bitsandbytes repacks 4-bit weights for some CPUs and
    # fails at these sizes (bitsandbytes/nn/modules.py, Linear4bit.forward).
    mixed = torch.autocast("cpu", torch.bfloat16, enabled=case.dtype != "float32")
    for tensor in (*model.parameters(), *control.parameters()):
        # Kernels choose their path by alignment, and a loaded tensor lies wherever its file had it;
        # matmul by whether a gradient may be asked for, even where none is (LinearAlgebra.cpp,
        # should_fold).
        tensor.data = tensor.data.clone()
        tensor.requires_grad_(False)
    with torch.no_grad(), mixed:
        found, expected = (bits(m.train()(**inputs).logits) for m in (model, control))
    return found == expected


def _differences(
    memory: Mapping[str, Tensor], state: Mapping[str, torch.Tensor]
) -> Iterator[Difference]:
    """Compare bits; a library may load into another type, then the cast values are compared."""
    for name, tensor in memory.items():
        found = bits(state[name]) if name in state else None
        if found and found.dtype != tensor.dtype:
            tensor = bits(to_torch(tensor).to(TORCH_DTYPES[found.dtype]))
        if difference := compare(name, tensor, found):
            yield difference


def _tokenizer_error(case: Case, folder: Path, expected: Expectation) -> str:
    """What differs from a plain save of the same tokenizer, read by the same ``AutoTokenizer``."""
    output, plain = folder / "out", folder / "tokenizer"
    models.make_processing(case).save_pretrained(plain)
    if (output / "config.json").exists():  # decides which class AutoTokenizer takes
        shutil.copy(output / "config.json", plain)
    reference = AutoTokenizer.from_pretrained(plain, **models.trust(case.family))
    try:
        tokenizer = AutoTokenizer.from_pretrained(output, **models.trust(case.family))
    except Exception as error:
        return f"AutoTokenizer.from_pretrained failed: {error}"
    if differs := describe_difference(expected.vocabulary, tokenizer.get_vocab(), "token"):
        return f"the vocabulary differs: {differs}"
    if tokenizer.chat_template != expected.chat_template:
        return (
            f"expected chat template {expected.chat_template!r}, found {tokenizer.chat_template!r}"
        )
    if differs := _file_error(case, output):
        return differs
    special = reference.special_tokens_map, tokenizer.special_tokens_map
    if differs := describe_difference(*special, "special token"):
        return f"the special tokens differ: {differs}"
    ids = reference("w1 w2 w3")["input_ids"]
    if tokenizer("w1 w2 w3")["input_ids"] != ids:
        return "the same text is encoded to other tokens"
    if tokenizer.decode(ids) != reference.decode(ids):
        return "the same tokens are decoded to another text"
    return "" if case.family.processor is None else _processor_error(output, plain)


def _file_error(case: Case, output: Path) -> str:
    """What ``tokenizer.json`` as it is does otherwise than the training's own tokenizer.

    ``AutoTokenizer`` cannot tell: for some types of models it puts a pre-tokenizer of its own in
    the place of the file's.
    """
    trained = models.make_processing(case)
    own = getattr(trained, "tokenizer", trained).backend_tokenizer
    saved = Tokenizer.from_file(str(output / "tokenizer.json"))
    for text in TEXTS:
        ids = own.encode(text, add_special_tokens=False).ids
        found = saved.encode(text, add_special_tokens=False).ids
        if found != ids:
            return f"tokenizer.json encodes {text!r} to {found}, the training's tokenizer to {ids}"
    return ""


def _processor_error(output: Path, plain: Path) -> str:
    """What differs from a plain save of the same processor, read by the same ``AutoProcessor``."""
    reference = AutoProcessor.from_pretrained(plain)
    try:
        processor = AutoProcessor.from_pretrained(output)
    except Exception as error:
        return f"AutoProcessor.from_pretrained failed: {error}"
    if type(processor) is not type(reference):
        return f"expected a {type(reference).__name__}, found a {type(processor).__name__}"
    settings = reference.to_dict(), processor.to_dict()
    differs = describe_difference(*settings, "setting")
    return f"the processor differs: {differs}" if differs else ""
