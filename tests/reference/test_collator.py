"""Tokenizers and processors that only the data collator holds."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.helpers import models
from tests.reference.crash.scenarios import tokenizer
from transformers import DataCollatorForSeq2Seq, DataCollatorWithPadding, default_data_collator

from canonical_saver.collator import tokenizer_of
from canonical_saver.from_trainer import from_training

TOKENIZER = tokenizer("a b", "template")
OTHER = tokenizer("b a", "template")


class Collator:
    """As those in training scripts."""

    def __init__(self, **held: Any) -> None:
        vars(self).update(held)

    def collate(self, examples: Any) -> Any:
        return examples


@pytest.mark.parametrize(
    "collator",
    [
        DataCollatorWithPadding(TOKENIZER),
        DataCollatorForSeq2Seq(TOKENIZER),
        *(
            Collator(**{name: TOKENIZER})
            for name in (
                *("processing_class", "processor", "tokenizer", "feature_extractor"),
                "image_processor",
            )
        ),
        Collator(tokenizer=OTHER, processor=TOKENIZER),
        Collator(processor=lambda text: text, tokenizer=TOKENIZER),
        Collator(tokenizer=TOKENIZER).collate,
        partial(Collator.collate, tokenizer=TOKENIZER),
        partial(Collator(tokenizer=TOKENIZER).collate, []),
        Collator(data_collator=DataCollatorWithPadding(TOKENIZER)),
    ],
)
def test_tokenizer_of_a_collator_is_found(collator: Any) -> None:
    assert tokenizer_of(collator) is TOKENIZER


@pytest.mark.parametrize(
    "collator",
    [None, default_data_collator, len, lambda x: x, Collator(tokenizer="gpt2"), object()],
)
def test_collator_without_a_tokenizer_gives_none(collator: Any) -> None:
    assert tokenizer_of(collator) is None


def test_collator_that_holds_itself_ends() -> None:
    collator = Collator()
    collator.data_collator = collator  # type: ignore[attr-defined]
    assert tokenizer_of(collator) is None


@pytest.mark.parametrize("own", ["processing_class", "tokenizer"])
def test_the_trainer_s_own_tokenizer_comes_first(own: str, tmp_path: Path) -> None:
    trainer = SimpleNamespace(**{own: TOKENIZER}, data_collator=DataCollatorWithPadding(OTHER))
    cfg = {"output_dir": tmp_path}
    assert from_training(cfg, trainer, models.llama()).tokenizer is TOKENIZER
    trainer = SimpleNamespace(processing_class=None, data_collator=DataCollatorWithPadding(OTHER))
    assert from_training(cfg, trainer, models.llama()).tokenizer is OTHER
