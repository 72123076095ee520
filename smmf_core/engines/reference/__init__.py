"""The reference engine: a Llama-family model in numpy, exact in any batch."""
