"""ModernBERT, as a classifier of texts and of tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from saver_conformance.cases.families.bert import BERT, BERT_TOKENS
from saver_conformance.cases.families.bert import settings as bert_settings
from saver_conformance.cases.family import TOKENS, Sizing


def settings(size: Sizing) -> dict[str, Any]:
    """A layer with local and one with global attention."""
    shared = bert_settings(size)
    hidden = 36 if size.odd and not size.packed else size.hidden  # its heads have even sizes
    return {
        "vocab_size": size.vocabulary,
        "hidden_size": hidden,
        "intermediate_size": size.intermediate,
        "num_hidden_layers": 2,
        "num_attention_heads": size.heads,
        "max_position_embeddings": 40,
        "layer_types": ["full_attention", "sliding_attention"],
        "local_attention": 4,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 70_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 5_000.0},
        },
        "norm_eps": 1e-6,
        "classifier_pooling": "mean",
        "cls_token_id": 1,
        "sep_token_id": 2,
        "id2label": shared["id2label"],
        "label2id": shared["label2id"],
        **TOKENS,
    }


MODERNBERT = replace(
    BERT,
    name="modernbert",
    place=20,
    text="an encoder with fused projections and two kinds of attention, that classifies texts",
    model_type="modernbert",
    class_name="ModernBertForSequenceClassification",
    layers=("ModernBertEncoderLayer",),
    attention=("Wqkv",),
    linear=("Wqkv", "Wi", "Wo"),
    settings=settings,
    embedding="tok_embeddings",
)

MODERNBERT_TOKENS = replace(
    MODERNBERT,
    name="modernbert-tokens",
    place=21,
    text="an encoder with fused projections and two kinds of attention, that classifies tokens",
    class_name="ModernBertForTokenClassification",
    auto=BERT_TOKENS.auto,
    task=BERT_TOKENS.task,
    batch=BERT_TOKENS.batch,
)
