"""Tiny models of many architectures, with what transformers does to their names and ties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from tests.helpers.models import SIZES, llama, mixtral

_EXPERTS: dict[str, Any] = {"moe_intermediate_size": 9, "num_experts_per_tok": 2}
_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "image_size": 8,
    "patch_size": 4,
}
_SEQ2SEQ: dict[str, Any] = {
    "vocab_size": 67,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 37,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}


def qwen3_moe() -> Any:
    config = transformers.Qwen3MoeConfig(**SIZES, **_EXPERTS, num_experts=3, head_dim=8)
    return transformers.Qwen3MoeForCausalLM(config)


def deepseek_v3() -> Any:
    attention = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4}
    attention |= {"qk_nope_head_dim": 4, "v_head_dim": 8, "num_key_value_heads": 4}
    groups = {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1}
    config = transformers.DeepseekV3Config(**SIZES | _EXPERTS | attention | groups)
    return transformers.DeepseekV3ForCausalLM(config)


def gpt_oss() -> Any:
    config = transformers.GptOssConfig(**SIZES, num_local_experts=3, head_dim=8)
    return transformers.GptOssForCausalLM(config)


def sequence_classification() -> Any:
    config = transformers.LlamaConfig(**SIZES, num_labels=3, pad_token_id=0)
    return transformers.LlamaForSequenceClassification(config)


def encoder() -> Any:
    sizes = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}
    return transformers.BertForTokenClassification(transformers.BertConfig(**sizes))


def t5() -> Any:
    config = transformers.T5Config(
        vocab_size=67, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4
    )
    return transformers.T5ForConditionalGeneration(config)


def bart() -> Any:
    return transformers.BartForConditionalGeneration(transformers.BartConfig(**_SEQ2SEQ))


def marian() -> Any:
    """Has tensors that its class keeps out of every save."""
    config = transformers.MarianConfig(**_SEQ2SEQ, decoder_vocab_size=67)
    return transformers.MarianMTModel(config)


def whisper() -> Any:
    config = transformers.WhisperConfig(
        **_SEQ2SEQ, num_mel_bins=8, max_source_positions=10, max_target_positions=10
    )
    return transformers.WhisperForConditionalGeneration(config)


def llava() -> Any:
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**_VISION).to_dict(),
        text_config=transformers.LlamaConfig(**SIZES).to_dict(),
        image_token_index=66,
    )
    return transformers.LlavaForConditionalGeneration(config)


def qwen2_vl() -> Any:
    rope = {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}
    tokens = {"bos_token_id": 1, "eos_token_id": 2}
    vision = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2}
    config = transformers.Qwen2VLConfig(text_config=SIZES | rope | tokens, vision_config=vision)
    return transformers.Qwen2VLForConditionalGeneration(config)


def gemma3() -> Any:
    config = transformers.Gemma3Config(
        text_config=SIZES | {"head_dim": 8}, vision_config=_VISION, mm_tokens_per_image=1
    )
    return transformers.Gemma3ForConditionalGeneration(config)


def mixed_dtypes() -> Any:
    model: Any = llama().half()
    model.model.norm.float()
    model.lm_head.bfloat16()
    return model


MAKE: dict[str, Callable[[], Any]] = {
    make.__name__: make
    for make in (
        mixtral,
        qwen3_moe,
        deepseek_v3,
        gpt_oss,
        sequence_classification,
        encoder,
        t5,
        bart,
        marian,
        whisper,
        llava,
        qwen2_vl,
        gemma3,
        mixed_dtypes,
    )
}


def make(name: str) -> Any:
    torch.manual_seed(0)
    return MAKE[name]()
