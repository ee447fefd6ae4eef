"""Gemma 3: a tied decoder that is given images, with two kinds of attention and of positions."""

from __future__ import annotations

from typing import Any

from saver_conformance.cases.families.llama import LINEAR
from saver_conformance.cases.families.llava import LLAVA, PARTS
from saver_conformance.cases.family import ONE_OF_A_TIE, Family, Sizing, decoder

IMAGE, BEGIN, END = "<image_soft_token>", "<start_of_image>", "<end_of_image>"
IMAGE_ID, BEGIN_ID, END_ID = 4, 5, 6
"""The tokens of an image: the first after those that every tokenizer has."""
PATCHES = 4
"""Tokens that an image becomes."""


def settings(size: Sizing) -> dict[str, Any]:
    """A layer that sees a window and one that sees all, each with its own positions."""
    text = decoder(size) | {
        "model_type": "gemma3_text",
        "head_dim": 8,
        "query_pre_attn_scalar": 12,
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 5_000.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 30_000.0, "factor": 4.0},
        },
        "hidden_activation": "gelu",
    }
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
        "layer_norm_eps": 1e-4,
        "vision_use_head": False,
    }
    return {
        "text_config": text,
        "vision_config": vision,
        "mm_tokens_per_image": PATCHES,
        "image_token_index": IMAGE_ID,
        "boi_token_index": BEGIN_ID,
        "eoi_token_index": END_ID,
        "initializer_range": 0.04,
        "tie_word_embeddings": True,
    }


def captioned(tokens: Any, size: Sizing) -> dict[str, Any]:
    """An image, and the text that follows it; which tokens are of which kind."""
    text = tokens.clamp(min=END_ID + 1)
    text[:PATCHES] = IMAGE_ID
    pixels = tokens.float().repeat(24).reshape(3, 8, 8) / size.vocabulary
    kinds = (text == IMAGE_ID).long()
    return {"input_ids": text, "labels": text, "pixel_values": pixels, "token_type_ids": kinds}


def processor(tokenizer: Any, size: Sizing) -> Any:
    """The processor of images and texts; none of its settings is the default."""
    from transformers import Gemma3ImageProcessorPil, Gemma3Processor, PreTrainedTokenizerFast

    named = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        **tokenizer.special_tokens_map,
        image_token=IMAGE,
        boi_token=BEGIN,
        eoi_token=END,
    )
    named.chat_template = tokenizer.chat_template
    images = Gemma3ImageProcessorPil(
        size={"height": 8, "width": 8},
        image_mean=[0.1, 0.2, 0.3],
        image_std=[0.4, 0.5, 0.6],
    )
    return Gemma3Processor(
        image_processor=images,
        tokenizer=named,
        image_seq_length=PATCHES,
        chat_template=tokenizer.chat_template,
    )


GEMMA3 = Family(
    name="gemma3",
    place=21,
    text="a tied decoder that is given images: positions of two kinds, and special tokens that "
    "have names",
    model_type="gemma3",
    class_name="Gemma3ForConditionalGeneration",
    layers=("Gemma3DecoderLayer", "SiglipEncoderLayer"),
    attention=("q_proj", "v_proj"),
    linear=(*LINEAR, "out_proj", "fc1", "fc2"),
    settings=settings,
    auto="AutoModelForImageTextToText",
    batch=captioned,
    rows=True,
    ties=True,
    conversions=PARTS,  # its checkpoints have no head; one that is untied keeps its name
    tokens=(IMAGE, BEGIN, END),
    processor=processor,
    limits=(
        *LLAVA.limits,
        *ONE_OF_A_TIE,
    ),
)
