"""The trainer classes that a case can be trained with, and what each of them is fed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from transformers import PreTrainedTokenizerFast, Trainer, TrainingArguments, default_data_collator

from saver_conformance.cases.case import Case
from saver_conformance.errors import Unavailable


class Rows(Protocol):
    """Rows with ``input_ids`` and ``labels`` of the same length."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, torch.Tensor]: ...


PROMPT_LENGTH = 3
"""Tokens of a row that are the prompt of a preference; the rest is the answer."""


def brings_adapter(case: Case) -> bool:
    """Whether the trainer puts the adapter on the model itself.

    Given a model that has one, preference tuning adds a second, frozen one as its reference.
    """
    return case.trainer == "trl-dpo"


def make(
    case: Case,
    model: Any,
    arguments: dict[str, Any],
    rows: Rows,
    tokenizer: PreTrainedTokenizerFast,
    adapter: Any,
    parts: Mapping[str, Any],
) -> Trainer:
    """The trainer of ``case``.

    Args:
        case: says which class.
        model: the model, with its adapter unless the trainer brings it.
        arguments: those of ``TrainingArguments``.
        rows: what to train on.
        tokenizer: the model's tokenizer.
        adapter: the ``LoraConfig`` that the trainer puts on the model; None for none.
        parts: further arguments of ``transformers.Trainer``; other trainers get none.

    Raises:
        Unavailable: the library of the trainer is not installed.
    """
    if case.trainer == "transformers":
        return Trainer(
            model=model,
            args=TrainingArguments(**arguments),
            train_dataset=rows,
            data_collator=default_data_collator if case.family.rows else None,
            processing_class=tokenizer,
            **parts,
        )
    if find_spec("trl") is None:
        raise Unavailable(f"{case.trainer} needs trl, which is not installed")
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    if case.trainer == "trl-sft":
        from trl import SFTConfig, SFTTrainer

        columns = [{key: value.tolist() for key, value in row.items()} for row in _each(rows)]
        return SFTTrainer(
            model=model,
            args=SFTConfig(**arguments),
            train_dataset=Dataset.from_list(columns),
            processing_class=tokenizer,
        )
    from trl import DPOConfig, DPOTrainer

    # TRL would load it by the base's name, which may be one on the Hub.
    named = case.training_setting.base_name and case.adapter is None
    return DPOTrainer(
        model=model,
        ref_model=copy.deepcopy(model) if named else None,
        # How the reference model is loaded, which has the odd sizes of the case too.
        args=DPOConfig(**arguments, model_init_kwargs={"experts_implementation": "eager"}),
        train_dataset=Dataset.from_list(_preferences(rows, tokenizer)),
        processing_class=tokenizer,
        peft_config=adapter,
    )


def make_batch(case: Case, trainer: Any, rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One batch of two rows, as the trainer's own collator would make it."""
    if case.trainer == "trl-sft":
        # TRL insists on a mask; for the model, all ones is what none means.
        return {**rows, "attention_mask": torch.ones_like(rows["input_ids"])}
    if case.trainer == "transformers":
        return rows
    first, second = rows["input_ids"].tolist()
    prompt = first[:PROMPT_LENGTH]
    return dict(
        trainer.data_collator(
            [
                {
                    "prompt_ids": prompt,
                    "chosen_ids": first[PROMPT_LENGTH:],
                    "rejected_ids": second[PROMPT_LENGTH:],
                }
            ]
        )
    )


def _each(rows: Rows) -> Iterator[dict[str, torch.Tensor]]:
    return (rows[index] for index in range(len(rows)))


def _preferences(rows: Rows, tokenizer: PreTrainedTokenizerFast) -> list[dict[str, str]]:
    """Each row preferred over the next one, as texts."""
    texts = [tokenizer.convert_ids_to_tokens(row["input_ids"].tolist()) for row in _each(rows)]
    return [
        {
            "prompt": " ".join(chosen[:PROMPT_LENGTH]),
            "chosen": " " + " ".join(chosen[PROMPT_LENGTH:]),
            "rejected": " " + " ".join(rejected[PROMPT_LENGTH:]),
        }
        for chosen, rejected in zip(texts, [*texts[1:], texts[0]], strict=True)
    ]
