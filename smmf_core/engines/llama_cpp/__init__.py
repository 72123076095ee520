"""The llama.cpp engine: GGUF models, one decode for all requests."""
