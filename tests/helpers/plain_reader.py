# /// script
# [tool.saver-conformance]
# name = "plain"
# text = "a reader of the tests, which the suite's own Python runs"
# gives = ["tokens", "chat", "digests"]
# fast = true
# ///
"""Reads as careless programs do, with the standard library and jinja2.

It takes every weight file in the folder, the chat template in the tokenizer's configuration first,
and only the classes of tokenizers that it knows.
"""

import hashlib
import json
import os
import time
from pathlib import Path

from jinja2.sandbox import ImmutableSandboxedEnvironment
from reader_worker import Folder, Unsupported, serve

KNOWN = ("TokenizersBackend", "PreTrainedTokenizerFast")


class Reading(Folder):
    """A folder."""

    def tokens(self, texts):
        """The ids of words between spaces, of those that are known."""
        if Path(self.folder).name == "hang":
            time.sleep(1000)
        if Path(self.folder).name == "crash":
            os._exit(3)
        vocabulary = json.loads(Path(self.tokenizer, "tokenizer.json").read_text())["model"][
            "vocab"
        ]
        return [[vocabulary.get(word, 3) for word in text.split()] for text in texts]

    def chat(self, messages):
        """The prompt of the template."""
        settings = json.loads(Path(self.tokenizer, "tokenizer_config.json").read_text())
        if settings["tokenizer_class"] not in KNOWN:
            raise ValueError(f"no tokenizer class is called {settings['tokenizer_class']}")
        template = settings.get("chat_template")
        file = Path(self.tokenizer, "chat_template.jinja")
        if template is None and not file.is_file():
            raise Unsupported("there is no chat template")
        template = template or file.read_text()
        made = ImmutableSandboxedEnvironment().from_string(template)
        return made.render(messages=messages, add_generation_prompt=True)

    def digests(self):
        """The digests of all tensors in all files, the later file winning."""
        found = {}
        for path in sorted(Path(self.folder).glob("model*.safetensors"), reverse=True):
            data = path.read_bytes()
            start = 8 + int.from_bytes(data[:8], "little")
            for name, entry in json.loads(data[8:start]).items():
                if name != "__metadata__":
                    begin, end = entry["data_offsets"]
                    found[name] = hashlib.sha256(data[start + begin : start + end]).hexdigest()
        return found


if __name__ == "__main__":
    serve(Reading, {"plain": "1"})
