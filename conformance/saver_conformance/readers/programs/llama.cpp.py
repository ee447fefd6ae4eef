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
"""Converts to GGUF in float32 and computes with the engine."""

import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from reader_worker import Folder, Unsupported, serve


def converter(name):
    """The converter of this name in the unpacked sources."""
    return next(Path(os.environ["READER_SOURCES"]).glob(f"*/vendor/llama.cpp/{name}"))


class Reading(Folder):
    """A folder as the converter reads it."""

    def __init__(self, question):
        super().__init__(question)
        self._scratch = tempfile.TemporaryDirectory()

    def close(self):
        """Remove the converted files."""
        self._scratch.cleanup()

    def scores(self, prompts):
        """Logits after each prompt."""
        raise Unsupported("no engine")

    def _convert(self, name, *arguments):
        out = Path(self._scratch.name, f"{name}.gguf")
        done = subprocess.run(
            [
                *(sys.executable, str(converter(name)), *arguments),
                *("--outtype", "f32", "--outfile", str(out)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1]
            if "not supported" in last or "NotImplementedError" in last:
                raise Unsupported(last)
            raise RuntimeError(last)
        return str(out)


if __name__ == "__main__":
    serve(Reading, {"xllamacpp": version("xllamacpp")})
