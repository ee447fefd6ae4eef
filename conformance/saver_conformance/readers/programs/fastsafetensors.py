# /// script
# dependencies = ["fastsafetensors==0.5.0", "numpy"]
#
# [tool.saver-conformance]
# name = "fastsafetensors"
# place = 20
# text = "fastsafetensors, with which servers stream weights"
# install = ["torch==2.13.0"]
# gives = ["digests"]
# fast = true
# ///
"""Reads the bytes of the tensors; it has no arithmetic."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import torch
from fastsafetensors import SafeTensorsFileLoader, SingleGroup
from reader_worker import Folder, Unsupported, serve

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class Reading(Folder):
    """A folder's weight files, streamed."""

    def digests(self):
        """SHA-256 of each tensor's bytes."""
        found = {}
        loader = SafeTensorsFileLoader(SingleGroup(), "cpu", nogds=True)
        loader.add_filenames({0: self._files()})
        buffers = loader.copy_files_to_device()
        try:
            for name in buffers.key_to_rank_lidx:
                data = buffers.get_tensor(name).contiguous().reshape(-1).view(torch.uint8)
                found[name] = hashlib.sha256(data.numpy().tobytes()).hexdigest()
        finally:
            buffers.close()
            loader.close()
        return found

    def _files(self):
        folder = Path(self.folder)
        if (folder / SINGLE).is_file():
            return [str(folder / SINGLE)]
        if not (folder / INDEX).is_file():
            raise Unsupported("there are no safetensors weights")
        names = json.loads((folder / INDEX).read_text())["weight_map"].values()
        return [str(folder / name) for name in sorted(set(names))]


if __name__ == "__main__":
    serve(Reading, {"fastsafetensors": version("fastsafetensors")})
