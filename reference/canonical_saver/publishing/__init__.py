"""The folder that a save leaves: staging, what lies next to the weights, what goes."""
