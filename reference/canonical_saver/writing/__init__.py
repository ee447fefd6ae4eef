"""From planned files to bytes on disk: who writes what, and how it gets there."""
