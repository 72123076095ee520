"""The echo engine: deterministic words without a model."""
