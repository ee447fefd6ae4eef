"""What lies on disk, read by our own code alone."""
