"""The choice of a token from logits: one function of parameters, seed and position."""
