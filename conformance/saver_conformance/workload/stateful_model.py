"""A Llama with state that no optimizer trains: statistics of batches, and extra state of a module.

Its user has this module, as the users of a model of their own have theirs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutput

MODEL_TYPE = "stateful"
"""``model_type`` of its configuration."""


class StatefulConfig(LlamaConfig):  # type: ignore[misc]
    """A Llama's configuration under a name of its own."""

    model_type = MODEL_TYPE
    counts_calls: bool = False


class Statistics(nn.Module):
    """Normalises by the statistics of batches, which it keeps in buffers."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.batch_norm = nn.BatchNorm1d(size, momentum=0.3, eps=1e-3)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Normalise each feature over batch and positions."""
        flat = self.batch_norm(states.reshape(-1, states.shape[-1]))
        normed: torch.Tensor = flat.reshape(states.shape)
        return normed


class Calls(nn.Module):
    """Counts its calls in an attribute, which ``state_dict`` has as extra state."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 5

    def get_extra_state(self) -> torch.Tensor:
        """The number of calls."""
        return torch.tensor([self.calls])

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Take over the number of calls."""
        self.calls = int(state.item())

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Count the call."""
        if self.training:
            self.calls += 1
        return states


class StatefulForCausalLM(LlamaForCausalLM):  # type: ignore[misc]
    """The decoder, with its state before the head."""

    config_class = StatefulConfig

    def __init__(self, config: StatefulConfig) -> None:
        super().__init__(config)
        self.statistics = Calls() if config.counts_calls else Statistics(config.hidden_size)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the decoder's, of states that went through the statistics."""
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        logits = self.lm_head(self.statistics(output.last_hidden_state))
        loss = None
        if labels is not None:
            size = self.config.vocab_size
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=size)
        return CausalLMOutput(loss=loss, logits=logits)


AutoConfig.register(MODEL_TYPE, StatefulConfig)
AutoModelForCausalLM.register(StatefulConfig, StatefulForCausalLM)
