"""Trains tiny models under every mode, has them saved, and reloads them."""
