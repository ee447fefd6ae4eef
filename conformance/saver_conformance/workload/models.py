"""Tiny models of real architectures, made in code.

A base model is saved once by plain ``save_pretrained`` of an unwrapped model on one process, so
that training starts where users' training starts: with ``from_pretrained``.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    dynamic_module_utils,
)
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from saver_conformance.cases.case import Case
from saver_conformance.cases.family import Family, Sizing
from saver_conformance.folder.layout import SINGLE
from saver_conformance.folder.safetensors import read_header, read_tensor
from saver_conformance.observation.observation import Tensor
from saver_conformance.workload.tokenizer import make_tokenizer

CODE = Path(__file__).with_name("remote_code")
"""The code of models that bring theirs, as it lies in their folders."""

ADDED_TOKENS = ("<|user|>", "<|assistant|>", "<|end|>")
"""Special tokens that a resized vocabulary has beside those of the base."""


GENERATION = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [2, 3]}
"""Settings of generation that the base model has, and that no library would choose."""
STOP_TOKENS = "eos_token_id"
"""The one among them that says when a model's turn ends."""


def demanded_generation(case: Case) -> tuple[str, ...]:
    """Names of the settings of generation that a save has to bring.

    Where they contradict each other, a saver may correct those of sampling.
    """
    if not case.family.generates:
        return ()
    return tuple(GENERATION) if case.generation == "sampling" else (STOP_TOKENS,)


def auto_class(family: Family) -> Any:
    """The ``Auto*`` class that loads the models of ``family``; its own code is imported first."""
    if family.module:
        importlib.import_module(family.module)
    return getattr(transformers, family.auto)


def import_model_code(family: Family) -> None:
    """Import the classes of ``family`` that transformers leaves until somebody asks for them."""
    auto = auto_class(family)
    if family.model_type in transformers.CONFIG_MAPPING:
        auto._model_mapping.get(transformers.CONFIG_MAPPING[family.model_type], None)


def base_vocabulary_size(case: Case) -> int:
    """Rows of the base model's embedding."""
    return 64 if case.sizes == "even" else 67


def vocabulary_size(case: Case) -> int:
    """Rows of the trained model's embedding."""
    return base_vocabulary_size(case) + len(added_tokens(case))


def added_tokens(case: Case) -> tuple[str, ...]:
    """Special tokens that the case adds to those of its base."""
    return ADDED_TOKENS if case.vocabulary == "resized" else ()


def sizing(case: Case) -> Sizing:
    """What the sizes of the trained model depend on."""
    return Sizing(
        vocabulary_size(case),
        odd=case.sizes == "odd",
        packed=case.mode.method == "qlora",
        scalars=not case.mode.definition.no_odd_parameters,
        full=not case.mode.is_adapter,
        large=case.probe == "memory",
    )


def make_processing(case: Case, *, trained: bool = True) -> Any:
    """The tokenizer of ``case``, or the processor that holds it.

    Args:
        case: the case.
        trained: whether as training used it, and not as the base model brings it.
    """
    tokenizer = make_tokenizer(
        base_vocabulary_size(case),
        chat=case.tokenizer == "chat",
        added=added_tokens(case) if trained else (),
        own=case.family.tokens,
    )
    if case.family.processor is None:
        return tokenizer
    return case.family.processor(tokenizer, sizing(case))


def make_config(case: Case) -> PretrainedConfig:
    """The configuration of the trained model."""
    return _config(case.family, sizing(case))


def _config(family: Family, size: Sizing) -> PretrainedConfig:
    auto_class(family)
    if not family.code:
        return AutoConfig.for_model(family.model_type, **family.settings(size))
    kind = get_class_from_dynamic_module(family.code["AutoConfig"], CODE)
    kind.register_for_auto_class()
    return kind(**family.settings(size), auto_map=dict(family.code), name_or_path=str(CODE))


def trust(family: Family) -> dict[str, bool]:
    """What loading is told for ``family``, besides the folder."""
    return {"trust_remote_code": True} if family.code else {}


def keep_code_in(folder: Path) -> None:
    """Have transformers copy the code of models into ``folder``, for this process alone.

    Otherwise it goes into the user's home, where processes would overwrite it for each other.
    """
    dynamic_module_utils.HF_MODULES_CACHE = str(folder)


