"""A model that no library knows: a Llama with module names and tensors that savers trip over.

Its user has this module, as the users of a model of their own have theirs: importing it is what
``Auto*`` classes need to load a folder of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
)

from saver_conformance.cases.families.custom import LAYERS

MODEL_TYPE = "custom"
"""``model_type`` of its configuration."""


class CustomConfig(LlamaConfig):  # type: ignore[misc]
    """A Llama's configuration under a name of its own."""

    model_type = MODEL_TYPE
    odd_parameters: bool = False


class Ledger(nn.Module):
    """Tensors of every kind that a state dict can hold: none of them is a matrix."""

    scale: torch.Tensor
    count: torch.Tensor
    whole: torch.Tensor

    def __init__(self, *, odd_parameters: bool) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        if odd_parameters:
            self.zero_d = nn.Parameter(torch.tensor(1.5))
            self.empty = nn.Parameter(torch.empty(0, 4))
            self.integers = nn.Parameter(torch.arange(5), requires_grad=False)
            self.flags = nn.Parameter(torch.tensor([True, False]), requires_grad=False)
        self.register_buffer("scale", torch.tensor(0.5))
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("nothing", torch.empty(0, 3))
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("table", torch.arange(-3, 3, dtype=torch.int32).reshape(2, 3))
        self.register_buffer("whole", torch.arange(6.0))
        self.register_buffer("window", torch.arange(2.0, 5.0))

    def share_storage(self) -> None:
        """Make ``window`` a view of ``whole``; loading gives each a storage of its own."""
        self.window = self.whole[2:5]

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Count the call, and scale what is given."""
        if self.training:
            self.count += 1
        gain = self.gain * self.scale * 2
        if hasattr(self, "zero_d"):
            gain = gain * self.zero_d + self.empty.sum()
        return states * gain


class Residuals(nn.Module):
    """Linear layers with unfortunate names, one behind the other."""

    def __init__(self, size: int) -> None:
        super().__init__()
        for name in LAYERS:
            self.add_module(name, nn.Linear(size, size, bias=False))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Add what each layer makes of the states."""
        for name in LAYERS:
            states = states + self.get_submodule(name)(states)
        return states


class CustomModel(LlamaModel):  # type: ignore[misc]
    """The decoder, with more behind it."""

    config_class = CustomConfig

    def __init__(self, config: CustomConfig) -> None:
        super().__init__(config)
        self.residuals = Residuals(config.hidden_size)
        self.ledger = Ledger(odd_parameters=config.odd_parameters)
        self.post_init()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the decoder's, with the layers behind it."""
        output = super().forward(*args, **kwargs)
        output.last_hidden_state = self.residuals(self.ledger(output.last_hidden_state))
        return output


class CustomForCausalLM(LlamaForCausalLM):  # type: ignore[misc]
    """The decoder with a head."""

    config_class = CustomConfig

    def __init__(self, config: CustomConfig) -> None:
        super().__init__(config)
        self.model = CustomModel(config)
        self.post_init()


AutoConfig.register(MODEL_TYPE, CustomConfig)
AutoModelForCausalLM.register(CustomConfig, CustomForCausalLM)
