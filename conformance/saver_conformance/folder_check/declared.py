"""What a configuration declares about a model's tensors, where that is certain.

Plain decoders have had the same tensors since their first release, so that the configuration gives
their names and shapes; of other models it gives the rows of the embeddings. Nothing is declared by
the configuration of a quantized model or of one whose code lies next to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from saver_conformance.folder_check.folder import Folder

# A class has the model type in its name: LlamaForCausalLM.
_PLAIN_DECODERS: Mapping[str, str] = {
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "gemma": "Gemma",
    "gemma2": "Gemma2",
}
# Where head_dim is left out, these divide hidden_size by the number of heads.
_DIVIDES_HEADS = ("llama", "mistral", "qwen2")

# Of which models with a head for text have one row for each word. Composite models have others.
_EMBEDDINGS = re.compile(
    r"(model\.embed_tokens|(model\.)?shared|transformer\.wte|gpt_neox\.embed_in|embed_out|lm_head"
    r"|\w+\.embeddings\.word_embeddings)\.weight"
)
_OF_TEXT = re.compile(
    r"\w+(ForCausalLM|LMHeadModel|ForMaskedLM|ForConditionalGeneration|ForSequenceClassification"
    r"|ForTokenClassification|ForQuestionAnswering)"
)
_LAYERS = "model.layers."
_HEAD = "lm_head.weight"
_MAX_SIZE = 1 << 40
_MAX_LAYERS = 10_000
_MAX_NAME = 1000


def shapes(folder: Folder) -> Mapping[str, tuple[int, ...]]:
    """Shape by name of the tensors that the model must have; empty where that is not certain."""
    if not _has_known_tensors(folder):
        return {}
    config = folder.settings
    hidden, layers = _size(config, "hidden_size"), _size(config, "num_hidden_layers")
    vocabulary = _size(config, "vocab_size")
    if not (hidden and layers and vocabulary) or layers > _MAX_LAYERS:
        return {}
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }
    if _is(folder, "ForCausalLM") and config.get("tie_word_embeddings") is False:
        found[_HEAD] = (vocabulary, hidden)
    one = _layer(config, hidden)
    for number in range(layers):
        found.update({f"{_LAYERS}{number}.{name}": shape for name, shape in one.items()})
    # A model without its head is saved without the prefix, and loads with a new head.
    is_headless = any(
        name.removeprefix("model.") in folder.file_of for name in found if name != _HEAD
    )
    return {} if is_headless else found


def further_layers(folder: Folder) -> Iterator[tuple[str, int]]:
    """Tensors of layers beyond those that the configuration declares, each with their number."""
    layers = _size(folder.settings, "num_hidden_layers")
    if layers is None or not _has_known_tensors(folder):
        return
    for name in folder.file_of:
        number = name.removeprefix(_LAYERS).partition(".")[0]
        if (
            name.startswith(_LAYERS)
            and number.isdecimal()
            and len(number) < 10
            and int(number) >= layers
        ):
            yield name, layers


def misshapen(folder: Folder) -> Iterator[tuple[str, str]]:
    """Tensors of other shapes than the configuration declares, each with what it should be."""
    wanted = shapes(folder)
    rows = _vocabulary(folder)
    for name, file in folder.file_of.items():
        found = folder.headers[file].tensors[name].shape
        if name in wanted:
            if found != wanted[name]:
                yield name, f"shape {list(wanted[name])}"
        elif rows and _is_embedding(name) and not _has_rows(found, rows):
            yield name, f"{rows} rows, the configuration's vocab_size"


def _is_embedding(name: str) -> bool:
    return len(name) < _MAX_NAME and _EMBEDDINGS.fullmatch(name) is not None


def _has_rows(shape: tuple[int, ...], rows: int) -> bool:
    # A few models have one row more, for padding.
    return len(shape) == 2 and shape[0] in (rows, rows + 1)


def _vocabulary(folder: Folder) -> int | None:
    """The number of rows of the embeddings; None where it is uncertain."""
    config = folder.settings
    if not folder.is_known_to_transformers or folder.is_quantized:
        return None
    if any(isinstance(value, dict) and "vocab_size" in value for value in config.values()):
        return None  # a composite model, which has several
    named = config.get("architectures")
    is_of_text = isinstance(named, list) and len(named) == 1 and _OF_TEXT.fullmatch(str(named[0]))
    return _size(config, "vocab_size") if is_of_text else None


def _layer(config: Mapping[str, Any], hidden: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"input_layernorm.weight": (hidden,)}
    if feed_forward := _size(config, "intermediate_size"):
        found |= {
            "mlp.gate_proj.weight": (feed_forward, hidden),
            "mlp.up_proj.weight": (feed_forward, hidden),
            "mlp.down_proj.weight": (hidden, feed_forward),
        }
    heads, groups = _size(config, "num_attention_heads"), _size(config, "num_key_value_heads")
    width = _size(config, "head_dim")
    if heads and not width and config["model_type"] in _DIVIDES_HEADS:
        width = hidden // heads
    if heads and groups and width:
        found |= {
            "self_attn.q_proj.weight": (heads * width, hidden),
            "self_attn.k_proj.weight": (groups * width, hidden),
            "self_attn.v_proj.weight": (groups * width, hidden),
            "self_attn.o_proj.weight": (hidden, heads * width),
        }
    return found


def _has_known_tensors(folder: Folder) -> bool:
    if not folder.is_known_to_transformers or folder.is_quantized:
        return False
    return _is(folder, "ForCausalLM") or _is(folder, "ForSequenceClassification")


def _is(folder: Folder, task: str) -> bool:
    family = _PLAIN_DECODERS.get(folder.settings["model_type"])
    return family is not None and folder.settings.get("architectures") == [f"{family}{task}"]


def _size(config: Mapping[str, Any], key: str) -> int | None:
    value = config.get(key)
    return value if type(value) is int and 0 < value < _MAX_SIZE else None
