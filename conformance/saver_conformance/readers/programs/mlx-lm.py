# /// script
# dependencies = ["mlx[cpu]==0.32.4", "mlx-lm==0.32.2"]
#
# [tool.saver-conformance]
# name = "mlx-lm"
# place = 10
# text = "mlx-lm, which serves on Apple machines, on the CPU"
# gives = ["tokens", "chat", "scores", "chat_scores"]
# tolerance_reason = "float32 arithmetic of another library"
# fast = true
# ///
"""Reads with mlx-lm in float32. Its adapters have a format of their own."""

import json
from functools import cached_property
from pathlib import Path

import mlx.core as mx
import mlx_lm
from mlx.utils import tree_map
from reader_worker import Folder, Unsupported, serve

mx.set_default_device(mx.cpu)


def limit(config):
    """What mlx-lm does not read of such a model, whoever saved it; empty for nothing."""
    named = (config.get("architectures") or [""])[0]
    kind = config.get("model_type")
    if "For" in named and "ForCausalLM" not in named:
        return f"{named} is asked for no scores"
    if kind == "gpt_oss" and "quantization_config" not in config:
        return "mlx-lm reads experts of gpt_oss in MXFP4 only (models/gpt_oss.py, sanitize)"
    if kind == "mamba" and config.get("layer_norm_epsilon", 1e-5) != 1e-5:
        return "mlx-lm takes 1e-5 for layer_norm_epsilon of mamba (models/mamba.py, ResidualBlock)"
    if kind == "gemma" and config.get("hidden_activation", config.get("hidden_act")) != "gelu":
        return "mlx-lm takes the exact gelu for gemma (models/gemma.py, MLP)"
    if kind == "gpt_neox" and config.get("hidden_act", "gelu") == "gelu":
        return "mlx-lm takes an approximate gelu for gpt_neox (models/gpt_neox.py, MLP)"
    if kind == "glm" and config.get("partial_rotary_factor", 1) != 1:
        return "mlx-lm turns all of a head of glm (models/glm.py, GLMAttention)"
    return ""


class Reading(Folder):
    """A folder as ``mlx_lm.load`` reads it."""

    def tokens(self, texts):
        """Token ids by the tokenizer that ``load`` gives."""
        return [self._tokenizer.encode(text, add_special_tokens=False) for text in texts]

    def chat(self, messages):
        """The prompt of the tokenizer's chat template."""
        if not self._tokenizer.chat_template:
            raise Unsupported("the tokenizer has no chat template")
        return self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )

    def scores(self, prompts):
        """Logits after each prompt."""
        return [self._next(prompt) for prompt in prompts]

    def chat_scores(self, messages):
        """Logits after the prompt of a chat."""
        return self._next(self._tokenizer.encode(self.chat(messages), add_special_tokens=False))

    @cached_property
    def _tokenizer(self):
        return mlx_lm.utils.load_tokenizer(Path(self.tokenizer))

    @cached_property
    def _model(self):
        if self.adapter:
            raise Unsupported("mlx-lm has a format of adapters of its own; merge the adapter first")
        config = json.loads(Path(self.folder, "config.json").read_text())
        if why := limit(config):
            raise Unsupported(why)
        try:
            model, _ = mlx_lm.utils.load_model(Path(self.folder))
        except ValueError as error:
            if "not supported" in str(error):
                raise Unsupported(str(error)) from error
            raise
        model.update(tree_map(lambda value: value.astype(mx.float32), model.parameters()))
        return model

    def _next(self, ids):
        if not ids:
            raise Unsupported("the tokenizer makes no tokens of the prompt")
        return self._model(mx.array([ids]))[0, -1].astype(mx.float32).tolist()


if __name__ == "__main__":
    from importlib.metadata import version

    serve(Reading, {"mlx-lm": version("mlx-lm"), "mlx": version("mlx")})
