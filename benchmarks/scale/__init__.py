"""What one machine cannot show, computed: published models on up to a thousand simulated ranks.

Models are on the meta device, so no weight exists. Names, files, write items and the proof of
tiling are the saver's own; only which elements a simulated rank holds is computed here, and a test
compares that with what FSDP2 and the saver's engines say.
"""
