"""The axes of a case and their values in words: under findings, and for ``explain AXIS``.

An axis is a field of a case or of its adapter. Whoever adds an axis or a value adds its words here,
unless it is registered and brings them, as a family of models does. A test compares this table with
the fields and with ``strategies.AXES``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from types import MappingProxyType
from typing import Any

from saver_conformance.cases.adapter_kinds import adapter_kinds
from saver_conformance.cases.case import MODES, OF_THE_ENGINE, Adapter, Case, plainest
from saver_conformance.cases.families import families
from saver_conformance.cases.settings import settings
from saver_conformance.safe_text import quoted


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis in words.

    Attributes:
        text: what it decides, a noun phrase.
        values: what each value means, by the value as JSON (a string without its quotes).
        other: the same for values that no table can list; ``{}`` stands for the value.
    """

    text: str
    values: Mapping[str, str] = field(default_factory=dict)
    other: str = ""


_AXES: Mapping[str, Axis] = {
    "mode": Axis("the method (full, lora, qlora) and the engine that trained, METHOD-ENGINE"),
    "architecture": Axis(
        "the family of the tiny model",
        {name: family.text for name, family in families().items()},
    ),
    "sizes": Axis(
        "the sizes of the vocabulary and of the feed-forward layers",
        {
            "even": "every number of ranks divides them",
            "odd": "no number of ranks divides them, so that shards are uneven",
        },
    ),
    "dtype": Axis(
        "the dtype that the model is loaded in",
        {
            "float32": "all of it is float32",
            "bfloat16": "all of it is bfloat16",
            "mixed": "matrices are bfloat16 and norms float32",
        },
    ),
    "adapter": Axis("the settings that the adapter's configuration gets; see the axes r to kind"),
    "r": Axis("the rank of the adapter's update", other="the adapter has rank {}"),
    "alpha": Axis("the adapter's `lora_alpha`", other="lora_alpha is {}"),
    "targets": Axis("the layers that the adapter changes", other="the adapter changes {}"),
    "modules_to_save": Axis(
        "modules that are trained whole in addition to the adapter",
        {"[]": "none"},
        other="trained whole in addition to the adapter: {}",
    ),
    "bias": Axis(
        "the biases that are trained in addition to the adapter",
        {
            "none": "none",
            "all": "all biases of the model are trained",
            "lora_only": "the biases of adapted layers are trained",
        },
    ),
    "dora": Axis(
        "whether the adapter is a DoRA",
        {"false": "it is a LoRA", "true": "magnitudes are trained too (DoRA)"},
    ),
    "names": Axis(
        "the names of the adapters that the model carries; PEFT saves `default` into the folder, "
        "each other one into a folder of its name",
        {'["default"]': "one adapter, called default"},
        other="the model carries the adapters {}; the first is trained",
    ),
    "kind": Axis(
        "the kind of the adapter",
        {name: kind.text for name, kind in adapter_kinds().items()},
    ),
    "max_shard_size": Axis(
        "the limit of a weight file's size, `cfg.max_shard_size`",
        {"null": "the library's default, far above the size of the tiny model"},
        other="weights are split into files of at most {} bytes",
    ),
    "tokenizer": Axis(
        "the tokenizer that training used, `trainer.processing_class`",
        {"chat": "it has a chat template", "plain": "it has no chat template"},
    ),
    "special_values": Axis(
        "the bits of the weights",
        {
            "false": "as training left them",
            "true": "NaN payloads, -0.0, subnormals and infinities are put into them",
        },
    ),
    "views": Axis(
        "whether buffers share memory (architecture custom only)",
        {
            "false": "no buffer does",
            "true": "two buffers are overlapping views of one storage",
        },
    ),
    "persistence_threshold": Axis(
        "which parameters ZeRO-3 leaves whole on every rank",
        {
            "zero": "none: the persistence threshold is 0",
            "default": "small ones: DeepSpeed's default persistence threshold",
        },
    ),
    "existing_save": Axis(
        "the earlier save that lies in the output folder when the saver is called",
        {
            "empty": "none",
            "single": "the same model with other weights in one file, and templates",
            "sharded": "the same model with other weights in shards, and templates",
            "adapter": "another adapter of the same model, and templates",
            "another": "another architecture as an older library wrote it: pickled shards, an "
            "index, files of a slow tokenizer (added_tokens.json, vocab.json, merges.txt), "
            "templates",
        },
    ),
    "foreign_files": Axis(
        "what else lies in the output folder",
        {
            "none": "nothing",
            "strangers": "files that belong to no save: notes.txt, runs/, checkpoint-1/",
            "readonly": "files that belong to no save, and every file there is write-protected",
            "processor": "files of a processor, of a kind that this save does not bring",
        },
    ),
    "generation": Axis(
        "the model's settings of generation",
        {
            "sampling": "sampling is on, and its settings fit",
            "contradictory": "sampling is off and its settings remain, which transformers "
            "refuses to save",
        },
    ),
    "probe": Axis(
        "what is done besides one save",
        {
            "none": "nothing",
            "control_run": "the save is made again, training continues, and the same training "
            "without a "
            "save has to end with the same weights",
            "fault_injection": "saves are killed at many system calls, and others meet calls "
            "that fail",
            "file_trace": "the system calls of every rank are recorded",
            "checkpoints": "the same is trained with checkpoints of which an old one is the best, "
            "resumed from one of them, and killed while one is saved",
            "memory": "the model is larger, and the memory of every rank is watched",
        },
    ),
    "vocabulary": Axis(
        "the vocabulary",
        {
            "same": "as in the base model",
            "resized": "special tokens were added, and rows to the embeddings with them",
        },
    ),
    "tie": Axis(
        "whether the output head is tied as the configuration says",
        {
            "declared": "as `tie_word_embeddings` says",
            "contrary": "the opposite of what `tie_word_embeddings` says: a tie that is declared "
            "is broken, and one that is not declared is made",
        },
    ),
    "model_argument": Axis(
        "what the saver gets as `model`",
        {
            "trained": "the model that was trained, adapter included",
            "base": "the base model inside of the adapter's model, as preference tuning hands it "
            "over; `trainer.model` has the adapter",
        },
    ),
    "class_name": Axis(
        "the name of the model's class",
        {"": "that of the architecture"},
        other="the model's class is a subclass called {}",
    ),
    "wrapper": Axis(
        "what wraps the model or its layers, in addition to the engine",
        {
            "none": "nothing",
            "checkpointing": "activation checkpointing",
            "compile": "`torch.compile` of the whole model",
            "regional": "`torch.compile` of each layer",
        },
    ),
    "trainer": Axis(
        "the class that trains",
        {
            "transformers": "transformers.Trainer",
            "trl-sft": "TRL's SFTTrainer",
            "trl-dpo": "TRL's DPOTrainer",
        },
    ),
    "setting": Axis(
        "which setting of training is away from the usual ones",
        {name: setting.text for name, setting in settings().items()},
    ),
    "result": Axis(
        "what the save is to be",
        {
            "trained": "what was trained: an adapter, or the whole model",
            "merged": "a whole model with the adapter merged into it (`merge_lora: true` in cfg)",
            "relora": "the same, as ReLoRA ends (`relora: true` in cfg)",
        },
    ),
    "world_size": Axis("the number of ranks", other="{} ranks"),
    "replicas": Axis(
        "the number of groups of ranks that each hold the whole model",
        {"1": "one: the model is sharded over all ranks"},
        other="{} groups of ranks each hold the whole model (hybrid sharding)",
    ),
    "nodes": Axis(
        "the number of machines that the ranks pretend to run on",
        {"1": "one"},
        other="the ranks are spread over {} machines: LOCAL_RANK differs from RANK",
    ),
    "disks": Axis(
        "which disk the path of the output folder leads to",
        {
            "shared": "the same on every machine",
            "own": "each machine's own, which the others do not see: the path is the same on all "
            "ranks, and goes through the working directory (`/proc/self/cwd`)",
        },
    ),
    "seed": Axis("the seed of weights, data and training", other="seed {}"),
    "after": Axis(
        "what was trained and saved into the same folder before",
        {"null": "nothing"},
        other="the folder holds an earlier save by the same saver: {}",
    ),
}
AXES: Mapping[str, Axis] = MappingProxyType(_AXES)
"""The axes by name, in the order of the fields; those of the adapter follow ``adapter``."""

