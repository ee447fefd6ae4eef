"""A conformance suite for functions that save fine-tuned models."""
