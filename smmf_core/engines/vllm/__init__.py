"""The vLLM engine: vLLM's engine core inside the Worker."""
