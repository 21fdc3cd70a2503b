"""Training: the text, the tiny base model, and speculative heads in two phases."""