def base_folder(case: Case, folder: Path) -> Path:
    """Where the base model of ``case`` lies, shared by the cases that start from the same one."""
    kind = "q" if case.mode.method == "qlora" else "p"
    half = "fp32" if case.dtype == "float32" else "bf16"
    kind += "-odd" if make_config(case).to_dict().get("odd_parameters") else ""
    kind += "-large" if sizing(case).large else ""
    name = f"{case.architecture}-{case.sizes}-{half}-{kind}-{case.tokenizer}-{case.seed}"
    bases = folder.parent / "bases"
    bases.mkdir(exist_ok=True)
    return bases / name


def save_base(case: Case, folder: Path) -> None:
    """Write a randomly initialised base model of the case into ``folder``."""
    generator = torch.random.get_rng_state()
    torch.manual_seed(case.seed)
    config = _config(case.family, replace(sizing(case), vocabulary=base_vocabulary_size(case)))
    model: PreTrainedModel = auto_class(case.family).from_config(config, **trust(case.family))
    with torch.no_grad():
        for parameter in model.parameters():
            if (
                parameter.ndim == 1 and parameter.is_floating_point()
            ):  # norms and biases start at one value; tell elements apart
                parameter.add_(torch.randn_like(parameter) * 0.1)
    if case.dtype != "float32":
        model.to(torch.bfloat16)
    if case.family.generates:
        model.generation_config.update(**GENERATION)
        model.generation_config._from_model_config = False
    model.save_pretrained(folder)
    _add_ignored(case, folder / SINGLE)
    torch.random.set_rng_state(generator)


def read_ignored(case: Case, base: Path) -> dict[str, Tensor]:
    """The tensors of the base's folder that the model's class does not load, by name."""
    names = case.family.ignored(sizing(case))
    if not names:
        return {}
    header = read_header(base / SINGLE)
    return {name: read_tensor(base / SINGLE, header, name) for name in names}


def _add_ignored(case: Case, weights: Path) -> None:
    """Give the file of the base's weights what the model's class does not load."""
    shapes = case.family.ignored(sizing(case))
    if not shapes:
        return
    dtype = torch.float32 if case.dtype == "float32" else torch.bfloat16
    others = {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}
    save_file({**load_file(weights), **others}, weights, metadata={"format": "pt"})


def rename_class(model: Any, case: Case) -> None:
    """Make ``model`` an instance of a subclass with the name that the case asks for.

    A model of any other class than the case's own stays as it is.
    """
    kind = type(model)
    if case.class_name and kind.__name__ == case.family.class_name:
        model.__class__ = type(case.class_name, (kind,), {"__module__": kind.__module__})


def set_head(model: Any, case: Case) -> None:
    """Tie or untie the head against the configuration, if the case asks for it."""
    if case.tie == "declared":
        return
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    apart = torch.nn.Parameter(embedding.weight.detach().clone())
    head.weight = apart if case.declares_tie else embedding.weight


def load_base(case: Case, folder: Path, *, spread: bool = False) -> PreTrainedModel:
    """The base model as its user would load it for the case's method, resized where asked for.

    Args:
        case: what is trained.
        folder: where the base lies.
        spread: whether the engine spreads it over the ranks, as for training; otherwise it is whole
            in this process.
    """
    quantization = None
    if case.base_bits == 8:
        quantization = BitsAndBytesConfig(
            load_in_8bit=True, llm_int8_skip_modules=list(case.family.whole) or None
        )
    elif case.base_bits == 4:
        storage = torch.float32 if case.dtype == "float32" else torch.bfloat16
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=storage,
            bnb_4bit_quant_storage=storage,
            # Heads that are trained whole cannot be of 4 bits; of others the library knows best.
            llm_int8_skip_modules=list(case.family.whole) or None,
        )
    dtype = torch.float32 if case.dtype == "float32" else torch.bfloat16
    model: PreTrainedModel = auto_class(case.family).from_pretrained(
        folder,
        dtype=dtype,
        quantization_config=quantization,
        # grouped_mm wants strides of 16 bytes, which odd sizes do not have.
        experts_implementation="eager",
        **trust(case.family),
        **(case.mode.definition.loading(case) if spread else {}),
    )
    if case.dtype == "mixed":
        for module in model.modules():
            if "norm" in type(module).__name__.lower():
                module.float()
    if case.vocabulary == "resized":
        model.resize_token_embeddings(vocabulary_size(case), mean_resizing=False)
    for module in model.modules():
        if case.views and hasattr(module, "share_storage"):
            module.share_storage()
    set_head(model, case)
    model.config.use_cache = False
    model.config.get_text_config().use_cache = False  # the one that decides, in composite models
    if case.generation == "contradictory":
        model.generation_config.do_sample = False
    rename_class(model, case)
    return model
