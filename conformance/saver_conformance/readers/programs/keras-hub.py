# /// script
# dependencies = [
#     "keras==3.12.0", "kagglehub==1.0.3", "numpy", "regex", "rich", "absl-py", "safetensors",
#     "tokenizers==0.22.2", "sentencepiece",
# ]
#
# [tool.saver-conformance]
# name = "keras-hub"
# place = 30
# text = "KerasHub on the torch backend, which converts folders by its own code"
# install = ["torch==2.13.0"]
# no_deps = ["keras-hub==0.32.0"]
# gives = ["scores"]
# tolerance_reason = "float32 arithmetic of another library"
# variables = { KERAS_BACKEND = "torch" }
# ///
"""Reads with KerasHub in float32. It gets hidden states, which the head makes scores of."""

from importlib.metadata import version

import keras
import keras_hub
import numpy as np
from reader_worker import Folder, Unsupported, serve


class Reading(Folder):
    """A folder as ``Backbone.from_preset`` reads it."""

    def scores(self, prompts):
        """Logits after each prompt."""
        if self.adapter:
            raise Unsupported("KerasHub reads no adapters of PEFT; merge the adapter first")
        try:
            backbone = keras_hub.models.Backbone.from_preset(self.folder, dtype="float32")
        except ValueError as error:
            if "has not been ported" in str(error):
                raise Unsupported(str(error)) from error
            raise
        return [self._next(backbone, prompt) for prompt in prompts]

    def _next(self, backbone, prompt):
        ids = np.array([prompt], dtype="int32")
        hidden = backbone({"token_ids": ids, "padding_mask": np.ones_like(ids)})
        logits = backbone.token_embedding(hidden, reverse=True)
        return keras.ops.convert_to_numpy(logits)[0, -1].astype("float64").tolist()


if __name__ == "__main__":
    serve(Reading, {"keras-hub": version("keras-hub"), "keras": version("keras")})
