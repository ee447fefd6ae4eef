# /// script
# dependencies = ["xllamacpp", "transformers==5.23.0", "sentencepiece", "protobuf", "numpy"]
#
# [tool.saver-conformance]
# name = "llama.cpp"
# place = 12
# text = "llama.cpp: its converter to GGUF and its engine"
# install = ["torch==2.13.0"]
# sources = ["llama-cpp-python==0.3.36"]
# gives = ["scores"]
# adapters = ["lora"]
# tolerance_reason = "float32 weights and a cache in float32; arithmetic of another library"
# ///
"""Converts to GGUF in float32 and computes with the engine.

The converter knows tokenizers by a digest; where it does not know one, the tokens are converted as
those of GPT-2, with a rule that joins no tokens where there is none, without which the engine does
not start. Prompts are given as token ids, so that the scores do not depend on it.
"""

import os
import runpy
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import xllamacpp
from reader_worker import Folder, Unsupported, serve

SOURCES = next(Path(os.environ["READER_SOURCES"]).glob("*/vendor/llama.cpp"))
sys.path.insert(0, str(SOURCES))

from conversion.base import TextModel, gguf  # noqa: E402 - of the sources

known = TextModel.get_vocab_base_pre


def of_gpt_2_if_unknown(model, tokenizer):
    """The name of the tokenizer's kind."""
    try:
        return known(model, tokenizer)
    except NotImplementedError:
        return "gpt-2"


TextModel.get_vocab_base_pre = of_gpt_2_if_unknown
merges_as_found = gguf.SpecialVocab.add_to_gguf


def with_a_merge(vocabulary, *arguments, **named):
    """Write the special tokens and the rules that join tokens."""
    if vocabulary.load_merges and not vocabulary.merges:
        vocabulary.merges = ["<unk> <unk>"]
    return merges_as_found(vocabulary, *arguments, **named)


gguf.SpecialVocab.add_to_gguf = with_a_merge


class Reading(Folder):
    """A folder as the converter reads it."""

    KIND = "logprobs"

    def __init__(self, question):
        super().__init__(question)
        self._scratch = tempfile.TemporaryDirectory()

    def close(self):
        """Remove the converted files."""
        self._scratch.cleanup()

    def scores(self, prompts):
        """Logarithms of the probabilities after each prompt."""
        server = xllamacpp.Server(self._parameters())
        return [self._next(server, prompt) for prompt in prompts]

    def _next(self, server, prompt):
        asked = {"prompt": prompt, "n_predict": 1, "n_probs": 1_000_000, "temperature": 1.0}
        # Where it takes a token that has no text or ends one, it tells no probabilities.
        for seed in range(1, 33):
            answer = server.handle_completions(asked | {"cache_prompt": False, "seed": seed})
            content = (answer["choices"][0].get("logprobs") or {}).get("content")
            if content:
                return {str(one["id"]): one["logprob"] for one in content[0]["top_logprobs"]}
        raise RuntimeError("the engine gives no probabilities")

    def _parameters(self):
        parameters = xllamacpp.CommonParams()
        parameters.model.path = self._convert("convert_hf_to_gguf.py", self.folder)
        if self.adapter:
            path = self._convert("convert_lora_to_gguf.py", self.adapter, "--base", self.folder)
            parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 1.0)]
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 128
        parameters.n_parallel = 1
        parameters.warmup = False
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
        full = xllamacpp.ggml_type.GGML_TYPE_F32
        parameters.cache_type_k = parameters.cache_type_v = full
        parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.verbosity = -1
        return parameters

    def _convert(self, name, *arguments):
        out = Path(self._scratch.name, f"{name}.gguf")
        before = sys.argv
        sys.argv = [name, *arguments, "--outtype", "f32", "--outfile", str(out)]
        try:
            runpy.run_path(str(SOURCES / name), run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise Unsupported(f"the converter ended with {end.code}") from end
        except NotImplementedError as error:
            raise Unsupported(str(error)) from error
        finally:
            sys.argv = before
        return str(out)


if __name__ == "__main__":
    serve(Reading, {"llama.cpp": version("xllamacpp"), "converter": "llama-cpp-python 0.3.36"})
