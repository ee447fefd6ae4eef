# /// script
# dependencies = [
#     "xllamacpp==2026.10.11549", "transformers==4.57.6", "sentencepiece", "protobuf>=4.21,<5",
#     "numpy~=2.2.6",
# ]
#
# [tool.saver-conformance]
# name = "llama.cpp"
# place = 12
# text = "llama.cpp: its converter to GGUF and its engine"
# install = ["torch==2.13.0"]
# sources = ["llama-cpp-python==0.3.36"]
# gives = ["scores"]
# adapters = ["lora"]
# tolerance = 5e-3
# tolerance_reason = "up to 2e-3 in right folders: it takes gelu from a table in half precision"
# ///
"""Converts to GGUF in float32 and computes with the engine.

The converter runs with the transformers that its requirements pin, which loads the tokenizer. It
knows tokenizers by a digest; where it does not know one, the tokens are converted as those of
GPT-2, with a rule that joins no tokens where there is none, without which the engine does not
start. Prompts are given as token ids, so that the scores do not depend on it.
"""

import json
import os
import runpy
import sys
import tempfile
import traceback
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


SWIGLU_LIMIT = 7
PERIOD = 6
THETA = 10_000


def limit(config):
    """What llama.cpp does not read of such a model, whoever saved it; empty for nothing."""
    named = (config.get("architectures") or [""])[0]
    kind = config.get("model_type")
    if "For" in named and "ForCausalLM" not in named:
        return f"{named} is asked for no scores"
    if kind == "gpt_oss" and config.get("swiglu_limit", SWIGLU_LIMIT) != SWIGLU_LIMIT:
        return f"llama.cpp takes {SWIGLU_LIMIT} for swiglu_limit of gpt_oss (llama-graph.cpp)"
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type") == "yarn" and rope.get("truncate") is False:
        return "llama.cpp truncates the bounds of yarn (ggml_rope_yarn_corr_dims)"
    if rope.get("rope_type") == "longrope" and kind == "llama":
        return "llama.cpp takes the factors of longrope for phi3 and minicpm only (conversion/)"
    if kind == "gpt_neox" and rope.get("rope_theta", config.get("rotary_emb_base")) != THETA:
        return f"llama.cpp takes {THETA} for the theta of gpt_neox (conversion/gptneox.py)"
    if kind in ("gemma3", "gemma3_text") and not is_usual_gemma3(config):
        return (
            "llama.cpp takes five local layers and a global one in turn for gemma3, and heads' own "
            "scale (src/models/gemma3.cpp)"
        )
    if kind == "qwen3_moe" and config.get("mlp_only_layers"):
        return "llama.cpp has no dense layers of qwen3_moe"
    return ""


def is_usual_gemma3(config):
    """Whether layers and scale are those of published models."""
    own = config.get("text_config", config)
    kinds = own.get("layer_types") or []
    usual = [number % PERIOD == PERIOD - 1 for number in range(len(kinds))]
    scale = own.get("query_pre_attn_scalar") in (None, own.get("head_dim"))
    return scale and [kind == "full_attention" for kind in kinds] == usual


def is_of_vocabulary(error):
    """Whether the converter lacks a file of sentencepiece, or tokens of the published model."""
    frames = traceback.extract_tb(error.__traceback__)
    if not any(frame.name == "set_vocab" for frame in frames):
        return False
    return isinstance(error, (FileNotFoundError, KeyError)) or "Missing" in str(error)


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
        if why := limit(json.loads(Path(self.folder, "config.json").read_text())):
            raise Unsupported(why)
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
            if isinstance(end.__context__, NotImplementedError):
                raise Unsupported(str(end.__context__)) from end
            if end.code:
                raise RuntimeError(f"the converter ended with {end.code}") from end
        except NotImplementedError as error:
            raise Unsupported(str(error)) from error
        except (FileNotFoundError, KeyError, ValueError) as error:
            if is_of_vocabulary(error):
                lacking = f"the converter knows published tokenizers of such models only: {error}"
                raise Unsupported(lacking) from error
            raise
        finally:
            sys.argv = before
        return str(out)


if __name__ == "__main__":
    serve(Reading, {"llama.cpp": version("xllamacpp"), "converter": "llama-cpp-python 0.3.36"})
