"""LLaVA: a Llama that is given images, and a processor of images beside its tokenizer."""

from __future__ import annotations

from typing import Any

from saver_conformance.cases.families.llama import LINEAR
from saver_conformance.cases.families.llama import settings as llama_settings
from saver_conformance.cases.family import (
    ONLY_TRANSFORMERS,
    OWN_PROCESSOR,
    Family,
    Rename,
    Sizing,
)
from saver_conformance.cases.limit import Limit

IMAGE, IMAGE_ID = "<image>", 4
"""The token that stands for a patch of an image: the first after those that every tokenizer has."""
PATCHES = 4
"""Patches of an image: two by two, of four pixels each way."""

PARTS = (
    Rename(r"^model\.language_model", "language_model.model"),
    Rename(r"^model\.vision_tower", "vision_tower"),
    Rename(r"^model\.multi_modal_projector", "multi_modal_projector"),
)
"""How published checkpoints name the parts of a model that is given images."""


def settings(size: Sizing) -> dict[str, Any]:
    """Two layers for texts, and two for images."""
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 8,
        "image_size": 8,
        "patch_size": 4,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-4,
    }
    return {
        "text_config": {"model_type": "llama", **llama_settings(size)},
        "vision_config": vision,
        "image_token_index": IMAGE_ID,
        "image_seq_length": PATCHES,
        "vision_feature_layer": -1,
        "projector_hidden_act": "relu",
        "tie_word_embeddings": False,
    }


def captioned(tokens: Any, size: Sizing) -> dict[str, Any]:
    """An image, and the text that follows it."""
    text = tokens.clamp(min=IMAGE_ID + 1)
    text[:PATCHES] = IMAGE_ID
    pixels = tokens.float().repeat(24).reshape(3, 8, 8) / size.vocabulary
    return {"input_ids": text, "labels": text, "pixel_values": pixels}


def processor(tokenizer: Any, size: Sizing) -> Any:
    """The processor of images and texts; none of its settings is the default."""
    from transformers import CLIPImageProcessorPil, LlavaProcessor

    images = CLIPImageProcessorPil(
        size={"shortest_edge": 8},
        crop_size={"height": 8, "width": 8},
        image_mean=[0.1, 0.2, 0.3],
        image_std=[0.4, 0.5, 0.6],
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=tokenizer.chat_template,
    )


LLAVA = Family(
    name="llava",
    place=15,
    text="a decoder that is given images: a configuration of two others, a processor, and names in "
    "memory that files do not have",
    model_type="llava",
    class_name="LlavaForConditionalGeneration",
    layers=("LlamaDecoderLayer", "CLIPEncoderLayer"),
    attention=("q_proj", "v_proj"),
    linear=(*LINEAR, "out_proj", "fc1", "fc2"),
    settings=settings,
    auto="AutoModelForImageTextToText",
    batch=captioned,
    rows=True,
    conversions=(Rename(r"^lm_head", "language_model.lm_head"), *PARTS),
    tokens=(IMAGE,),
    processor=processor,
    limits=(
        OWN_PROCESSOR,
        ONLY_TRANSFORMERS,
        Limit(
            "PEFT looks for all classes of layers that the model's class names, and the model does "
            "not have all of them (fsdp_auto_wrap_policy, peft/utils/other.py)",
            modes="*lora-fsdp1*,*lora-fsdp2*,*lora-hsdp",
        ),
    ),
    requires=("pillow",),
)
