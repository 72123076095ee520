"""The transformers engine: a step loop over any causal model of the library."""
