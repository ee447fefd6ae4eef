"""The commands of the suite, each wing's own."""
