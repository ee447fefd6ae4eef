"""How transformers reads a folder, whatever its version; two programs use it."""

from __future__ import annotations

import json
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from reader_worker import Folder, Unsupported

torch.set_num_threads(1)
# New tensors are poisoned, so that one which loading leaves out does not look right by accident.
torch.use_deterministic_algorithms(True, warn_only=True)
torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
warnings.simplefilter("ignore")
transformers.logging.set_verbosity_error()

IS_OLD = transformers.__version__.startswith("4.")


def versions() -> dict[str, str]:
    """The versions of what reads."""
    return {
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "torch": torch.__version__,
    }


class Reading(Folder):
    """A folder through the ``Auto*`` classes, as its user would load it."""

    def tokens(self, texts: list[str]) -> list[list[int]]:
        """Token ids by ``AutoTokenizer``."""
        return [self._encode(text) for text in texts]

    def chat(self, messages: list[dict[str, str]]) -> str:
        """The prompt of ``apply_chat_template``."""
        if not self._tokenizer.chat_template:
            raise Unsupported("the tokenizer has no chat template")
        text: str = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return text

    def scores(self, prompts: list[list[int]]) -> list[list[float]]:
        """Logits after each prompt."""
        return [self._next(prompt) for prompt in prompts]

    def chat_scores(self, messages: list[dict[str, str]]) -> list[float]:
        """Logits after the prompt of a chat."""
        return self._next(self._encode(self.chat(messages)))

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @cached_property
    def _tokenizer(self) -> Any:
        return transformers.AutoTokenizer.from_pretrained(self.tokenizer)

    @cached_property
    def _model(self) -> Any:
        config = json.loads(Path(self.folder, "config.json").read_text())
        named = (config.get("architectures") or [""])[0]
        if "For" in named and "ForCausalLM" not in named:
            raise Unsupported(f"{named} is asked for no scores")
        torch.manual_seed(7919)  # what a folder lacks is random
        options: dict[str, Any] = {"torch_dtype" if IS_OLD else "dtype": torch.float32}
        if not IS_OLD:
            options["experts_implementation"] = "eager"
        model = transformers.AutoModelForCausalLM.from_pretrained(
            self.folder, use_safetensors=True, attn_implementation="eager", **options
        )
        if self.adapter:
            model = peft.PeftModel.from_pretrained(model, self.adapter)
        return model.float().eval()

    def _next(self, ids: list[int]) -> list[float]:
        if not ids:
            raise Unsupported("the tokenizer makes no tokens of the prompt")
        with torch.no_grad():
            logits = self._model(input_ids=torch.tensor([ids]), use_cache=False).logits
        row: list[float] = logits[0, -1].float().tolist()
        return row
