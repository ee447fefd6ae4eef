"""The first minute: a demonstration, and the files that a framework begins with."""
