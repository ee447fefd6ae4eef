# /// script
# dependencies = [
#     "keras==3.12.0", "kagglehub==1.0.3", "numpy", "regex", "rich", "absl-py", "safetensors",
#     "tokenizers==0.22.2", "sentencepiece",
# ]
#
# [tool.saver-conformance]
# name = "keras-hub"
# place = 30
# text = "KerasHub on the torch backend, which converts folders by its own code"
# install = ["torch==2.13.0"]
# no_deps = ["keras-hub==0.32.0"]
# gives = ["scores"]
# tolerance_reason = "float32 arithmetic of another library"
# variables = { KERAS_BACKEND = "torch" }
# ///
"""Reads with KerasHub in float32. It gets hidden states, which the head makes scores of."""

import json
from importlib.metadata import version
from pathlib import Path

import keras
import keras_hub
import numpy as np
from reader_worker import Folder, Unsupported, serve

EPSILON = 1e-6
THETAS = {"sliding_attention": 10_000.0, "full_attention": 1_000_000.0}
PERIOD = 6


def limit(config):
    """What KerasHub does not read of such a model, whoever saved it; empty for nothing."""
    named = (config.get("architectures") or [""])[0]
    kind = config.get("model_type")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if "For" in named and "ForCausalLM" not in named:
        return f"{named} is asked for no scores"
    if kind == "llama" and config.get("rms_norm_eps", EPSILON) != EPSILON:
        return f"KerasHub takes {EPSILON:g} for rms_norm_eps of llama (convert_llama3.py)"
    if kind == "llama" and rope.get("rope_type", "default") not in ("default", "llama3"):
        return f"KerasHub has no {rope['rope_type']} rope of llama (convert_llama3.py)"
    if kind in ("gemma", "gemma2") and theta(config, rope) != THETAS["sliding_attention"]:
        return "KerasHub takes 10000 for the theta of gemma (gemma_attention.py)"
    if kind in ("gemma3", "gemma3_text") and not is_usual_gemma3(config, rope):
        return (
            "KerasHub takes five local layers and a global one in turn for gemma3, thetas of 10000 "
            "and 1000000, and heads' own scale (gemma3_backbone.py)"
        )
    if kind == "qwen3_moe" and config.get("mlp_only_layers"):
        return "KerasHub has no dense layers of qwen3_moe (convert_qwen3_moe.py)"
    if kind == "gpt_oss" and "quantization_config" not in config:
        return "KerasHub reads experts of gpt_oss in MXFP4 only (convert_gpt_oss.py)"
    return ""


def theta(config, rope):
    """The base of the rotary positions, under either name."""
    return rope.get("rope_theta", config.get("rope_theta", THETAS["sliding_attention"]))


def is_usual_gemma3(config, rope):
    """Whether layers, thetas and scale are those of published models, which are not read."""
    own = config.get("text_config", config)
    if own.get("query_pre_attn_scalar") not in (None, own.get("head_dim")):
        return False
    kinds = own.get("layer_types") or []
    usual = [number % PERIOD == PERIOD - 1 for number in range(len(kinds))]
    same = {kind: rope.get(kind, {}).get("rope_theta", usual) for kind, usual in THETAS.items()}
    return [kind == "full_attention" for kind in kinds] == usual and same == THETAS


class Reading(Folder):
    """A folder as ``Backbone.from_preset`` reads it."""

    def scores(self, prompts):
        """Logits after each prompt."""
        if self.adapter:
            raise Unsupported("KerasHub reads no adapters of PEFT; merge the adapter first")
        config = json.loads(Path(self.folder, "config.json").read_text())
        if why := limit(config):
            raise Unsupported(why)
        try:
            backbone = keras_hub.models.Backbone.from_preset(self.folder, dtype="float32")
        except ValueError as error:
            if "has no converter for" in str(error):
                raise Unsupported(str(error)) from error
            raise
        cap = config.get("final_logit_softcapping")
        return [self._next(backbone, prompt, cap) for prompt in prompts]

    def _next(self, backbone, prompt, cap):
        ids = np.array([prompt], dtype="int32")
        hidden = backbone({"token_ids": ids, "padding_mask": np.ones_like(ids)})
        logits = backbone.token_embedding(hidden, reverse=True)
        if cap:
            logits = keras.ops.tanh(logits / cap) * cap
        return keras.ops.convert_to_numpy(logits)[0, -1].astype("float64").tolist()


if __name__ == "__main__":
    serve(Reading, {"keras-hub": version("keras-hub"), "keras": version("keras")})
