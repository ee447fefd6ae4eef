"""What is judged: cases, their axes, and how a profile chooses among them."""
