"""Llama, and a Llama whose head is its input embedding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from saver_conformance.cases.family import ONE_OF_A_TIE, Family, Sizing, decoder

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a decoder of Llama's kind."""


def settings(size: Sizing) -> dict[str, Any]:
    """A Llama of two layers."""
    return {**decoder(size), "tie_word_embeddings": False}


def tied_settings(size: Sizing) -> dict[str, Any]:
    """The same with a tied head."""
    return {**decoder(size), "tie_word_embeddings": True}


LLAMA = Family(
    name="llama",
    place=0,
    text="a decoder whose head and input embedding are two tensors",
    model_type="llama",
    class_name="LlamaForCausalLM",
    layers=("LlamaDecoderLayer",),
    attention=("q_proj", "v_proj"),
    linear=LINEAR,
    settings=settings,
    pairs=True,
)

TIED = replace(
    LLAMA,
    name="llama-tied",
    place=1,
    text="its head is the input embedding: one tensor under two names",
    settings=tied_settings,
    ties=True,
    limits=ONE_OF_A_TIE,
)
