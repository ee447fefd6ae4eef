# /// script
# dependencies = ["fastsafetensors", "numpy"]
#
# [tool.saver-conformance]
# name = "fastsafetensors"
# place = 20
# text = "fastsafetensors, which servers stream weights with"
# install = ["torch==2.13.0"]
# gives = ["digests"]
# fast = true
# ///
"""Reads the bytes of the tensors; it has no arithmetic."""
