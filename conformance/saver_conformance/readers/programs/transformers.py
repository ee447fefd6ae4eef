# /// script
# dependencies = ["transformers==5.23.0", "peft==0.21.2", "accelerate==1.15.0", "jinja2"]
#
# [tool.saver-conformance]
# name = "transformers"
# place = 0
# text = "transformers 5 with its PEFT, the tested version"
# install = ["torch==2.13.0"]
# gives = ["tokens", "chat", "scores", "chat_scores"]
# adapters = ["lora", "dora", "modules_to_save"]
# tolerance_reason = "others are compared with it; the same code on the same machine differs by 0"
# fast = true
# ///
"""Reads with the newest transformers, in float32; what it computes is the standard for others."""

from reader_worker import serve
from transformers_reading import Reading, versions

if __name__ == "__main__":
    serve(Reading, versions())
