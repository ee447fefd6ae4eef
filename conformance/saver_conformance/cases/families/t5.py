"""T5: an encoder and a decoder that share one embedding with the head."""

from __future__ import annotations

from typing import Any

from saver_conformance.cases.family import ONE_OF_A_TIE, ONLY_TRANSFORMERS, TOKENS, Family, Sizing
from saver_conformance.cases.limit import Limit


def settings(size: Sizing) -> dict[str, Any]:
    """Two layers each, with gates, and without dropout."""
    return {
        "vocab_size": size.vocabulary,
        "d_model": size.hidden,
        "d_kv": 8,
        "d_ff": size.intermediate,
        "num_layers": 2,
        "num_decoder_layers": 1,
        "num_heads": size.heads,
        "relative_attention_num_buckets": 6,
        "relative_attention_max_distance": 20,
        "dropout_rate": 0.0,
        "layer_norm_epsilon": 1e-5,
        "feed_forward_proj": "gated-silu",
        "decoder_start_token_id": TOKENS["pad_token_id"],
        **TOKENS,
    }


def translation(tokens: Any, size: Sizing) -> dict[str, Any]:
    """A text and another one, as long, that it becomes."""
    return {"input_ids": tokens, "labels": tokens.flip(-1)}


T5 = Family(
    name="t5",
    place=14,
    text="an encoder and a decoder: one tensor is the embedding of both and the head",
    model_type="t5",
    class_name="T5ForConditionalGeneration",
    layers=("T5Block",),
    attention=("q", "v"),
    linear=("q", "k", "v", "o", "wi_0", "wi_1", "wo"),
    settings=settings,
    auto="AutoModelForSeq2SeqLM",
    task="SEQ_2_SEQ_LM",
    batch=translation,
    rows=True,
    ties=True,
    embedding="shared",
    limits=(
        *ONE_OF_A_TIE,
        ONLY_TRANSFORMERS,
        Limit("T5 ties its head whatever its configuration says", when={"tie": ("contrary",)}),
        Limit(
            "FSDP2 refuses a parameter that is in two of its groups, and accelerate puts the "
            "embeddings of encoder and decoder into another one than the head (fsdp_utils.py)",
            modes="*-fsdp2*,*-hsdp,*-fsdp-transformers",
        ),
        Limit(
            "recomputing, FSDP1 saves fewer tensors of the position bias that all layers share "
            "(torch/utils/checkpoint.py)",
            modes="*-fsdp1*",
            when={"wrapper": ("checkpointing",)},
        ),
    ),
)
