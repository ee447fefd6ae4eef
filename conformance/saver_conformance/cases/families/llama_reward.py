"""A reward model: a Llama with a head of one number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from saver_conformance.cases.families.llama import LLAMA
from saver_conformance.cases.families.llama import settings as llama_settings
from saver_conformance.cases.family import Sizing, no_language_model


def settings(size: Sizing) -> dict[str, Any]:
    """A Llama with one label."""
    return {**llama_settings(size), "num_labels": 1, "problem_type": "regression"}


def scored(tokens: Any, size: Sizing) -> dict[str, Any]:
    """A text and its score."""
    return {"input_ids": tokens, "labels": tokens[0] / size.vocabulary}


LLAMA_REWARD = replace(
    LLAMA,
    name="llama-reward",
    place=11,
    text="a decoder with a head that gives each text one number, as reward models have",
    class_name="LlamaForSequenceClassification",
    auto="AutoModelForSequenceClassification",
    task="SEQ_CLS",
    settings=settings,
    batch=scored,
    rows=True,
    generates=False,
    head="score",
    whole=("classifier", "score"),
    pairs=False,
    limits=no_language_model("lm_head"),
)
