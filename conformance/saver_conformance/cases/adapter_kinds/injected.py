"""A LoRA that transformers puts on a model itself, without a ``PeftModel`` around it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from saver_conformance.cases.adapter_kind import ONE_ADAPTER
from saver_conformance.cases.adapter_kinds.lora import LORA
from saver_conformance.cases.limit import Limit


def _put_on(model: Any, config: Any, name: str, upcast: bool) -> Any:
    """Inject the adapter; transformers leaves its dtype as PEFT makes it."""
    del upcast
    model.add_adapter(config, name)
    return model


_NOT_SAVED = (
    "transformers saves such an adapter without biases and embeddings of the base "
    "(get_adapter_state_dict, transformers/integrations/peft.py)"
)

INJECTED = replace(
    LORA,
    name="add_adapter",
    place=8,
    text="a LoRA that transformers puts on itself, by `model.add_adapter`: the model stays what it "
    "is, and no PeftModel is around it",
    put_on=_put_on,
    prefix="base_model.model.",
    limits=(
        ONE_ADAPTER,
        Limit("there is no other model inside of it", when={"model_argument": ("base",)}),
        Limit("it has no merge_and_unload", when={"result": ("merged", "relora")}),
        Limit("TRL's trainer puts LoRA on", when={"trainer": ("trl-dpo",)}),
        Limit(_NOT_SAVED, unless={"bias": ("none",)}),
        Limit(_NOT_SAVED, unless={"vocabulary": ("same",)}),
        Limit(
            "PEFT expects the head of a classifier in the folder, and transformers neither trains "
            "nor saves it with such an adapter",
            when={
                "architecture": (
                    "bert",
                    "bert-tokens",
                    "llama-reward",
                    "modernbert",
                    "modernbert-tokens",
                )
            },
        ),
    ),
    pairs=False,
)
