"""A framework's own training command, watched: what it trained, and what is left in the folder."""