_DEFAULTS = {
    item.name: json.loads(json.dumps(item.default))
    for kind in (Case, Adapter)
    for item in fields(kind)
    if item.default is not MISSING
}
MAX_LENGTH = 120
"""Characters of a value that are shown whole."""
SHORT = 30
"""Characters of a value that stands before its words, which name it too."""
_UNTOLD = ("mode", "adapter", "seed", "alpha", "after")
"""Fields that are no unusual value themselves: said elsewhere, or by themselves meaningless."""


def unusual(case: Mapping[str, Any]) -> tuple[str, ...]:
    """The values of ``case`` that are not the default, each with what it means.

    Args:
        case: the content of a case's JSON, perhaps of another version of the suite or not ours.
    """
    return tuple(_unusual(case))


def _unusual(case: Mapping[str, Any]) -> Iterator[str]:
    usual = {**_DEFAULTS, **_of_its_engine(case.get("mode"))}
    adapter = case.get("adapter")
    values = {**case, **adapter} if isinstance(adapter, Mapping) else dict(case)
    for name in (*AXES, *(name for name in values if name not in AXES)):
        if name not in values or name in _UNTOLD:
            continue
        value = values[name]
        if value != usual.get(name) and not (name == "world_size" and value == 1):
            yield _describe(name, value)
    earlier = case.get("after")
    if isinstance(earlier, Mapping):
        told = "; ".join(unusual(earlier))
        mode = f"{earlier.get('mode')} ({told})" if told else str(earlier.get("mode"))
        yield f"after: {AXES['after'].other.format(mode)}"


