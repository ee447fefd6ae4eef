"""BERT, as a classifier of texts and of tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from saver_conformance.cases.family import TOKENS, Family, Sizing, no_language_model
from saver_conformance.cases.limit import Limit

LABELS = 3
"""Classes that texts and tokens are put into."""


def settings(size: Sizing) -> dict[str, Any]:
    """Two layers, without dropout."""
    return {
        "vocab_size": size.vocabulary,
        "hidden_size": size.hidden,
        "intermediate_size": size.intermediate,
        "num_hidden_layers": 2,
        "num_attention_heads": size.heads,
        "max_position_embeddings": 40,
        "type_vocab_size": 3,
        "hidden_act": "relu",
        "layer_norm_eps": 1e-6,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "id2label": {0: "no", 1: "yes", 2: "perhaps"},
        "label2id": {"no": 0, "yes": 1, "perhaps": 2},
        **TOKENS,
    }


def labelled_text(tokens: Any, size: Sizing) -> dict[str, Any]:
    """A text and its class."""
    return {"input_ids": tokens, "labels": tokens[0] % LABELS}


def labelled_tokens(tokens: Any, size: Sizing) -> dict[str, Any]:
    """A text and the class of each of its tokens."""
    return {"input_ids": tokens, "labels": tokens % LABELS}


BERT = Family(
    name="bert",
    place=12,
    text="an encoder that classifies texts, with absolute positions and names of its labels",
    model_type="bert",
    class_name="BertForSequenceClassification",
    layers=("BertLayer",),
    attention=("query", "value"),
    linear=("query", "key", "value", "dense"),
    settings=settings,
    auto="AutoModelForSequenceClassification",
    task="SEQ_CLS",
    batch=labelled_text,
    rows=True,
    generates=False,
    embedding="word_embeddings",
    head="classifier",
    whole=("classifier", "score"),
    limits=(
        *no_language_model("embed_tokens or lm_head"),
        Limit(
            "its norms have biases, and FSDP2 wants one dtype for all that a layer trains "
            "(torch, _fsdp_param_group.py)",
            modes="*lora-fsdp2*,*lora-hsdp,*lora-fsdp-transformers",
            when={"dtype": ("mixed",), "bias": ("all",)},
        ),
    ),
)

BERT_TOKENS = replace(
    BERT,
    name="bert-tokens",
    place=13,
    text="an encoder that classifies tokens; it has no pooler",
    class_name="BertForTokenClassification",
    auto="AutoModelForTokenClassification",
    task="TOKEN_CLS",
    batch=labelled_tokens,
)
