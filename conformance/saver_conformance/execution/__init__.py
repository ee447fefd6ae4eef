"""Runs cases one after the other: train, save, observe, check."""
