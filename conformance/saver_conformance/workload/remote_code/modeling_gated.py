"""The code of a model that lies in the model's own folder; it needs nothing that is not public."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel


class GatedConfig(LlamaConfig):  # type: ignore[misc]
    """A Llama's configuration, with a setting of its own."""

    model_type = "gated"
    gate_scale: float = 1.0


class GatedModel(LlamaModel):  # type: ignore[misc]
    """The decoder, with a gate behind it."""

    config_class = GatedConfig

    def __init__(self, config: GatedConfig) -> None:
        super().__init__(config)
        self.gate = torch.nn.Linear(config.hidden_size, config.hidden_size)
        self.post_init()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the decoder's, behind the gate."""
        output = super().forward(*args, **kwargs)
        states = output.last_hidden_state
        gate = torch.sigmoid(self.gate(states))
        output.last_hidden_state = states * gate * self.config.gate_scale
        return output


class GatedForCausalLM(LlamaForCausalLM):  # type: ignore[misc]
    """The decoder with a head."""

    config_class = GatedConfig

    def __init__(self, config: GatedConfig) -> None:
        super().__init__(config)
        self.model = GatedModel(config)
        self.post_init()
