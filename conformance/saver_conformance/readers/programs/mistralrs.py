# /// script
# dependencies = ["mistralrs==0.9.5", "numpy"]
#
# [tool.saver-conformance]
# name = "mistralrs"
# place = 11
# text = "mistral.rs, an engine in Rust with readers of its own"
# gives = ["chat_scores"]
# adapters = ["lora"]
# tolerance = 2e-2
# tolerance_reason = "up to 7e-3 in every right folder, for a reason that is not known"
# fast = true
# ///
"""Reads with mistral.rs in float32. It takes chats only, and gives the 20 likeliest tokens."""

import json
from importlib.metadata import version
from pathlib import Path

from mistralrs import ChatCompletionRequest, LoraAdapter, ModelDType, Runner, Which
from reader_worker import Folder, Unsupported, serve

TOP = 20
ALIAS = "adapter"


class Reading(Folder):
    """A folder as ``Runner`` reads it."""

    KIND = "logprobs"

    def chat_scores(self, messages):
        """Logarithms of the probabilities of the likeliest tokens after the prompt of a chat."""
        request = ChatCompletionRequest(
            model="default",
            messages=messages,
            max_tokens=1,
            temperature=1.0,
            logprobs=True,
            top_logprobs=TOP,
            adapter=ALIAS if self.adapter else None,  # else the base answers
        )
        answer = self._runner().send_chat_completion_request(request)
        vocabulary = self._vocabulary()
        found = {}
        for one in answer.choices[0].logprobs.content[0].top_logprobs:
            text = one.bytes if isinstance(one.bytes, str) else one.token
            if text in vocabulary:
                found[vocabulary[text]] = one.logprob
        return found

    def _runner(self):
        config = json.loads(Path(self.folder, "config.json").read_text())
        if config.get("model_type") == "gpt_oss" and "quantization_config" not in config:
            raise Unsupported("mistral.rs reads experts of gpt_oss in MXFP4 only")
        plain = {"model_id": self.folder, "dtype": ModelDType.F32}
        if self.adapter:
            adapter = LoraAdapter(alias=ALIAS, source=self.adapter)
            which = Which.Lora(adapters=[adapter], **plain)
        else:
            which = Which.Plain(**plain)
        try:
            return Runner(which=which, no_paged_attn=True)
        except ValueError as error:
            # It has no such model, or no such variant of rotary positions for it.
            if "nsupported" in str(error) or "unknown variant" in str(error):
                raise Unsupported(str(error)) from error
            raise

    def _vocabulary(self):
        plain = json.loads(Path(self.tokenizer, "tokenizer.json").read_text())
        return dict(plain["model"]["vocab"]) | {
            token["content"]: token["id"] for token in plain["added_tokens"]
        }


if __name__ == "__main__":
    serve(Reading, {"mistralrs": version("mistralrs")})
