# /// script
# dependencies = ["transformers==4.57.6", "peft==0.17.1", "accelerate==1.15.0", "jinja2"]
#
# [tool.saver-conformance]
# name = "transformers-4"
# place = 1
# text = "transformers 4.57 with PEFT 0.17, which many servers and trainers still pin"
# install = ["torch==2.13.0"]
# gives = ["tokens", "chat", "scores", "chat_scores"]
# adapters = ["lora", "dora", "modules_to_save"]
# tolerance_reason = "float32 arithmetic in another order: experts are summed one by one"
# fast = true
# ///
"""Reads with the last transformers of version 4, in float32."""

from reader_worker import serve
from transformers_reading import Reading, versions

if __name__ == "__main__":
    serve(Reading, versions())
