"""What was seen of a save, as plain data."""
