"""One case on one rank: built, trained, special_values and snapshotted, ready for the saver."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import Trainer

from saver_conformance.cases.adapter_kind import AdapterKind
from saver_conformance.cases.case import Adapter, Case, WorldKey
from saver_conformance.folder import node_disks
from saver_conformance.folder.contents import read_contents
from saver_conformance.observation.observation import Expectation, Tensor
from saver_conformance.observation.process_diff import BASE, LIBRARIES
from saver_conformance.workload import (
    existing_files,
    expectation,
    extra_step,
    fingerprint,
    merged_model,
    models,
    oracle,
    process_state,
    require,
    training,
)
from saver_conformance.workload.config import Config, make_config
from saver_conformance.workload.hub_names import adapter_folder, adapter_key, embedding_keys, to_hub
from saver_conformance.workload.library_functions import LibraryFunctions
from saver_conformance.workload.running_engine import uncompiled
from saver_conformance.workload.tokenizer import CHAT_TEMPLATE

_RUN_SETTINGS = frozenset({"_name_or_path", "transformers_version", "use_cache"})
"""Fields of a configuration that are about the run, not about the model."""


@dataclass(frozen=True, slots=True)
class PreparedCase:
    """What the saver is called with, and how to end the case.

    Attributes:
        cfg: configuration as axolotl would pass it.
        trainer: the trainer after ``train()``.
        model: the model as it was passed to the trainer.
        look: the fingerprint of all that the save must leave as it is, on this rank.
        step: trains one more step and has rank 0 write the weights to a file; collective.
        close: gives back what the case held in this process.
    """

    cfg: Config
    trainer: Trainer
    model: Any
    look: Callable[[], fingerprint.Fingerprint]
    step: Callable[[Path], None]
    close: Callable[[], None]


def prepare(case: Case, folder: Path) -> PreparedCase:
    """Train ``case`` and record what belongs in its save; collective over the ranks.

    Args:
        case: what to train.
        folder: the case's scratch folder, the same on every rank; the save goes to ``out`` in it.

    Raises:
        Unavailable: a library that the case needs is not installed.
    """
    require(case)
    process_state.start_process()
    process_state.forget_garbage()
    environment = dict(os.environ)
    try:
        prepared = _prepare(case, folder, environment)
        if case.probe == "memory":  # now that the snapshot is gone
            process_state.return_freed_memory()
        return prepared
    except BaseException:
        _reset(environment, case)
        raise


def _prepare(case: Case, folder: Path, environment: Mapping[str, str]) -> PreparedCase:
    rank = process_state.rank()
    models.keep_code_in(folder.parent / f"code-{rank}")
    output = folder / "out"
    base = models.base_folder(case, folder)
    start = output if case.saves_over_base else base
    processing = models.make_processing(case)
    tokenizer = getattr(processing, "tokenizer", processing)
    if rank == 0:
        if not base.exists():
            _make_base(case, base)
        existing_files.occupy(case, output, base)
        case.training_setting.output(output)
    process_state.barrier()
    merges = case.result != "trained"
    whole = merged_model.make_whole(case, start) if merges and rank == 0 else None
    process_state.seed_all(case.seed)
    loaded = models.load_base(case, start, spread=True)
    if case.training_setting.base_name:
        loaded.name_or_path = loaded.config._name_or_path = case.training_setting.base_name
    model = training.adapt(loaded, case)
    trainer = training.make_trainer(case, model, processing, folder / "trainer")
    model = trainer.model
    names = oracle.read_names(model, case.family)
    untrained = oracle.snapshot("single", model, names, frozenset(names.buffers))
    trainer.train()
    if not training.is_trained_by_its_engine(case, trainer):
        found = type(trainer.model_wrapped).__name__
        raise RuntimeError(f"{case.mode} was trained by another engine; it left a {found}")
    root = uncompiled(trainer.model_wrapped)
    if (replicas := training.running_replicas(root)) != case.replicas:
        raise RuntimeError(f"{case.mode} was trained in {replicas} replicas")
    if case.special_values:
        oracle.plant(case.mode.engine, root)
    wanted = _names_to_save(case, names)
    seen = oracle.snapshot(case.mode.engine, root, names, wanted | frozenset(names.buffers))
    memory = {name: tensor for name, tensor in seen.items() if name in wanted}
    changed = frozenset(name for name in names.buffers if seen[name] != untrained[name])
    if case.tie == "contrary":  # loading does not know of the tie: both names need the value
        memory |= {name: memory[first] for name, first in names.tied.items()}
    if rank == 0:
        saved = merged_model.Merged(model, names, memory)
        if whole is not None:
            saved = merged_model.merge(whole, case, memory)
        expected = expect(
            *(case, start, saved.model, saved.names, saved.memory),
            *(tokenizer.get_vocab(), changed),
        )
        expectation.write(folder, expected, saved.memory)
    here, path = Path.cwd(), _output_path(case, folder, rank)
    cfg = make_config(case, start, path, local_rank=int(os.environ.get("LOCAL_RANK", "0")))
    functions, base_files = LibraryFunctions(), read_contents(base)
    process_state.barrier()

    def close() -> None:
        os.chdir(here)
        _reset(environment, case, trainer)
        if rank == 0 and read_contents(base) != base_files:  # others start from it, too
            _make_base(case, base)

    return PreparedCase(
        cfg,
        trainer,
        model.get_base_model() if case.model_argument == "base" else model,
        look=lambda: {
            **fingerprint.look(cfg, trainer, model),
            BASE: dict(read_contents(base)),
            LIBRARIES: functions.look() if case.probe == "control_run" else {},
        },
        step=lambda path: extra_step.step(case, trainer, names, path),
        close=close,
    )


def _output_path(case: Case, folder: Path, rank: int) -> Path:
    """The path by which ``cfg`` names the output folder on this rank."""
    if case.disks == "own":
        return node_disks.enter(folder, WorldKey.of_case(case).node_of(rank).start)
    return case.training_setting.output(folder / "out")


def _named(memory: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    return {name: memory[name] for name in names}


def _names_to_save(case: Case, names: oracle.Names) -> frozenset[str]:
    """The names in memory of what belongs in a save."""
    if not (case.adapter and case.saves_adapter):
        return names.of_whole_model
    wanted = names.trainable | frozenset(
        name
        for name in (*names.parameters, *names.buffers)
        for adapter in case.adapter.names
        if adapter_key(name, adapter, case.adapter.method) != name
    )
    # The base on disk does not have resized embeddings.
    return wanted | names.embeddings if case.vocabulary == "resized" else wanted


def _make_base(case: Case, base: Path) -> None:
    """Make the base model's folder, or make it anew."""
    partial = base.with_name(base.name + ".partial")
    models.save_base(case, partial)
    models.make_processing(case, trained=False).save_pretrained(partial)
    shutil.rmtree(base, ignore_errors=True)
    partial.rename(base)


