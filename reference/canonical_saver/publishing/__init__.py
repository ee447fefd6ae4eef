"""The folder that a save leaves: staging, what lies beside the weights, what goes."""
