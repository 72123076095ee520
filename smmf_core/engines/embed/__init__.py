"""The embedding and rerank engine on torch."""