def expect(
    case: Case,
    base: Path,
    model: Any,
    names: oracle.Names,
    memory: Mapping[str, Tensor],
    vocabulary: Mapping[str, int],
    changed: frozenset[str] = frozenset(),
) -> Expectation:
    """What belongs in the save; ``changed`` are the buffers that training made other ones."""
    template = CHAT_TEMPLATE if case.tokenizer == "chat" else None
    if case.adapter is None or not case.saves_adapter:
        known, trained = models.make_config(case).to_dict(), model.config.to_dict()
        first = memory[names.parameters[0]].dtype
        undeclared = frozenset(name for name in names.tied if name in memory)
        fields = {
            # A trainer may change a setting, as TRL's do for mixtures of experts.
            **{key: trained.get(key, known[key]) for key in known if key not in _RUN_SETTINGS},
            "architectures": [case.class_name or case.family.class_name],
            "dtype": {"F32": "float32", "BF16": "bfloat16"}[first],
        }
        if undeclared:  # a saver may declare the tie instead of saving both
            del fields["tie_word_embeddings"]
        owned = {name: tensor for name, tensor in memory.items() if name not in undeclared}
        ignored = models.read_ignored(case, base)
        return Expectation(
            tensors={**to_hub(case.family, owned), **ignored},
            tied={} if undeclared else names.tied,
            optional=frozenset(to_hub(case.family, _named(memory, undeclared))).union(ignored),
            config=fields,
            generation={
                key: getattr(model.generation_config, key)
                for key in models.demanded_generation(case)
            },
            chat_template=template,
            vocabulary=vocabulary,
            in_memory={
                hub: name
                for name, tensor in owned.items()
                for hub in to_hub(case.family, {name: tensor})
                if hub != name
            },
        )
    expected, *others = [
        _adapter_expectation(case, case.adapter, index, base, names, memory, changed)
        for index in range(len(case.adapter.names))
    ]
    return replace(expected, others=tuple(others), chat_template=template, vocabulary=vocabulary)


def _prefixed(kind: AdapterKind, names: Iterable[str]) -> frozenset[str]:
    """Names in memory as they are on disk, where an adapter that is injected has a prefix more."""
    return frozenset(n if n.startswith(kind.prefix) else kind.prefix + n for n in names)


def _adapter_expectation(
    case: Case,
    adapter: Adapter,
    index: int,
    base: Path,
    names: oracle.Names,
    memory: Mapping[str, Tensor],
    changed: frozenset[str],
) -> Expectation:
    """What belongs into the folder of the adapter with this number."""
    own, kind = adapter.names[index], adapter.method
    foreign = [
        name
        for name in memory
        for other in adapter.names
        if other != own and adapter_key(name, other, kind) != name
    ]
    frozen = [name for name in names.parameters if name not in memory]
    touched = case.vocabulary == "resized" or case.family.embedding in adapter.targets
    spare = (
        embedding_keys(case.family, (*names.parameters, *names.tied), own, kind)
        if touched
        else frozenset[str]()
    )
    tensors = {
        adapter_key(name, own, kind): tensor
        for name, tensor in memory.items()
        if name not in foreign
    }
    return Expectation(
        tensors=tensors,
        # Statistics that the base ran up: PEFT leaves them out, and loads them where they are.
        optional=_prefixed(kind, spare | changed).difference(tensors),
        base=frozenset(frozen) | {name.replace(".base_layer", "") for name in frozen},
        adapter=_adapter_settings(case, replace(adapter, r=adapter.r + index), base),
        folder=adapter_folder(own),
    )


def _adapter_settings(case: Case, adapter: Adapter, base: Path) -> dict[str, Any]:
    """The fields of ``adapter_config.json``."""
    kind = adapter.method
    settings = dict(kind.settings(adapter, case.family))
    if "modules_to_save" in settings:  # PEFT adds the head of a classifier
        trained = {*(settings["modules_to_save"] or ()), *case.family.whole}
        settings["modules_to_save"] = sorted(trained) or None
    return {
        **settings,
        "peft_type": kind.peft_type,
        "task_type": case.family.task,
        "inference_mode": True,
        "base_model_name_or_path": case.training_setting.base_name or str(base),
    }


def _reset(environment: Mapping[str, str], case: Case, trainer: Trainer | None = None) -> None:
    """Give back what a case leaves behind in the process, and remove what the trainer wrote."""
    process_state.give_back(environment, case, trainer)
    if trainer is not None:
        with suppress(OSError):
            shutil.rmtree(trainer.args.output_dir)
