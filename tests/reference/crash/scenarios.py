"""What is saved over what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helpers import models
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from canonical_saver import save_model

Saver = Callable[..., Any]


def tokenizer(words: str, template: str) -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate([*words.split(), "[UNK]", "[EOS]"])}
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token="[UNK]")),
        unk_token="[UNK]",
        eos_token="[EOS]",
    )
    made.chat_template = template
    return made


def two_adapters(seed: int) -> Any:
    model = models.peft(seed=seed)
    model.add_adapter("second", model.peft_config["default"])
    return model


@dataclass(frozen=True)
class Saving:
    """One save: the model and how it is saved."""

    make: Callable[[], Any]
    options: dict[str, Any] = field(default_factory=dict)


def old_tokenizer() -> PreTrainedTokenizerFast:
    return tokenizer("a b", "old")


def new_tokenizer() -> PreTrainedTokenizerFast:
    return tokenizer("b a", "new")


@dataclass(frozen=True)
class Scenario:
    """A save over what lies in the folder.

    Attributes:
        name: of the scenario.
        old: the save that was there before, None for an empty folder.
        new: the save that gets a fault.
        saver: saves a model to a folder with options.
        first: the save before the old one, None if there was none.
    """

    name: str
    old: Saving | None
    new: Saving
    saver: Saver = save_model
    first: Saving | None = None

    def prepare(self, folder: Path) -> None:
        """Make the folder as it is before the save."""
        folder.mkdir()
        (folder / "runs").mkdir()
        (folder / "runs" / "events").write_text("of somebody else")
        for saving in (self.first, self.old):
            if saving is not None:
                save_model(saving.make(), folder, **saving.options)


SMALL = "30KB"
OLD_SINGLE = Saving(lambda: models.llama(seed=1), {"tokenizer": old_tokenizer()})
OLD_SHARDED = Saving(
    lambda: models.llama(seed=1), {"tokenizer": old_tokenizer(), "max_shard_size": SMALL}
)
OLD_ADAPTERS = Saving(lambda: two_adapters(1), {"tokenizer": old_tokenizer()})
NEW_SINGLE = Saving(lambda: models.llama(seed=2, tied=True), {"tokenizer": new_tokenizer()})
NEW_SHARDED = Saving(
    lambda: models.llama(seed=2), {"tokenizer": new_tokenizer(), "max_shard_size": SMALL}
)
NEW_ADAPTERS = Saving(lambda: two_adapters(2), {"tokenizer": new_tokenizer()})

SCENARIOS = (
    Scenario("nothing to sharded", None, NEW_SHARDED),
    Scenario("sharded to single", OLD_SHARDED, NEW_SINGLE),
    Scenario("single to sharded", OLD_SINGLE, NEW_SHARDED),
    Scenario("adapters to full", OLD_ADAPTERS, NEW_SINGLE),
    Scenario("full to adapters", OLD_SHARDED, NEW_ADAPTERS),
    Scenario("full and adapters to adapters", OLD_ADAPTERS, NEW_ADAPTERS, first=OLD_SHARDED),
    Scenario("full and adapters to full", OLD_ADAPTERS, NEW_SINGLE, first=OLD_SHARDED),
)
