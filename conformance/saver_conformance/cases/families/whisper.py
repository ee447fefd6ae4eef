"""Whisper: speech in, text out, and a processor of sound beside the tokenizer."""

from __future__ import annotations

from typing import Any

from saver_conformance.cases.family import (
    ONE_OF_A_TIE,
    ONLY_TRANSFORMERS,
    OWN_PROCESSOR,
    TOKENS,
    Family,
    Sizing,
)

BINS = 8
"""Bands of a spectrum."""
FRAMES = 16
"""Spectra of a text; the encoder halves them."""


def settings(size: Sizing) -> dict[str, Any]:
    """Two layers to hear, and one to write."""
    return {
        "vocab_size": size.vocabulary,
        "d_model": size.hidden,
        "encoder_layers": 2,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": size.intermediate,
        "decoder_ffn_dim": size.intermediate,
        "num_mel_bins": BINS,
        "max_source_positions": FRAMES // 2,
        "max_target_positions": 24,
        "activation_function": "relu",
        "scale_embedding": True,
        "decoder_start_token_id": TOKENS["bos_token_id"],
        "begin_suppress_tokens": None,
        **TOKENS,
    }


def heard(tokens: Any, size: Sizing) -> dict[str, Any]:
    """Spectra, and what was said."""
    sound = tokens.float().repeat(BINS * FRAMES // 8).reshape(BINS, FRAMES) / size.vocabulary
    return {"input_features": sound, "labels": tokens}


def processor(tokenizer: Any, size: Sizing) -> Any:
    """The processor of sound and texts; none of its settings is the default."""
    from transformers import WhisperFeatureExtractor, WhisperProcessor

    sound = WhisperFeatureExtractor(
        feature_size=BINS, hop_length=100, chunk_length=1, n_fft=200, sampling_rate=8000
    )
    return WhisperProcessor(sound, tokenizer)


WHISPER = Family(
    name="whisper",
    place=18,
    text="an encoder of speech and a decoder of text, with a processor and a frozen table",
    model_type="whisper",
    class_name="WhisperForConditionalGeneration",
    layers=("WhisperEncoderLayer", "WhisperDecoderLayer"),
    attention=("q_proj", "v_proj"),
    linear=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    settings=settings,
    auto="AutoModelForSpeechSeq2Seq",
    task=None,  # PEFT's models of a task know texts alone
    batch=heard,
    rows=True,
    ties=True,
    head="proj_out",
    processor=processor,
    limits=(OWN_PROCESSOR, ONLY_TRANSFORMERS, *ONE_OF_A_TIE),
)