def _of_its_engine(mode: Any) -> dict[str, Any]:
    """The defaults that the engine of the mode of this name decides, if there is such a mode."""
    known = next((one for one in MODES if one.name == mode), None)
    if known is None:
        return {"world_size": 2}
    usual = plainest(known)
    return {name: getattr(usual, name) for name in OF_THE_ENGINE}


def explain(name: str) -> str:
    """What the axis called ``name`` decides, with its values; the default is marked."""
    axis = AXES[name]
    lines = [f"{name}: {axis.text}", ""]
    values = {value or '""': text for value, text in axis.values.items()}
    default = _spell(_DEFAULTS.get(name)) if name in _DEFAULTS else ""
    width = max(map(len, values), default=0)
    for value, text in values.items():
        mark = " (default)" if value == (default or '""') else ""
        lines.append(f"  {value:{width}}  {text}{mark}")
    if axis.other:
        lines.append(f"  {axis.other.format('VALUE')}")
    return "\n".join(lines).rstrip()


def _describe(name: str, value: Any) -> str:
    axis, spelled = AXES.get(name, Axis("")), _spell(value)
    if text := axis.values.get(spelled):
        return f"{name} {spelled}: {text}"
    listed = ", ".join(map(_spell, value)) if isinstance(value, list | tuple) else spelled
    if not axis.other:
        return f"{name} {listed}"
    head = f"{name} {listed}" if len(listed) <= SHORT else name
    return f"{head}: {axis.other.format(listed)}"


def _spell(value: Any) -> str:
    """``value`` as it stands in a case's JSON, a string without its quotes."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= MAX_LENGTH else quoted(value)
