"""Readers: programs that load saved folders with the libraries that serve models."""
