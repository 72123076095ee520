"""A load generator for any OpenAI-compatible endpoint, and what the benchmark measures with it."""
