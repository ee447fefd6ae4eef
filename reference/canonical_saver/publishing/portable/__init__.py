"""The files next to the weights, made fit for readers of other versions.

transformers 5 writes settings under new names, and readers that look for the old ones take their
defaults without a word. Each setting is added under its old name too, where the installed
transformers reads the folder as without it: the configuration's own class decides. What it would
keep or read differently is left out. ``docs/guides/portable.md`` has the keys and who reads them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from filecmp import cmp
from pathlib import Path
from typing import Any

from canonical_saver.errors import describe
from canonical_saver.formats.safetensors import DTYPE_NAMES
from canonical_saver.publishing.portable import adapter_notes, claims, config_keys, tokenizer_keys
from canonical_saver.publishing.portable.key import Choice, Key
from canonical_saver.publishing.portable.reading import Reader
from canonical_saver.publishing.sidecars import Written
from canonical_saver.weights import base_tensors
from canonical_saver.weights.base_tensors import BaseTensor
from canonical_saver.writing.write_plan import WritePlan

MOST_NAMED = 8
"""Tensors that a warning names."""

_CONFIG = "config.json"
_TOKENIZER = "tokenizer_config.json"
_TEMPLATE = "chat_template.jinja"
_TEMPLATES = "additional_chat_templates"


def complete(plan: WritePlan, folder: Path, written: Written) -> Written:
    """Add to the staged files what other readers look for; for rank 0.

    Args:
        plan: the save.
        folder: where the files are.
        written: what came of writing them.

    Returns:
        The same with what was done and for whom, what some readers cannot read, and the tensors of
        the base that are to be saved too.

    Raises:
        OSError: the file system refused a write.
    """
    lines = list(adapter_notes.notes(plan.weight_sets))
    carried: tuple[BaseTensor, ...] = ()
    config = _read(folder / _CONFIG)
    if config is not None and plan.weight_sets[0].adapter is None:
        if plan.request.format != "dcp":  # which a model in memory reads, that has no such tensors
            carried = _of_base(plan, config)
        names = [saved.name for saved in plan.weight_sets[0].saved_tensors]
        names += [tensor.name for tensor in carried]
        kind = type(plan.model.config)
        lines += _tried(_CONFIG, _complete_config(folder / _CONFIG, config, kind, names))
    if not _of_the_base(plan, folder / _TOKENIZER):
        lines += _tried(_TOKENIZER, _complete_tokenizer(folder))
    warnings = (*written.warnings, *_warnings(carried))
    return replace(written, warnings=warnings, portability=tuple(lines), carried=carried)


def _of_base(plan: WritePlan, config: Mapping[str, Any]) -> tuple[BaseTensor, ...]:
    names = (getattr(plan.model.config, "_name_or_path", None), plan.request.base_model)
    found = base_tensors.find(names, config, plan.weight_sets[0])
    return found if all(tensor.dtype in DTYPE_NAMES for tensor in found) else ()


def _of_the_base(plan: WritePlan, path: Path) -> bool:
    """Whether a file beside an adapter lies in the output folder already, with a whole model.

    It is the base's then, and an adapter that changes it would be refused.
    """
    lying = plan.request.output_dir
    adapter = plan.weight_sets[0].adapter is not None
    there = path.is_file() and (lying / _CONFIG).is_file() and (lying / path.name).is_file()
    return adapter and there and cmp(path, lying / path.name, shallow=False)


def _tried(name: str, lines: Iterator[str]) -> list[str]:
    """What is said of a file; whatever is wrong with it must not cost the weights."""
    try:
        return list(lines)
    except OSError:
        raise
    except Exception as error:
        return [f"{name} has nothing for other readers than its own: {describe(error)}"]


def _warnings(carried: Sequence[BaseTensor]) -> Iterator[str]:
    if carried:
        names = [tensor.name for tensor in carried]
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        yield (
            f"{len(names)} tensors of the base in {carried[0].file.parent} are of layers that "
            "predict further tokens, which the class of the model never loads, so that they were "
            f"not trained; they are saved as they are there: {', '.join(names[:MOST_NAMED])}{more}"
        )


def _complete_config(
    path: Path, config: dict[str, Any], kind: type[Any], names: Sequence[str]
) -> Iterator[str]:
    reader = Reader(kind)
    if not reader.reads(config):
        return  # it is not valid, and a warning says so
    made, kept = config, claims.unmet(config, names)
    if kept:
        made = claims.without(config, kept)
        places = [".".join(place) for place in kept]
        if reader.reads_alike(made, config, but=places):
            yield (
                f"{_CONFIG} has 0 for {', '.join(places)}: layers that predict further tokens are "
                "not in the folder, and vLLM and others would look for them"
            )
        else:
            made = config
            yield (
                f"{_CONFIG} claims layers that predict further tokens ({', '.join(places)}), which "
                "are not in the folder; other settings hang on the claim, so that it stays, and "
                "readers that look for these layers fail"
            )
    choices = list(config_keys.candidates(made))
    fitting = _fitting(reader, choices, made)
    for choice, key in zip(choices, fitting, strict=True):
        if key is None and choice.missed:
            yield f"{_CONFIG} is without {choice.missed}"
    added = [key for key in fitting if key is not None]
    made = _with(made, added)
    if made != config:
        _write(path, made, ascii_only=True)
    yield from _told(_CONFIG, added)


def _fitting(
    reader: Reader, choices: Sequence[Choice], plain: Mapping[str, Any]
) -> list[Key | None]:
    """For each choice the first spelling with which the class reads all else as without it.

    The first of all are tried at once: mostly they fit, and the class reads them in one go.
    """
    firsts = [choice.spellings[0] for choice in choices]
    if _fit(reader, choices, firsts, plain):
        return [*firsts]
    found: list[Key | None] = []
    for choice in choices:
        fit = (key for key in choice.spellings if _fit(reader, choices, [*found, key], plain))
        found.append(next(fit, None))
    return found


def _fit(
    reader: Reader, choices: Sequence[Choice], keys: Sequence[Key | None], plain: Mapping[str, Any]
) -> bool:
    """Whether the class knows what it should know, and reads all else as without these keys."""
    chosen = [(choice, key) for choice, key in zip(choices, keys, strict=False) if key is not None]
    known = all(reader.makes(key, choice.makes, plain) for choice, key in chosen if choice.makes)
    kept = [key.place for choice, key in chosen if choice.kept]
    made = _with(plain, [key for _, key in chosen])
    return known and reader.reads_alike(made, plain, but=kept)


def _with(config: Mapping[str, Any], keys: Sequence[Key]) -> dict[str, Any]:
    made = dict(config)
    for key in keys:
        made = key.put(made)
    return made


def _complete_tokenizer(folder: Path) -> Iterator[str]:
    config = _read(folder / _TOKENIZER)
    if config is None:
        return
    made, added = tokenizer_keys.portable(config, _templates(folder))
    if made != config:
        _write(folder / _TOKENIZER, made, ascii_only=False)
    yield from _told(_TOKENIZER, added)


def _told(name: str, added: Sequence[Key]) -> Iterator[str]:
    """Say for each group of readers which keys they are for."""
    by_readers: dict[str, list[str]] = {}
    for key in added:
        by_readers.setdefault(key.readers, []).append(key.place)
    for readers, places in by_readers.items():
        yield f"{name} has {', '.join(places)} for {readers}"


def _templates(folder: Path) -> Mapping[str, str]:
    """The chat templates in files of their own, by their names."""
    named = {path.stem: path for path in sorted((folder / _TEMPLATES).glob("*.jinja"))}
    if (folder / _TEMPLATE).is_file():
        named = {"default": folder / _TEMPLATE, **named}
    return {name: path.read_text(encoding="utf-8") for name, path in named.items()}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write(path: Path, values: Mapping[str, Any], *, ascii_only: bool) -> None:
    """Write settings in the form that ``save_pretrained`` has."""
    text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=ascii_only) + "\n"
    path.write_text(text, encoding="utf-8")
