"""The canonical way to save a fine-tuned model."""
