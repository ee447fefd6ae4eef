"""Names of weight files, read and unread, as the libraries that write them choose them."""

from __future__ import annotations

import re
from collections.abc import Collection

from saver_conformance.folder.layout import ADAPTER, ADAPTER_CONFIG, INDEX, SINGLE, layout_of

PICKLED = re.compile(r"(pytorch_model|model|adapter_model)([-_.].*)?\.(bin|pt|pth|pkl)")
PICKLED_WORDS = "pickled weights"
PICKLED_INDEX = "pytorch_model.bin.index.json"
PICKLED_ADAPTER = "adapter_model.bin"
RANK_SHARD = re.compile(r"shard-\d{5,}-model-\d{5,}-of-\d{5,}\.safetensors")
"""A file that torch.distributed.checkpoint writes for one rank, in the format of safetensors."""

# No file of these formats is opened.
_UNREAD = (
    (PICKLED, PICKLED_WORDS),
    (
        re.compile(r"consolidated.*\.(pth|pt|safetensors)"),
        "weights as the model's authors name them",
    ),
    (re.compile(r".*\.(gguf|ggml)"), "weights for llama.cpp"),
    (re.compile(r".*\.distcp"), "a checkpoint of torch.distributed"),
    (re.compile(r".*_(model|optim)_states\.pt"), "a checkpoint of DeepSpeed"),
    (re.compile(r".*\.(ckpt|msgpack|onnx|tflite)|(tf_|.*weights).*\.(h5|npz)"), "exported weights"),
    (re.compile(r"openvino_.*\.bin"), "exported weights"),
)
# mlx-lm calls the configuration of its adapters like PEFT does, and the weights otherwise.
_MLX_ADAPTER = re.compile(r"(\d+_)?adapters\.(safetensors|npz)")
_VARIANT = re.compile(r"model\.[\w-]+(-\d+-of-\d+)?\.safetensors")
# Of training: what a trainer leaves at a checkpoint, logs, and what is hidden.
_PASSING = re.compile(r"\..*|checkpoint-\d+|runs|wandb|logs?")


def unread(names: Collection[str]) -> dict[str, str]:
    """What the files are whose weights are not read, in words, by their names."""
    found: dict[str, str] = {}
    for name in names:
        for pattern, words in _UNREAD:
            if pattern.fullmatch(name):
                found[name] = words
                break
    return found


def is_adapter(names: Collection[str]) -> bool:
    """Whether there is an adapter of PEFT."""
    if ADAPTER in names or PICKLED_ADAPTER in names:
        return True
    return ADAPTER_CONFIG in names and not any(map(_MLX_ADAPTER.fullmatch, names))


def has_whole_model(names: Collection[str]) -> bool:
    """Whether there are weights of a whole model, under a usual name or in an unread format."""
    if set(unread(names)) - {PICKLED_ADAPTER}:
        return True
    return any(name == SINGLE or layout_of(name) == "sharded" for name in names)


def has_safetensors(names: Collection[str]) -> bool:
    """Whether there is a safetensors file under whatever name."""
    return any(name.endswith(".safetensors") for name in names)


def unusual(names: Collection[str]) -> tuple[str, ...]:
    """Safetensors files under names that no loader looks for by itself."""
    return tuple(
        name
        for name in names
        if name.endswith(".safetensors") and layout_of(name) is None and not unread((name,))
    )


def is_variant(name: str) -> bool:
    """Whether ``from_pretrained`` finds a file of this name when a variant is requested."""
    return name != INDEX and _VARIANT.fullmatch(name) is not None


def may_hold_a_save(folder: str) -> bool:
    """Whether a folder of this name may belong to a saved model, not only to its training."""
    return _PASSING.fullmatch(folder) is None
