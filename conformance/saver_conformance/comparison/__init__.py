"""Two folders compared by content: with each other, and a fine-tuned model with its base."""
