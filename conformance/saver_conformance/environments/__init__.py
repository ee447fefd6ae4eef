"""Environments of savers whose libraries do not go with ours: made, kept and driven from here."""
